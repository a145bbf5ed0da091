"""Forked children: whatever the parent did, or another of its threads is doing, they rotate with the right bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import needs_jit
from processes import FOREIGN, LAYERS, PREPARE, run, with_layer


def of_children(layer: str, before: str, environment: dict[str, str]) -> str:
    """Return what a process says of its child and grandchild that rotate after it has done something."""
    code = f"""
{before}
def rotates():
    good = right(large) and right(small) and right(large, "float16")
    return good and status_of_child(lambda: right(large) and right(small)) == 0
print(status_of_child(rotates), right(large))
"""
    return run(code, with_layer(layer, environment))


def test_a_forked_child_rotates_what_its_parent_has_rotated(warm_cache: dict[str, str]) -> None:
    assert of_children("omp", "right(large)", warm_cache) == "0 True"


# What starts the threads of a layer, and what starts none: with that, no layer is loaded.
STARTING = ["rn.warmup(dtypes=['float32'], layouts=['half'])", "right(large)"]
NOT_STARTING = [
    "pass",
    "import numba",
    "rn.warmup(dtypes=['float32'], layouts=['half'], parallel=False)",
    "right(small)",
]


@pytest.mark.process
@pytest.mark.parametrize(
    ("layer", "before"),
    [(layer, before) for layer in LAYERS for before in STARTING] + [("omp", before) for before in NOT_STARTING],
)
def test_a_forked_child_and_its_own_child_rotate_whatever_the_parent_did(
    layer: str, before: str, warm_cache: dict[str, str]
) -> None:
    assert of_children(layer, before, warm_cache) == "0 True"


@pytest.mark.process
@pytest.mark.parametrize("layer", LAYERS)
def test_a_child_of_a_process_with_parallel_code_of_its_own_is_not_killed(
    layer: str, warm_cache: dict[str, str]
) -> None:
    code = """
foreign(np.zeros(1000))
print(status_of_child(lambda: right(large) and right(small)), right(large))
"""
    assert run(FOREIGN + code, with_layer(layer, warm_cache)) == "0 True"


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_a_child_that_imports_the_package_itself_is_not_killed(way: str, warm_cache: dict[str, str]) -> None:
    # The parent's threads were started by another package, and no hook of ours has seen the fork.
    code = """
import multiprocessing
import numpy as np
def work():
    import rope_numba as rn
    q = np.ones((600, 40, 64), np.float32); expected = q.copy()
    rn.Rope(64, backend="numpy")(expected, offset=3)
    rn.Rope(64)(q, offset=3)
    os._exit(0 if (q == expected).all() else 3)
foreign(np.zeros(1000))
assert "rope_numba" not in sys.modules
"""
    ways = {
        "os.fork": "child = os.fork()\nif child == 0:\n    work()\nprint(os.waitpid(child, 0)[1])",
        "multiprocessing": """
process = multiprocessing.get_context("fork").Process(target=work)
process.start(); process.join()
print(process.exitcode)
""",
    }
    assert run(code + ways[way], warm_cache, prepare=FOREIGN, NUMBA_THREADING_LAYER="omp") == "0"


@pytest.mark.process
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("before", ["pass", "right(large)"])
def test_a_pool_of_multiprocessing_has_numpys_bits(
    method: str, before: str, warm_cache: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "pooled.py"
    script.write_text(f"""{PREPARE}
import multiprocessing
def work(number):
    return bool(right(large if number % 2 else small, ("float32", "float16")[number % 3 == 0]))
if __name__ == "__main__":
    {before}
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(work, range(8)), bool(right(large)))
""")
    done = subprocess.run(
        [sys.executable, script], env=warm_cache, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip() == f"{[True] * 8} True", done.stderr


@pytest.mark.process
@pytest.mark.parametrize("layer", LAYERS)
def test_workers_forked_after_a_warm_up_serve_and_are_replaced(layer: str, warm_cache: dict[str, str]) -> None:
    # As gunicorn with --preload: the application is loaded and warm, then workers are forked, live a while, and end.
    code = """
rn.warmup(dtypes=["float32", "float16"], layouts=["half"])
assert right(large)
def serve():
    return all(right(make, dtype) for make in (small, large) * 5 for dtype in ("float32", "float16"))
statuses = []
for generation in range(2):
    workers = []
    for _ in range(3):
        worker = os.fork()
        if worker == 0:
            signal.alarm(60)
            os._exit(0 if serve() else 3)
        workers.append(worker)
    statuses += [os.waitpid(worker, 0)[1] for worker in workers]
    assert right(large)
print(statuses)
"""
    assert run(code, with_layer(layer, warm_cache)) == str([0] * 6)


@pytest.mark.process
def test_gunicorn_with_a_preloaded_application_serves_the_right_bits(
    warm_cache: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "served.py").write_text(f"""{PREPARE}
rn.warmup(dtypes=["float32"], layouts=["half"])
loaded_by = os.getpid()
assert right(large)
def application(environ, start_response):
    good = right(large) and right(small) and os.getpid() != loaded_by
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"right" if good else b"wrong"]
""")
    code = """
