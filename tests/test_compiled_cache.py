"""The folder of compiled code: shared, damaged, not to be written to, full, absent; right bits in every case.

All runs the real thing in processes of its own. What an upgrade does is in test_upgrades.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed import AS_STRANGER, STRANGER, copied, end, environment, names, needs, rotate, start

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the compiled code of two layouts, to be copied."""
    cache = tmp_path_factory.mktemp("warm")
    said = rotate(environment(cache), 'remember()\nreport(right() and right(layout="interleaved"))\n')
    assert (said["good"], said["hits"], said["misses"]) == (True, 0, 4)
    assert len(names(cache)) == 8
    return cache


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    first, second = (rotate(environment(tmp_path)) for _ in range(2))
    assert first["good"]
    assert second["good"]
    assert (first["hits"], first["misses"], second["hits"], second["misses"]) == (0, 2, 2, 0)
    assert first["folders"] == second["folders"] == [first["told"]]


def test_processes_that_start_cold_together_leave_what_another_can_use(tmp_path: Path) -> None:
    kinds = [("float32", "half"), ("float64", "interleaved"), ("float16", "half"), ("bfloat16", "interleaved")]
    code = """
import numba
remember()
print("ready", flush=True)
sys.stdin.readline()
report(all([right(*kind) for kind in {}]))
"""
    # Each begins with another kernel, and all race for those of their neighbours.
    together = [start(code.format([kinds[n], kinds[(n + 1) % 4]]), environment(tmp_path)) for n in range(4)]
    for process in together:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in together:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in together:
        said = end(process)
        assert said["good"]
        assert said["hits"] + said["misses"] == 4
    another = rotate(environment(tmp_path), f"remember()\nreport(all([right(*kind) for kind in {kinds}]))")
    assert (another["good"], another["hits"], another["misses"]) == (True, 8, 0)
    assert not list(tmp_path.rglob("*.tmp.*"))


