"""Threads: many that rotate at once, of every kind, beside parallel code of others, each in a process of its own."""

from __future__ import annotations

import pytest
from helpers import needs_jit
from processes import FOREIGN, LAYERS, run, with_layer

# 8 threads x 2,000 calls. What each call must give is computed by NumPy before Numba is imported, so that the first
# calls of all threads import it and compile together.
MIXED = """
import itertools
KINDS = (  # dtype, layout, order, shapes of q and k
    ("float32", "half", "thd", (1, 9, 64), (1, 3, 64)),
    ("float32", "half", "thd", (70, 40, 128), (70, 8, 128)),  # large enough for threads
    ("float32", "half", "htd", (2, 4, 5, 64), (2, 2, 5, 64)),
    ("float16", "interleaved", "thd", (1, 32, 128), (1, 8, 128)),
    ("float16", "interleaved", "htd", (40, 90, 128), (8, 90, 128)),
    ("float64", "interleaved", "thd", (6, 32), (2, 32)),
    ("bfloat16", "half", "thd", (3, 4, 80), (3, 4, 80)),
)
def cast(x, dtype):
    if dtype == "bfloat16":
        import ml_dtypes
        return x.astype(ml_dtypes.bfloat16)
    return x.astype(dtype)
def prepared(seed):
    cases = []
    for kind, offset in itertools.product(KINDS, (0, 7 + 1000 * seed)):
        dtype, layout, order, *shapes = kind
        rng = np.random.default_rng(seed)
        given = [cast(rng.standard_normal(shape), dtype) for shape in shapes]
        expected = [x.copy() for x in given]
        rope = rn.Rope(shapes[0][-1], layout=layout, order=order, backend="numpy")
        rope(*expected, offset=offset)
        cases.append((shapes[0][-1], layout, order, offset, given, [x.tobytes() for x in expected]))
    return cases
CASES = [prepared(seed) for seed in range(8)]
assert "numba" not in sys.modules
def calls(seed, number):
    cases, wrong = CASES[seed], 0
    ropes = [rn.Rope(head_dim, layout=layout, order=order) for head_dim, layout, order, *_ in cases]
    rng = np.random.default_rng(seed)
    chances = np.array([1 if case[4][0].size > 100_000 else 20 for case in cases], float)
    for which in rng.choice(len(cases), number, p=chances / chances.sum()).tolist():
        _, _, _, offset, given, expected = cases[which]
        q, k = (x.copy() for x in given)
        ropes[which](q, k, offset=offset)
        wrong += q.tobytes() != expected[0] or k.tobytes() != expected[1]
    return wrong
"""

THREADS = """
barrier, wrong = threading.Barrier(8), []
def work(seed):
    barrier.wait()
    wrong.append(calls(seed, NUMBER))
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
"""


# Under the first layer they compile together, under the others they load together what was compiled.
@pytest.mark.process
@pytest.mark.parametrize(("layer", "cache"), [("omp", "cold"), ("workqueue", "warm"), ("tbb", "warm")])
def test_eight_threads_of_2000_mixed_calls_have_numpys_bits_from_the_first_on(
    layer: str, cache: str, request: pytest.FixtureRequest
) -> None:
    code = f"NUMBER = 2000\n{THREADS}\nimport numba\nprint(wrong, numba.threading_layer())"
    environment = with_layer(layer, request.getfixturevalue(f"{cache}_cache"))
    assert run(MIXED + code, environment) == f"{[0] * 8} {layer}"


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threads_that_start_together_all_get_the_right_bits(layer: str, warm_cache: dict[str, str]) -> None:
    code = """
barrier, results = threading.Barrier(8), []
def work(seed):
    barrier.wait()
    for n in range(6):
        results.append(right(small if (n + seed) % 3 else large))
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(results), all(results))
"""
    assert run(code, warm_cache, NUMBA_THREADING_LAYER=layer) == "48 True"


@pytest.mark.process
@pytest.mark.parametrize("layer", LAYERS)
def test_another_packages_parallel_code_may_run_at_the_same_time(layer: str, warm_cache: dict[str, str]) -> None:
    # Under workqueue, a parallel function that is entered twice at once ends the process: ours must not be the second.
    code = """
x, turns, done = np.zeros(300_000), [0], threading.Event()
def others():
    while not done.is_set() or turns[0] < 100:
        foreign(x)
        turns[0] += 1
foreign(x); turns[0] += 1
other = threading.Thread(target=others); other.start()
"""
    after = "\ndone.set(); other.join()\nprint(wrong, bool((x == turns[0]).all()), turns[0] >= 100)"
    assert run(MIXED + FOREIGN + code + "NUMBER = 200\n" + THREADS + after, with_layer(layer, warm_cache)) == (
        f"{[0] * 8} True True"
    )