import re, subprocess, time, urllib.request
server = subprocess.Popen(
    [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0", "served:application"],
    stderr=subprocess.PIPE, text=True)
for line in server.stderr:
    if found := re.search(r"http://127.0.0.1:(\\d+)", line):
        break
answers = {urllib.request.urlopen(found.group(), timeout=60).read().decode() for _ in range(20)}
server.terminate()
rest = server.stderr.read()
print(answers, server.wait(60), "WORKER" in rest or "was sent" in rest)
"""
    path = f"{tmp_path}:{warm_cache.get('PYTHONPATH', '')}"
    assert run(code, warm_cache, prepare="import sys\n", PYTHONPATH=path) == "{'right'} 0 False"


@pytest.mark.process
@pytest.mark.parametrize("layer", LAYERS)
def test_children_forked_while_threads_rotate_and_fill_tables_end_well(layer: str, warm_cache: dict[str, str]) -> None:
    code = """
assert right(large)
done, wrong = threading.Event(), []
def work(seed):
    number = 0
    while not done.is_set():
        number += 1
        rn.Rope(64, theta=10_000.0 + number).at(offset=0, tokens=4000)
        if not right((small, large)[(number + seed) % 2]):
            wrong.append(number)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
[t.start() for t in threads]
def child():
    with_table = rn.Rope(64, theta=77.0).at(offset=0, tokens=500)._rows32
    from rope_numba import tables
    fresh = tables.compute(np.arange(500), rn.frequencies.default(64, 77.0), np.dtype(np.float32))
    return right(small) and right(large) and right(large, "float16") and (with_table[0] == fresh).all()
statuses = [status_of_child(child) for _ in range(12)]
done.set(); [t.join() for t in threads]
print(statuses, wrong)
"""
    # TBB says on the standard output that it could not join its threads; what counts is how the children ended.
    assert run(code, with_layer(layer, warm_cache)).splitlines()[-1] == f"{[0] * 12} []"


@pytest.mark.process
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05])
def test_children_forked_while_a_thread_imports_and_compiles_end_well(delay: float, cold_cache: dict[str, str]) -> None:
    # From the first moment of the first call on, child after child: the package and Numba are half imported in some,
    # Numba's lock is held in others. Where Numba cannot be had, they rotate in NumPy.
    code = f"""
import time
q = np.random.default_rng(0).standard_normal((5, 9, 64), dtype=np.float32)
answers = []
def first_call():
    x = q.copy()
    rn.Rope(64, layout="half")(x, offset=11)
    answers.append(x)
thread = threading.Thread(target=first_call)
thread.start()
time.sleep({delay})
def child():
    mine = q.copy()
    rn.Rope(64, layout="half")(mine, offset=11)
    expected = q.copy()
    rn.Rope(64, layout="half", backend="numpy")(expected, offset=11)
    return (mine == expected).all()
children = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        os._exit(0 if child() else 3)
    children.append(pid)
    time.sleep(0.3)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
thread.join()
expected = q.copy()
rn.Rope(64, layout="half", backend="numpy")(expected, offset=11)
print(statuses, (answers[0] == expected).all())
"""
    assert run(code, cold_cache) == f"{[0] * 6} True"


WHILE_COMPILING = """
import os
from numba.core.compiler_lock import global_compiler_lock
from rope_numba import forks
from rope_numba.kernels.launch import in_place_for

def in_a_child_forked_while_another_thread_compiles(work):
    held, forked = threading.Event(), threading.Event()
    def compile_for_long():
        with global_compiler_lock:
            held.set()
            forked.wait()
    thread = threading.Thread(target=compile_for_long)
    thread.start(); held.wait()
    status = status_of_child(work)
    forked.set(); thread.join()
    return status
"""


def test_a_child_forked_while_another_thread_compiles_rotates_in_numpy(warm_cache: dict[str, str]) -> None:
    code = """
def work():
    x = np.ones((2, 3, 64), np.float32)
    expected = x.copy()
    rn.warmup(dtypes=["float32"], layouts=["half"])  # which would wait for ever
    cos, sin = rn.Rope(64).tables(2)
    rn.rotate_interleaved(x, cos, sin)
    rn.Rope(64, backend="numpy")(expected, offset=0)
    return (x == expected).all() and right(small) and right(large) and right(small, "float16") and right(small)
print(in_a_child_forked_while_another_thread_compiles(work), right(large))
"""
    assert run(WHILE_COMPILING + code, warm_cache) == "0 True"


@needs_jit
def test_such_a_child_uses_what_was_compiled_before_and_numpy_for_the_rest(warm_cache: dict[str, str]) -> None:
    code = """
assert right(small)
def work():
    ready, other = in_place_for("f32", "half").available(), in_place_for("f64", "half").available()
    as_told = forks.forked() and not forks.can_compile() and ready and not other
    return as_told and right(small) and right(large)
print(in_a_child_forked_while_another_thread_compiles(work), forks.forked(), forks.can_compile())
"""
    assert run(WHILE_COMPILING + code, warm_cache) == "0 False True"


@needs_jit
def test_a_fork_while_another_package_is_imported_leaves_loaded_kernels_in_use(
    warm_cache: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import threading, time\nfor _ in range(600): time.sleep(0.05)\n")
    code = """
assert right(small)
import time
from rope_numba import forks, kernels
threading.Thread(target=lambda: __import__("slow_to_import"), daemon=True).start()
time.sleep(0.2)
def work():
    return forks.can_import() and forks.can_compile() and kernels.try_load_kernels() is not None and right(small)
started = time.monotonic()
print(status_of_child(work), time.monotonic() - started < 25)
sys.stdout.flush()
os._exit(0)
"""
    path = f"{tmp_path}:{warm_cache.get('PYTHONPATH', '')}"
    assert run(code, warm_cache, PYTHONPATH=path) == "0 True"