# Every damage is in test_damaged_cache.py. Kernels meet two: in an entry, and in the function that it calls by name.
@pytest.mark.parametrize(
    ("damage", "function", "suffix"),
    [
        ("truncated", "rotate", "nbc"),
        ("truncated", "heads", "nbi"),
        ("of another kernel", "rotate", "nbi"),
        ("of another kernel", "heads", "nbc"),
    ],
)
def test_a_damaged_file_of_a_kernel_does_no_harm_and_is_replaced(
    damage: str, function: str, suffix: str, warm: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(warm, cache)
    (file,) = cache.rglob(f"*.{function}_f32_half_*.{suffix}")
    (other,) = cache.rglob(f"*.{function}_f32_interleaved_*.{suffix}")
    file.write_bytes(other.read_bytes() if damage == "of another kernel" else file.read_bytes()[:-100])
    first = rotate(environment(cache))
    assert (first["good"], first["hits"], first["misses"]) == (True, 1, 1)
    second = rotate(environment(cache), 'remember()\nreport(right() and right(layout="interleaved"))\n')
    assert (second["good"], second["hits"], second["misses"]) == (True, 4, 0)


def test_garbage_in_files_of_other_names_is_left_alone(warm: Path, tmp_path: Path) -> None:
    shutil.copytree(warm, tmp_path / "cache")
    folder = next((tmp_path / "cache").rglob("*.nbi")).parent
    strangers = [
        folder / "in_place.rotate_f32_half_0123456789abcdef-42.py311.nbi",
        folder / "x.nbc",
        folder / "x.tmp.1",
    ]
    for stranger in strangers:
        stranger.write_bytes(b"garbage")
    said = rotate(environment(tmp_path / "cache"))
    assert (said["good"], said["hits"]) == (True, 2)
    assert all(stranger.read_bytes() == b"garbage" for stranger in strangers)


def owned(folder: Path) -> Path:
    """Make a folder that belongs to the stranger."""
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    return folder


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """Return a copy of the package that the stranger cannot write to; skips where there cannot be one."""
    needs(*AS_STRANGER)
    tmp_path.chmod(0o755)
    package = tmp_path / "package"
    package.mkdir(mode=0o755)
    return copied(package)


def test_a_read_only_package_keeps_compiled_code_in_the_users_home(read_only: Path, tmp_path: Path) -> None:
    home, here = owned(tmp_path / "home"), owned(tmp_path / "here")
    variables = environment(None, read_only, HOME=str(home))
    first, second = (rotate(variables, cwd=here, prefix=AS_STRANGER) for _ in range(2))
    assert first["file"].startswith(str(read_only))
    assert (first["good"], first["misses"], second["good"], second["hits"]) == (True, 2, True, 2)
    assert first["told"].startswith(str(home / ".cache" / "numba"))
    assert not list(here.iterdir())
    assert not list(read_only.rglob("__pycache__"))


NOWHERE = "none: no folder can be written, so every process compiles anew"


@pytest.mark.parametrize("home", ["/", "/nonexistent", None])
def test_without_a_home_to_write_to_every_process_compiles(home: str | None, read_only: Path, tmp_path: Path) -> None:
    # The last is a numeric user id that no file knows, and no HOME: containers have such users.
    here = owned(tmp_path / "here")
    variables = environment(None, read_only)
    variables.pop("HOME", None)
    if home is not None:
        variables["HOME"] = home
    said = rotate(variables, cwd=here, prefix=AS_STRANGER)
    assert (said["good"], said["misses"], said["folders"], said["told"]) == (True, 2, ["None"], NOWHERE)
    assert not list(here.iterdir()), "Numba alone makes a folder named ~ in the working one"


def test_a_warm_folder_that_cannot_be_written_to_is_not_used(read_only: Path, warm: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o755)
    assert rotate(environment(cache, read_only))["misses"] == 2
    before = {path: path.read_bytes() for path in cache.rglob("*.nb[ic]")}
    said = rotate(environment(cache, read_only, HOME="/nonexistent"), prefix=AS_STRANGER)
    assert (said["good"], said["hits"], said["misses"], said["told"]) == (True, 0, 2, NOWHERE)
    assert {path: path.read_bytes() for path in cache.rglob("*.nb[ic]")} == before


def test_without_a_folder_for_compiled_code_every_process_compiles(tmp_path: Path) -> None:
    # Root may write anywhere, so the folder is a path that cannot be one: below a file.
    (tmp_path / "file").write_text("")
    package = copied(tmp_path / "package")
    (package / "rope_numba" / "kernels" / "__pycache__").write_text("")
    said = rotate(environment(tmp_path / "file" / "cache", package, HOME=str(tmp_path / "file")))
    assert (said["good"], said["misses"], said["told"]) == (True, 2, NOWHERE)


FULL_DISK = """
import collections, glob
from numba.core import event
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
remember()
good = right()
assert max(collections.Counter(compiled)[name] for name in ("rotate_f32_half", "heads_f32_half")) == 1, compiled
assert not glob.glob(CACHE + "/*/*.tmp.*")
assert glob.glob(CACHE + "/filler")
report(good)
"""


@pytest.mark.parametrize("pages", [0, 1, 2], ids="{} pages free".format)
def test_a_full_disk_costs_one_compilation_and_no_more(pages: int, tmp_path: Path) -> None:
    # A mount of its own, in a namespace of its own, which ends with the process. Compiled code takes more than 2 pages.
    needs("unshare", "--mount")
    page = os.sysconf("SC_PAGE_SIZE")
    script = 'mount -t tmpfs -o size=$1 tmpfs "$3" && head -c $2 /dev/zero > "$3/filler" && shift 3 && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh", str(16 * page), str((16 - pages) * page), str(tmp_path))
    said = rotate(environment(tmp_path), f"CACHE = {str(tmp_path)!r}\n{FULL_DISK}", prefix=prefix)
    assert (said["good"], said["hits"], said["misses"]) == (True, 0, 2)
    assert said["told"].startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_processors_that_share_a_folder_do_not_touch_each_others_code(tmp_path: Path) -> None:
    # float16, as one of them has no instructions for it.
    code = 'remember()\nreport(right("float16"))'
    processors = {"generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, "native": {}}
    written: list[dict[Path, bytes]] = []
    for settings in processors.values():
        said = rotate(environment(tmp_path, **settings), code)
        assert (said["good"], said["hits"], said["misses"]) == (True, 0, 2)
        written.append({path: path.read_bytes() for path in tmp_path.rglob("*.nb[ic]")})
    # Numba would put both behind one index: two that fill a cold cache together could get each other's code.
    first, both = written
    assert {path: both[path] for path in first} == first
    assert len(both) == 2 * len(first) == 8
    for settings in processors.values():
        said = rotate(environment(tmp_path, **settings), code)
        assert (said["good"], said["hits"], said["misses"]) == (True, 2, 0)


USERS_CODE = """
import sys
import numba
import numpy as np
import rope_numba as rn

@numba.njit(cache=True)
def half(x, cos, sin):
    rn.rotate_half_split(x, cos, sin)

@numba.njit(cache=True)
def interleaved(x, cos, sin):
    rn.rotate_interleaved(x, cos, sin)

@numba.njit(cache=True)
def half_bf16(x, cos, sin):
    rn.rotate_half_split_bf16(x, cos, sin)

cos, sin = rn.Rope(24).tables(3)
x = np.random.default_rng(0).standard_normal((3, 5, 24)).astype(np.float32)
for name in sys.argv[1:]:
    layout = "interleaved" if name == "interleaved" else "half"
    given = (x.view(np.uint32) >> 16).astype(np.uint16) if name.endswith("bf16") else x.copy()
    expected = given.copy()
    if name.endswith("bf16"):
        rn.reference.rotate_stored("bf16", expected, cos, sin, layout, 0)
    else:
        rn.reference.rotate(expected, cos, sin, layout=layout)
    globals()[name](given, cos, sin)
    hits = sum(globals()[name].stats.cache_hits.values())
    print(name, hits, given.tobytes() == expected.tobytes())
"""


def test_users_code_that_several_processes_cached_rotates_right_in_one(tmp_path: Path) -> None:
    # Each process compiles its helpers as the first ones, so that Numba gives them the same numbers.
    program = tmp_path / "users.py"
    program.write_text(USERS_CODE)
    kinds = ("half", "interleaved", "half_bf16")
    variables = environment(tmp_path / "cache")

    def run(*asked: str) -> str:
        command = [sys.executable, str(program), *asked]
        return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout

    for name in kinds:
        assert run(name) == f"{name} 0 True\n"
    assert run(*kinds) == "".join(f"{name} 1 True\n" for name in kinds)
