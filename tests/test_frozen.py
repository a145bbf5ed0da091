"""Programs without sources, such as PyInstaller makes: their second start loads what the first compiled."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from installed import PROGRAM, ROTATE, copied, environment, names, rotate

import rope_numba

pytestmark = pytest.mark.process

# Not part of the program, though it may import them.
OTHERS = ("matplotlib", "torch", "transformers", "scipy", "IPython", "PIL", "pytest", "tkinter")


def without_sources(package: Path, archive: Path) -> Path:
    """Pack compiled modules into a zip file, with relative paths of their sources; returns its path."""
    with zipfile.ZipFile(archive, "w") as file:
        for source in sorted(package.rglob("*.py")):
            name = source.relative_to(package)
            py_compile.compile(str(source), str(archive.with_suffix(".pyc")), dfile=str(name), doraise=True)
            file.write(archive.with_suffix(".pyc"), name.with_suffix(".pyc"))
    return archive


def frozen(archive: Path, folder: Path, **more: str) -> dict[str, str]:
    """Return an environment whose processes take themselves for frozen ones, and import from a zip file alone."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("import sys\nsys.frozen = True\n")
    variables = environment(None, archive, XDG_CACHE_HOME=str(folder), **more)
    variables["PYTHONPATH"] += os.pathsep + str(folder)
    return variables


def test_a_frozen_program_loads_what_it_compiled_wherever_it_is_started(tmp_path: Path) -> None:
    archive = without_sources(copied(tmp_path / "package"), tmp_path / "program.zip")
    variables = frozen(archive, tmp_path / "home")
    first, second = rotate(variables, cwd=tmp_path), rotate(variables, cwd=Path("/"))
    assert first["file"].startswith(str(archive))
    assert first["good"]
    assert second["good"]
    assert (first["hits"], first["misses"], second["hits"], second["misses"]) == (0, 2, 2, 0)
    assert first["folders"] == second["folders"] == [first["told"]]
    assert Path(first["told"]).is_relative_to(tmp_path / "home")


def test_a_frozen_program_keeps_compiled_code_where_numba_cache_dir_says_and_no_other_versions(tmp_path: Path) -> None:
    package = copied(tmp_path / "package")
    archive = without_sources(package, tmp_path / "program.zip")
    variables = frozen(archive, tmp_path / "home", NUMBA_CACHE_DIR=str(tmp_path / "asked"))
    first = rotate(variables)
    assert Path(first["told"]).is_relative_to(tmp_path / "asked")
    panel = package / "rope_numba" / "kernels" / "panel.py"
    panel.write_text(panel.read_text() + "\n\nADDED = 1\n")
    without_sources(package, archive)
    changed = rotate(variables)
    assert (changed["hits"], changed["misses"]) == (0, 2)
    assert len(names(tmp_path / "asked")) == 8


def test_a_program_whose_modules_give_no_code_says_that_it_keeps_none(tmp_path: Path) -> None:
    archive = without_sources(copied(tmp_path / "package"), tmp_path / "program.zip")
    variables = frozen(archive, tmp_path / "home")
    hidden = "import pkgutil\npkgutil.iter_modules = lambda *others: []\n"
    said = rotate(variables, hidden + ROTATE)
    assert said["good"]
    assert said["told"] == "none: the kernels' sources cannot be read, so every process compiles anew"
    assert not names(tmp_path)


def test_a_program_of_pyinstaller_loads_what_it_compiled(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="pip install pyinstaller")
    program = tmp_path / "rotates.py"
    program.write_text(PROGRAM + ROTATE)
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR", program]
    command += [f"--{what}path={tmp_path / what}" for what in ("dist", "work", "spec")]
    command += [f"--paths={Path(rope_numba.__file__).parent.parent}", *(f"--exclude-module={name}" for name in OTHERS)]
    variables = environment(None, XDG_CACHE_HOME=str(tmp_path / "home"), PYINSTALLER_CONFIG_DIR=str(tmp_path / "own"))
    subprocess.run(command, env=variables, cwd=tmp_path, check=True, timeout=600)
    said: list[dict[str, Any]] = []
    for folder in (tmp_path, Path("/")):
        executable = tmp_path / "dist" / "rotates" / "rotates"
        done = subprocess.run([executable], env=variables, cwd=folder, capture_output=True, text=True, check=True)
        said.append(json.loads(done.stdout))
    first, second = said
    assert first["good"]
    assert second["good"]
    assert (first["hits"], first["misses"], second["hits"], second["misses"]) == (0, 2, 2, 0)
    assert first["folders"] == second["folders"] == [first["told"]]