@pytest.mark.process
def test_users_jitted_code_that_holds_the_kernel_compiles_beside_the_first_calls(cold_cache: dict[str, str]) -> None:
    code = """
from numba import njit
cos, sin = rn.Rope(64).tables(5)
cos, sin = cos.copy(), sin.copy()
expected = np.ones((5, 3, 64), np.float32)
rn.Rope(64, backend="numpy")(expected, offset=0)
def jitted():
    @njit
    def rotated(x, cos, sin):
        rn.rotate_interleaved(x, cos, sin)
        return x
    return rotated(np.ones((5, 3, 64), np.float32), cos, sin)
def called():
    q = np.ones((5, 3, 64), np.float32)
    return rn.Rope(64)(q, offset=0)
def named():
    q = np.ones((5, 3, 64), np.float32)
    rn.rotate_interleaved(q, cos, sin)
    return q
results = []
barrier = threading.Barrier(6)
def work(which):
    barrier.wait()
    results.append(bool((which() == expected).all()))
threads = [threading.Thread(target=work, args=(which,)) for which in (jitted, called, named) * 2]
[t.start() for t in threads]; [t.join() for t in threads]
print(results)
"""
    assert run(code, cold_cache) == str([True] * 6)


@needs_jit
def test_numbas_lock_is_not_taken_while_another_thread_makes_numbas_target(warm_cache: dict[str, str]) -> None:
    # Numba makes its target at the first njit of a process, behind a lock of its own, and takes the other one there.
    code = """
from numba.core import registry
making, real = threading.Event(), registry.cpu.CPUContext
def slow(*arguments):
    registry.cpu.CPUContext = real
    making.set()
    threading.Event().wait(1.5)  # more than the other thread needs to come to the locks
    return real(*arguments)
registry.cpu.CPUContext = slow
maker = threading.Thread(target=lambda: registry.cpu_target.target_context, daemon=True)
named = threading.Thread(target=lambda: rn.rotate_interleaved, daemon=True)
maker.start(); making.wait(); named.start()
maker.join(60); named.join(60)
print(maker.is_alive(), named.is_alive(), "rotate_interleaved" in vars(rn))
"""
    assert run(code, warm_cache) == "False False True"


@needs_jit
def test_kernels_can_be_imported_while_another_thread_compiles(warm_cache: dict[str, str]) -> None:
    # A thread that compiles a caller of the kernels imports them too, holding Numba's lock: no import may wait for it.
    code = """
import numba
from numba.core.compiler_lock import global_compiler_lock
numba.njit(lambda: 0)  # makes Numba's context, as whatever compiles has done before it takes the lock
imported = threading.Thread(target=lambda: __import__("rope_numba.kernels.launch"), daemon=True)
with global_compiler_lock:
    imported.start(); imported.join(60)
print(imported.is_alive(), "rope_numba.kernels.launch" in sys.modules)
"""
    assert run(code, warm_cache) == "False True"


@needs_jit
def test_a_rope_called_while_a_users_code_is_compiled_waits_for_no_other_first_call(warm_cache: dict[str, str]) -> None:
    # The user's thread holds Numba's lock when it comes to ours, the other one takes them the other way round.
    code = """
from numba.core.compiler_lock import global_compiler_lock
from rope_numba.kernels import launch
others, make = threading.Event(), launch.InPlace
def slow(*arguments):
    others.set()
    threading.Event().wait(1.5)
    return make(*arguments)
def compile_and_call():
    others.wait()
    with global_compiler_lock:
        assert right(small)
launch.InPlace = slow
users = threading.Thread(target=compile_and_call, daemon=True)
other = threading.Thread(target=lambda: right(small), daemon=True)
users.start(); other.start()
users.join(60); other.join(60)
print(users.is_alive(), other.is_alive())
"""
    assert run(code, warm_cache) == "False False"


@pytest.mark.process
@pytest.mark.parametrize(
    "code",
    [
        """
import asyncio
async def main():
    return await asyncio.gather(*(asyncio.to_thread(calls, seed, 100) for seed in range(8)))
print(sum(asyncio.run(main())))
""",
        """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(calls, range(8), [100] * 8)))
""",
    ],
    ids=["asyncio.to_thread", "ThreadPoolExecutor"],
)
def test_threads_of_pools_have_numpys_bits(code: str, warm_cache: dict[str, str]) -> None:
    assert run(MIXED + code, warm_cache) == "0"


@pytest.mark.process
def test_tasks_of_dasks_threaded_scheduler_have_numpys_bits(warm_cache: dict[str, str]) -> None:
    pytest.importorskip("dask")
    code = """
import dask
tasks = [dask.delayed(calls)(seed, 100) for seed in range(8)]
print(sum(dask.compute(*tasks, scheduler="threads", num_workers=8)))
"""
    assert run(MIXED + code, warm_cache) == "0"


