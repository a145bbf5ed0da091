"""The package as it is built, installed and taken away again, in environments of its own. Fetches from the registry."""

from __future__ import annotations

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import rope_numba

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).parent.parent
LEFT_OUT = (".git", ".venv", "venv", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks", "build", "dist")
ALSO_IN_THE_SDIST = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """Run a command that must succeed, in an environment without Numba's variables; returns what it printed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHON"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables | more, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout, without its history and with what a user's runs may have left in it."""
    folder = tmp_path_factory.mktemp("sources") / "checkout"
    shutil.copytree(CHECKOUT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for left in ("rope_numba/kernels/__pycache__/entry.x-1.py311.nbi", "rope_numba/__pycache__/rope.cpython-311.pyc"):
        (folder / left).parent.mkdir()
        (folder / left).write_bytes(b"left behind")
    return folder


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the sdist, and the wheel that is built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, sources, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def package_files() -> set[str]:
    """Return what belongs into the package: its modules, and the mark that they are typed."""
    package = CHECKOUT / "rope_numba"
    return {path.relative_to(CHECKOUT).as_posix() for path in [*package.rglob("*.py"), package / "py.typed"]}


def test_the_wheel_holds_the_package_and_nothing_else(sources: Path, built: tuple[Path, Path]) -> None:
    _, wheel = built
    assert wheel.name == f"rope_numba-{rope_numba.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if not name.endswith("/")}
        for name in package_files():
            assert file.read(name) == (sources / name).read_bytes()
    info = f"rope_numba-{rope_numba.__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert inside == package_files() | about


def test_the_sdist_holds_the_package_its_tests_and_its_documents(built: tuple[Path, Path]) -> None:
    sdist, _ = built
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    folders = {"rope_numba", "tests", "benchmarks", "examples"}
    assert {name.split("/")[0] for name in names} == folders | {name for name in names if "/" not in name}
    assert {name for name in names if "/" not in name} <= ALSO_IN_THE_SDIST
    assert {name for name in names if name.startswith("rope_numba/")} == package_files()
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|\.nb[ic]$", name)]
    assert f"tests/{Path(__file__).name}" in names


def test_twine_finds_nothing_wrong(built: tuple[Path, Path]) -> None:
    pytest.importorskip("twine")
    printed = run(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=built[0].parent)
    assert printed.count("PASSED") == 2


def test_the_metadata_asks_for_numba_and_numpy_only(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as file:
        text = file.read(f"rope_numba-{rope_numba.__version__}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert [re.split(r"[<>=!]", line)[0] for line in sorted(needed)] == ["numba", "numpy"]
    assert not any("<" in line or "==" in line for line in needed), "no upper bounds: Numba bounds NumPy itself"
    assert metadata["Version"] == rope_numba.__version__
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_version_stands_in_one_place() -> None:
    assigned = [
        path
        for path in (CHECKOUT / "rope_numba").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__version__" for target in node.targets)
    ]
    assert assigned == [CHECKOUT / "rope_numba" / "__init__.py"]
    project = (CHECKOUT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert rope_numba.__version__ not in project
    literal = repr(rope_numba.__version__).replace("'", '"')
    assert [p for p in (CHECKOUT / "rope_numba").rglob("*.py") if literal in p.read_text()] == assigned


def files(folder: Path) -> set[Path]:
    """Return the files below a folder, but for bytecode of Python."""
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_an_installed_wheel_runs_and_an_uninstalled_one_leaves_compiled_code_only(
    built: tuple[Path, Path], sources: Path, tmp_path: Path
) -> None:
    home, here, place = tmp_path / "home", tmp_path / "here", tmp_path / "venv"
    home.mkdir()
    here.mkdir()
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet")
    run(*pip, "install", "numba", "numpy", cwd=here, HOME=str(home))
    before, home_before = files(place), files(home)
    run(*pip, "install", "--no-index", built[1], cwd=here, HOME=str(home))
    printed = run(python, "-m", "rope_numba", cwd=here, HOME=str(home))
    assert printed.count("all the same") == 8
    (folder,) = re.findall(r"^compiled cache +(.*)$", printed, re.MULTILINE)
    # The README's first command runs where the sources lie, which Python finds first there.
    from_sources = run(python, "-m", "rope_numba", cwd=sources, HOME=str(home))
    for each in (printed, from_sources):
        (checked,) = re.findall(r"^files +(.*)$", each, re.MULTILINE)
        assert Path(checked).is_relative_to(place)
    compiled = files(Path(folder))
    assert compiled
    run(*pip, "uninstall", "--yes", "rope_numba", cwd=here, HOME=str(home))
    assert files(place) - before == compiled
    assert before <= files(place)
    assert files(home) == home_before
    assert not list(here.iterdir())
