"""The compiled cache, in processes of their own that must end well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import run

import rope_numba

COUNT_HITS = """
from rope_numba.kernels.launch import kernels_for
assert right(small)
kernel = kernels_for("f32", "half").serial[3]
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_a_second_process_loads_what_the_first_compiled(cold_cache: dict[str, str]) -> None:
    assert run(COUNT_HITS, cold_cache) == "0 1"
    assert run(COUNT_HITS, cold_cache) == "1 0"


@pytest.mark.parametrize("edited", ["panel.py", "told.py"])
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
