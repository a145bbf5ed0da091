"""Threads, forks and the compiled cache, each in a process of its own that must end well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rope_numba

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


COUNT_HITS = """
from rope_numba.kernels.launch import kernels_for
assert right(small)
kernel = kernels_for("f32", "half").serial[3]
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_a_second_process_loads_what_the_first_compiled(cold_cache: dict[str, str]) -> None:
    assert run(COUNT_HITS, cold_cache) == "0 1"
    assert run(COUNT_HITS, cold_cache) == "1 0"


@pytest.mark.parametrize("edited", ["panel.py", "geometry.py", "told.py"])
def test_code_of_another_version_is_never_loaded(edited: str, cold_cache: dict[str, str], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(Path(rope_numba.__file__).parent, tmp_path / "rope_numba")
    environment = {**cold_cache, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    code = COUNT_HITS + "\nprint(rn.__file__)"
    assert run(code, environment).split() == ["0", "1", str(tmp_path / "rope_numba" / "__init__.py")]
    source = tmp_path / "rope_numba" / "kernels" / edited
    source.write_text(source.read_text() + "\n# edited\n")
    assert run(code, environment).split()[:2] == ["0", "1"]


def test_without_a_folder_for_compiled_code_every_process_compiles(tmp_path: Path) -> None:
    # Root may write anywhere, so the folder is a path that cannot be one: below a file.
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file" / "cache")}
    assert run("print(right(small))", environment) == "True"


def test_without_half_instructions_all_four_types_have_numpys_bits(cold_cache: dict[str, str]) -> None:
    code = """
from rope_numba import selfcheck
selfcheck.WIDTHS = ((64, 64, 0), (18, 14, 2), (128, 128, 0))
for dtype in selfcheck.DTYPES:
    for layout in selfcheck.LAYOUTS:
        calls, different = selfcheck.compare(dtype, layout, large=False)
        assert calls > 50 and not different, (dtype, layout, different[:3])
from numba.core.registry import cpu_target
from rope_numba.kernels import storage
print(selfcheck.describe_machine()["processor"], storage.has_half(cpu_target.target_context))
"""
    assert (
        run(code, cold_cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == "generic, vectors of 128 bits False"
    )
