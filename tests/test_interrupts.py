"""Interrupts: a real SIGINT at any moment leaves the process usable, tables whole and no lock held."""

from __future__ import annotations

import signal

import pytest
from helpers import needs_jit
from processes import run

INTERRUPTED = """
import time

def interrupted(work, delay):
    # Run work, and send a SIGINT after a delay; return whether work had ended before it came.
    ended = False
    def shoot():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
    shooter = threading.Thread(target=shoot)
    try:
        shooter.start()
        work()
        ended = True
        stop = time.monotonic() + 60
        while time.monotonic() < stop:
            time.sleep(0.001)
        raise AssertionError("no interrupt came")
    except KeyboardInterrupt:
        pass
    shooter.join()
    return ended

def in_another_thread(work):
    # Locks that this thread has left held are open to itself, but to no other.
    answers = []
    thread = threading.Thread(target=lambda: answers.append(work()), daemon=True)
    thread.start(); thread.join(100)
    return answers == [True]

rng = np.random.default_rng(SEED)
"""


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_interrupts_reach_a_process_of_the_tests_whatever_its_parent_does_with_signals(
    how: str, warm_cache: dict[str, str]
) -> None:
    # A shell that starts `pytest &` lets it ignore SIGINT, and nohup SIGHUP; what is ignored or blocked is inherited.
    signals = (signal.SIGINT, signal.SIGALRM, signal.SIGCHLD)
    code = """
here = interrupted(lambda: time.sleep(30), 0.1)
in_a_child = status_of_child(lambda: not interrupted(lambda: time.sleep(30), 0.1))
late = status_of_child(lambda: time.sleep(30), seconds=1)
print(here, in_a_child, late == signal.SIGALRM)
"""
    before = {number: signal.getsignal(number) for number in signals}
    try:
        if how == "ignored":
            for number in signals[:2]:
                signal.signal(number, signal.SIG_IGN)
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        assert run("SEED = 0\n" + INTERRUPTED + code, warm_cache) == "False 0 True"
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.process
@pytest.mark.parametrize(
    ("cache", "delay"), [("warm", 0.0), ("warm", 0.05), ("warm", 0.4), ("cold", 1.2), ("cold", 2.5)]
)
def test_an_interrupt_of_the_first_call_leaves_numba_able_to_compile(
    cache: str, delay: float, request: pytest.FixtureRequest
) -> None:
    # The first call imports Numba and compiles. An interrupt in there used to leave either half done for ever.
    code = f"""
assert "numba" not in sys.modules
ropes = rn.Rope(64, layout="half"), rn.Rope(64, layout="half", backend="numpy")
q = rng.standard_normal((5, 9, 64), dtype=np.float32)
before, expected = q.copy(), q.copy()
ropes[1](expected, offset=11)
ended = interrupted(lambda: ropes[0](q, offset=11), {delay})
whole = (q == before).all() if not ended else (q == expected).all()
def all_right():
    return bool(right(small) and right(small, "float64"))
print(bool(whole), in_another_thread(all_right), all_right())
"""
    assert run("SEED = 0\n" + INTERRUPTED + code, request.getfixturevalue(f"{cache}_cache")) == "True True True"


ROTATIONS = """
import numba
ropes = {name: rn.Rope(64, layout="half", backend=name) for name in ("numba", "numpy")}
given = rng.standard_normal((6_000, 20, 64), dtype=np.float32), rng.standard_normal((6_000, 5, 64), dtype=np.float32)
expected = given[0].copy(), given[1].copy()
ropes["numpy"](*expected, offset=3)
q, k = given[0].copy(), given[1].copy()
ropes["numba"](q, k, offset=3)
assert (q == expected[0]).all()
begin = time.perf_counter()
ropes["numba"](q, k, offset=3)
took = time.perf_counter() - begin
before_the_end, torn = 0, 0
for number in range(TIMES):
    # On all threads every other time: with all cores busy, the one that sends the interrupt may have to wait.
    numba.set_num_threads(1 if number % 2 else numba.config.NUMBA_NUM_THREADS)
    q[:], k[:] = given
    before_the_end += not interrupted(lambda: ropes["numba"](q, k, offset=3), rng.uniform(0, 2 * took))
    if not ((q == expected[0]).all() and (k == expected[1]).all()):
        torn += not ((q == given[0]).all() and (k == given[1]).all())
from rope_numba import tables
from rope_numba.kernels import launch
free = not launch._launching.locked() and in_another_thread(lambda: tables._lock.acquire(False))
q[:], k[:] = given
def right_again():
    ropes["numba"](q, k, offset=3)
    return bool((q == expected[0]).all() and (k == expected[1]).all())
print(before_the_end > 0, torn, free, in_another_thread(right_again))
"""


