"""Code that runs in a process of its own, which must end well, and the rotations that it is asked for."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = ("omp", "workqueue", "tbb")
PACKAGE_OF_TBB = Path(sys.prefix) / "lib" / "libtbb.so.12"

# What the parent ignores or blocks is inherited, such as SIGINT where a shell has started `pytest &`.
PREPARE = """
import os, signal, sys, threading
signal.pthread_sigmask(signal.SIG_SETMASK, ())
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
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

def status_of_child(work, seconds=60):
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)  # a child that waits for ever is killed, which its status tells
        try:
            good = work()
        except BaseException:
            import traceback
            traceback.print_exc()
            good = False
        sys.stdout.flush()
        os._exit(0 if good else 3)
    return os.waitpid(child, 0)[1]
"""

FOREIGN = """
import os, sys, numba
@numba.njit(parallel=True)
def foreign(x):
    for i in numba.prange(x.size):
        x[i] += 1
"""


def run(code: str, environment: dict[str, str], *, prepare: str = PREPARE, timeout: float = 240, **more: str) -> str:
    """Run code in a fresh process; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", prepare + code],
        capture_output=True,
        text=True,
        env={**environment, **more},
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def with_layer(layer: str, environment: dict[str, str]) -> dict[str, str]:
    """Return an environment that makes Numba take a threading layer; skips the test where it cannot be loaded."""
    environment = {**environment, "NUMBA_THREADING_LAYER": layer}
    if layer != "tbb":
        return environment
    if PACKAGE_OF_TBB.exists():  # `pip install tbb` puts it where the loader does not look
        environment["LD_LIBRARY_PATH"] = str(PACKAGE_OF_TBB.parent)
    if not starts_threads(frozenset(environment.items())):
        pytest.skip("libtbb.so.12 cannot be loaded: pip install tbb")
    return environment


@functools.cache
def starts_threads(environment: frozenset[tuple[str, str]]) -> bool:
    """Tell whether Numba's threads start in a process with an environment."""
    probe = [sys.executable, "-c", "import numba; numba.get_num_threads()"]
    return subprocess.run(probe, env=dict(environment), capture_output=True, check=False).returncode == 0