def test_where_no_threading_layer_can_be_loaded_large_work_is_serial(warm_cache: dict[str, str]) -> None:
    code = """
import numba
try:
    numba.get_num_threads()
    print("loaded")
except ValueError:
    print("none")
print(right(large), right(small))
"""
    printed = run(code, warm_cache, NUMBA_THREADING_LAYER="tbb").split()
    assert printed[1:] == ["True", "True"]


@pytest.mark.parametrize("setting", [{"NUMBA_NUM_THREADS": "1"}, {"NUMBA_THREADING_LAYER": "workqueue"}])
def test_no_parallel_entry_is_compiled_where_none_can_be_used(
    setting: dict[str, str], warm_cache: dict[str, str]
) -> None:
    code = """
from rope_numba.kernels import launch
assert right(large)
print(launch.in_place_for("f32", "half")._parallel, launch.in_place_for("f32", "interleaved")._parallel)
"""
    assert run(code, warm_cache, **setting) == "None None"


@needs_jit
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_decode_step_keeps_the_interpreter_lock_and_long_work_lets_others_run(
    dtype: str, warm_cache: dict[str, str]
) -> None:
    # With switches asked for after a minute only, another thread gets a turn where this one gives the lock up.
    code = f"""
import time
q, k, long = (np.ones(shape, "{dtype}") for shape in ((1, 32, 128), (1, 8, 128), (600, 32, 128)))
rope, out, cache = rn.Rope(128), np.empty_like(long), np.empty((9, 8, 128), "{dtype}")
x, tables = np.ones((1, 32, 128), np.float32), rope.tables(1)
few, places = [np.ones((3, heads, 128), "{dtype}") for heads in (32, 8)], np.array([7, 3, 5])
step, steps = rope.at(offset=3, tokens=1), rope.at(offset=3, tokens=600)
brief = [lambda: step(q, k), lambda: rope(q, k, offset=3), lambda: rope(q, offset=3), lambda: rope.shift(k, 1),
    lambda: rope(*few, positions=places), lambda: step(q, k, out=(None, cache[5:6])),
    lambda: rn.rotate_interleaved(x, *tables)]
long_work = [lambda: steps(long), lambda: steps(long, out=out)]
[call() for call in brief + long_work]
turns = [0]
def others():
    while True:
        turns[0] += 1
        time.sleep(0)
threading.Thread(target=others, daemon=True).start()
while turns[0] == 0:
    time.sleep(0)
sys.setswitchinterval(60)
time.sleep(0.02)  # the other thread may be waiting already, as long as it was told before
kept = []
for call in brief:
    before = turns[0]
    for _ in range(10_000):
        call()
    kept.append(turns[0] == before)
for call in long_work:
    before = turns[0]
    while turns[0] == before:
        call()
print(kept)
"""
    assert run(code, warm_cache, NUMBA_NUM_THREADS="1") == str([True] * 7)


@needs_jit
def test_a_decode_step_starts_no_threads(warm_cache: dict[str, str]) -> None:
    code = """
assert right(small)
import numba
try:
    numba.threading_layer()
    print("started")
except ValueError:
    print("none")
assert right(large)
print(numba.threading_layer() is not None)
"""
    assert run(code, warm_cache).split() == ["none", "True"]


def test_no_numba_setting_is_changed(warm_cache: dict[str, str]) -> None:
    code = """
import numba
before = {name: getattr(numba.config, name) for name in dir(numba.config) if name.isupper()}, dict(os.environ)
threads = numba.config.NUMBA_NUM_THREADS
assert right(small) and right(large)
after = {name: getattr(numba.config, name) for name in dir(numba.config) if name.isupper()}, dict(os.environ)
print(before == after, numba.get_num_threads() == threads)
"""
    assert run(code, warm_cache) == "True True"


@needs_jit
def test_set_num_threads_holds_for_the_calling_thread_alone(warm_cache: dict[str, str]) -> None:
    code = """
import numba
from rope_numba.kernels import launch
wanted = []
class Kernels(launch._Kernels):
    def get(self):
        return lambda *arguments: wanted.append(1)
    def get_parallel(self):
        return lambda n_threads, n_chunks: wanted.append(n_threads)
if not launch.can_run_parallel():
    print("serial")
    raise SystemExit
numba.set_num_threads(1)
work = lambda: Kernels()._run(100 * launch.ELEMENTS_PER_THREAD)
work()
other = threading.Thread(target=work)
other.start(); other.join()
print(wanted == [1, numba.config.NUMBA_NUM_THREADS])
"""
    said = run(code, {**warm_cache, "NUMBA_NUM_THREADS": "2"})
    if said == "serial":
        pytest.skip("no threading layer that bears parallel launches")
    assert said == "True"
