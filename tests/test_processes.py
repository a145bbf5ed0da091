"""Threads and forks, each in a process of its own that must end well."""

from __future__ import annotations

import subprocess
import sys

import pytest

LAYERS = ("omp", "workqueue")

PREPARE = """
import threading
import numpy as np
import rope_numba as rn

def large(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((600, 32, 64), dtype=np.float32), rng.standard_normal((600, 8, 64), dtype=np.float32)

def small(seed=0):
    q, k = large(seed)
    return q[:1].copy(), k[:1].copy()

def right(make, dtype="float32"):
    q, k = (x.astype(dtype) for x in make())
    expected = q.copy(), k.copy()
    rn.Rope(64, layout="half", backend="numpy")(*expected, offset=11)
    rn.Rope(64, layout="half")(q, k, offset=11)
    return (q == expected[0]).all() and (k == expected[1]).all()
"""


def run(code: str, environment: dict[str, str], **more: str) -> str:
    """Run code in a fresh process; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code],
        capture_output=True,
        text=True,
        env={**environment, **more},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.mark.parametrize("layer", LAYERS)
def test_threads_that_start_together_all_get_the_right_bits(layer: str, cold_cache: dict[str, str]) -> None:
    code = """
barrier, results = threading.Barrier(8), []
def work(seed):
    barrier.wait()
    for n in range(20):
        make = small if (n + seed) % 3 else large
        results.append(right(make, ("float32", "float16")[seed % 2]))
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(results), all(results))
"""
    assert run(code, cold_cache, NUMBA_THREADING_LAYER=layer) == "160 True"


@pytest.mark.parametrize("before", ["pass", "right(small)", "right(large)"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_forked_child_rotates_what_its_parent_did_or_did_not(
    layer: str, before: str, warm_cache: dict[str, str]
) -> None:
    code = f"""
import os, sys
{before}
child = os.fork()
if child == 0:
    good = right(large) and right(small) and right(large, "float16")
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if right(large) else 3)
    _, status = os.waitpid(grandchild, 0)
    os._exit(0 if good and status == 0 else 4)
_, status = os.waitpid(child, 0)
print(status, right(large))
"""
    assert run(code, warm_cache, NUMBA_THREADING_LAYER=layer) == "0 True"


FOREIGN = """
import os, sys, numba
@numba.njit(parallel=True)
def foreign(x):
    for i in numba.prange(x.size):
        x[i] += 1
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_child_of_a_process_with_parallel_code_of_its_own_is_not_killed(
    layer: str, warm_cache: dict[str, str]
) -> None:
    code = """
foreign(np.zeros(1000))
child = os.fork()
if child == 0:
    os._exit(0 if right(large) and right(small) else 3)
_, status = os.waitpid(child, 0)
print(status, right(large))
"""
    assert run(FOREIGN + code, warm_cache, NUMBA_THREADING_LAYER=layer) == "0 True"


def test_a_multiprocessing_child_that_imports_the_package_itself_is_not_killed(warm_cache: dict[str, str]) -> None:
    code = """
import multiprocessing
import numpy as np
def work(status):
    import rope_numba as rn
    q = np.ones((600, 40, 64), np.float32); expected = q.copy()
    rn.Rope(64, backend="numpy")(expected, offset=3)
    rn.Rope(64)(q, offset=3)
    status.value = int((q == expected).all())
foreign(np.zeros(1000))
assert "rope_numba" not in sys.modules
context = multiprocessing.get_context("fork")
status = context.Value("i", -1)
process = context.Process(target=work, args=(status,))
process.start(); process.join()
print(process.exitcode, status.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN + code],
        capture_output=True,
        text=True,
        env={**warm_cache, "NUMBA_THREADING_LAYER": "omp"},
        timeout=240,
        check=False,
    )
    assert done.stdout.strip() == "0 1", done.stderr


WHILE_COMPILING = """
import os
from numba.core.compiler_lock import global_compiler_lock
from rope_numba import forks
from rope_numba.kernels.launch import kernels_for

def in_a_child_forked_while_another_thread_compiles(work):
    held, forked = threading.Event(), threading.Event()
    def compile_for_long():
        with global_compiler_lock:
            held.set()
            forked.wait()
    thread = threading.Thread(target=compile_for_long)
    thread.start(); held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 3)
    forked.set(); thread.join()
    return os.waitpid(child, 0)[1]
"""


def test_a_child_forked_while_another_thread_compiles_rotates_in_numpy(cold_cache: dict[str, str]) -> None:
    code = """
work = lambda: right(small) and right(large) and right(small, "float16") and right(small)
print(in_a_child_forked_while_another_thread_compiles(work), right(large))
"""
    assert run(WHILE_COMPILING + code, cold_cache) == "0 True"


def test_such_a_child_uses_what_was_compiled_before_and_numpy_for_the_rest(warm_cache: dict[str, str]) -> None:
    code = """
assert right(small)
def work():
    half = kernels_for("f32", "half")
    as_told = forks.forked() and not forks.can_compile() and half.ready(3) and not half.ready(4)
    return as_told and right(small) and right(large)
print(in_a_child_forked_while_another_thread_compiles(work), forks.forked(), forks.can_compile())
"""
    assert run(WHILE_COMPILING + code, warm_cache) == "0 False True"


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
def test_no_parallel_kernel_is_compiled_where_none_can_be_used(
    setting: dict[str, str], warm_cache: dict[str, str]
) -> None:
    code = """
from rope_numba.kernels.launch import kernels_for
assert right(large)
print(len(kernels_for("f32", "half")._parallel))
"""
    assert run(code, warm_cache, **setting) == "0"


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
import os
import numba
before = {name: getattr(numba.config, name) for name in dir(numba.config) if name.isupper()}, dict(os.environ)
threads = numba.config.NUMBA_NUM_THREADS
assert right(small) and right(large)
after = {name: getattr(numba.config, name) for name in dir(numba.config) if name.isupper()}, dict(os.environ)
print(before == after, numba.get_num_threads() == threads)
"""
    assert run(code, warm_cache) == "True True"


def test_without_half_instructions_all_four_types_have_numpys_bits(cold_cache: dict[str, str]) -> None:
    code = """
from rope_numba import selfcheck
selfcheck.WIDTHS = ((18, 14, 2), (128, 128, 0))
for dtype in selfcheck.DTYPES:
    for layout in selfcheck.LAYOUTS:
        calls, different = selfcheck.compare(dtype, layout, large=False)
        assert calls >= 48 and not different, (dtype, layout, different[:3])
from numba.core.registry import cpu_target
from rope_numba.kernels import storage
print(selfcheck.describe_machine()["processor"], storage.has_half(cpu_target.target_context))
"""
    printed = run(code, cold_cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert printed == "generic, vectors of 128 bits False"