@pytest.mark.process
def test_interrupts_of_long_rotations_tear_nothing_and_hold_no_lock(warm_cache: dict[str, str]) -> None:
    assert run("SEED, TIMES = 1, 100\n" + INTERRUPTED + ROTATIONS, warm_cache) == "True 0 True True"


@needs_jit
def test_an_interrupt_of_a_long_rotation_tears_nothing(warm_cache: dict[str, str]) -> None:
    assert run("SEED, TIMES = 2, 20\n" + INTERRUPTED + ROTATIONS, warm_cache) == "True 0 True True"


TABLES = """
from rope_numba import tables
cut_short, different = 0, 0
float32 = np.dtype(np.float32)
fresh = {}
def check(frequencies):
    table = tables.table_for(frequencies, float32)
    reserve, filled, _ = table.memory
    wrong = 0
    for block in np.flatnonzero(np.frombuffer(filled, np.uint8)).tolist():
        rows = reserve[0, block * table.block : (block + 1) * table.block]
        if block not in fresh:
            positions = np.arange(block * table.block, (block + 1) * table.block)
            fresh[block] = tables.compute(positions, frequencies, float32).tobytes()
        wrong += rows.tobytes() != fresh[block]
    return wrong
for number in range(TIMES):
    fresh.clear()
    frequencies = rn.frequencies.default(128, 20_000.0 + number)
    rope = rn.Rope(128, frequencies=frequencies)
    def fill():
        rope.at(offset=0, tokens=6_000)
        rope.at(positions=rng.integers(0, 100_000, 50))
    cut_short += not interrupted(fill, rng.uniform(0, 0.06))
    different += check(frequencies)
    fill()  # what is missing now
    different += check(frequencies)
total = sum(table.bytes for table in tables._tables.values())
print(cut_short > 0, different, total <= tables.TOTAL_BYTES, len(tables._tables) <= tables.MOST_TABLES,
      in_another_thread(lambda: tables._lock.acquire(False)))
"""


@pytest.mark.process
def test_interrupts_of_filling_leave_tables_whole_and_within_their_bounds(warm_cache: dict[str, str]) -> None:
    assert run("SEED, TIMES = 3, 60\n" + INTERRUPTED + TABLES, warm_cache) == "True 0 True True True"


@pytest.mark.process
def test_refused_calls_that_are_interrupted_leave_every_byte(warm_cache: dict[str, str]) -> None:
    code = """
rope = rn.Rope(64)
q = rng.standard_normal((50, 9, 64), dtype=np.float32)
k = rng.standard_normal((50, 3, 64), dtype=np.float32)
before = q.tobytes(), k.tobytes()
def refused():
    for _ in range(200):
        for bad in (dict(positions=np.arange(49)), dict(offset=2**53), dict(offset=1.5), dict(positions=[1.0] * 50)):
            try:
                rope(q, k, **bad)
            except (TypeError, ValueError):
                continue
            raise AssertionError
        try:
            rope(q, q[:, :3], offset=0)
        except ValueError:
            pass
refused()
cut_short = sum(not interrupted(refused, rng.uniform(0, 0.03)) for _ in range(100))
print(cut_short > 0, (q.tobytes(), k.tobytes()) == before)
"""
    assert run("SEED = 4\n" + INTERRUPTED + code, warm_cache) == "True True"


@needs_jit
def test_numbas_target_is_not_made_where_an_interrupt_breaks_it_off(warm_cache: dict[str, str]) -> None:
    # Broken off, it left a lock of llvmlite's held: a quarter of interrupts at that time hung the next call for ever.
    code = """
from numba.core import registry
makers, real = [], registry.cpu.CPUContext
def noted(*arguments):
    makers.append(threading.current_thread())
    registry.cpu.CPUContext = real
    return real(*arguments)
registry.cpu.CPUContext = noted
assert right(small)
print(len(makers), threading.main_thread() in makers)
"""
    assert run(code, warm_cache) == "1 False"
