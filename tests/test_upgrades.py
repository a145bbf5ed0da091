"""The package changed while its compiled code is kept: old code is never run, whichever file has changed."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed import copied, end, environment, names, rotate, start, zipped

import rope_numba

pytestmark = pytest.mark.process

KERNELS = Path(rope_numba.__file__).parent / "kernels"

# A kernel in place, and what its entry answers to a plain call; and a kernel from array to array.
ATTEMPT = """
remember()

def attempt(**more):
    try:
        return right(**more)
    except Exception as error:  # what changed code may well lead to
        digest.update(str(error).encode())
        return False
"""
IN_PLACE = f"""{ATTEMPT}
good = attempt()
from rope_numba.kernels import flags, launch
q = np.ones((2, 3, 8), np.float32)
asked = flags.pack_flags(flags.NO_KEY, 8, 0)
rows = np.zeros((1, 2, 2, 4), np.float32)
answer = launch.in_place_for("f32", "half").get()(q, q[..., :0], rows, asked)
digest.update(repr((int(answer), q.tolist())).encode())
report(good)
"""
OUT_OF_PLACE = f"""{ATTEMPT}
report(attempt(out="float16"))
"""
COMPILED = {IN_PLACE: 2, OUT_OF_PLACE: 4}  # functions

# A change of what each file does: old text, new text, and whether what comes out is another then.
CHANGES: dict[str, tuple[str, str, bool]] = {
    "__init__.py": (
        "return None if launch.KERNELS_UNAVAILABLE",
        "return launch and None if launch.KERNELS_UNAVAILABLE",
        False,
    ),
    "compile.py": ('{"error_model": "numpy", "fastmath"', '{"error_model": "python", "fastmath"', False),
    # Old code would look for every number in the wrong place.
    "flags.py": ("ROTARY_OFFSET_SHIFT, HEAD_DIM_SHIFT = 6, 26", "ROTARY_OFFSET_SHIFT, HEAD_DIM_SHIFT = 7, 27", False),
    "frozen.py": ('return digest.hexdigest() if found else ""', 'return digest.hexdigest() if found else "?"', False),
    "geometry.py": ("return bits % itemsize == 0", "return bits % itemsize != 0", True),
    "in_place.py": ("k + offset, n_k, k_stride)", "k, n_k, k_stride)", True),
    "launch.py": ("CHUNKS_PER_THREAD = 4", "CHUNKS_PER_THREAD = 8", False),
    "machine.py": ("x = builder.add(a_first, builder.mul(loop.index, a_stride))", "x = a_first", True),
    "ndarray_abi.py": ("not a writeable array of", "not an array to write to, of", False),
    "out_of_place.py": ("if x != out and", "if x == out and", True),
    "panel.py": ("low, high = low * cos - high * sin", "low, high = low * cos + high * sin", True),
    "precheck.py": ("return ROTATED\n", "return NEEDS_CHECK\n", False),
    "storage.py": ('loader("f16"), storer("f16")', 'loader("f16"), _store_bf16', True),
    "threads.py": ('NOT_CHOSEN = "not chosen yet"', 'NOT_CHOSEN = "not yet chosen"', False),
    "vector.py": ("ir.IRBuilder.sub, ir.IRBuilder.fsub", "ir.IRBuilder.sub, ir.IRBuilder.fadd", True),
    "walk.py": ("a_at += a_axes.token_stride", "a_at += 0", True),
}
# Which of the two kernels is seen to change: the other one's names have the same digest (tested below).
SEEN_FROM_ARRAY_TO_ARRAY = {"out_of_place.py", "precheck.py", "storage.py"}


def edit(kernels: Path, file: str) -> None:
    """Change what a file of a copy does."""
    old, new, _ = CHANGES[file]
    text = (kernels / file).read_text()
    assert text.count(old) == 1
    (kernels / file).write_text(text.replace(old, new))


@dataclass
class Installed:
    """A copy of the package, its compiled code, and what comes out of each kernel."""

    package: Path
    cache: Path
    bits: dict[str, str]

    @property
    def kernels(self) -> Path:
        return self.package / "rope_numba" / "kernels"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return a copy of the package whose kernels have been compiled."""
    package, cache = copied(tmp_path_factory.mktemp("installed") / "package"), tmp_path_factory.mktemp("compiled")
    bits = {}
    for code, compiled in COMPILED.items():
        said = rotate(environment(cache, package), code)
        assert (said["good"], said["hits"], said["misses"]) == (True, 0, compiled)
        assert said["file"] == str(package / "rope_numba" / "__init__.py")
        bits[code] = said["bits"]
    return Installed(package, cache, bits)


def test_every_kernel_source_is_changed_below() -> None:
    assert set(CHANGES) == {path.name for path in KERNELS.glob("*.py")}


def contents(cache: Path) -> dict[Path, bytes]:
    """Return what stands in each file of compiled code."""
    return {path: path.read_bytes() for path in cache.rglob("*.nb[ic]")}


def test_names_of_all_compiled_functions_end_in_one_digest(warm: Installed) -> None:
    found = [re.search(r"_([0-9a-f]{16})-", name) for name in names(warm.cache)]
    assert len(found) == 2 * sum(COMPILED.values())
    assert len({match and match[1] for match in found}) == 1
    assert None not in found


@pytest.mark.parametrize("file", CHANGES)
def test_a_changed_source_never_runs_old_code_and_leaves_it_as_it_was(file: str, warm: Installed) -> None:
    code = OUT_OF_PLACE if file in SEEN_FROM_ARRAY_TO_ARRAY else IN_PLACE
    before, original = contents(warm.cache), (warm.kernels / file).read_text()
    try:
        edit(warm.kernels, file)
        changed = rotate(environment(warm.cache, warm.package), code)
    finally:
        (warm.kernels / file).write_text(original)
    assert (changed["hits"], changed["misses"]) == (0, COMPILED[code])
    another = CHANGES[file][2]
    assert changed["good"] or another
    assert (changed["bits"] != warm.bits[code]) == another
    after = contents(warm.cache)
    assert len(after) - len(before) == 2 * COMPILED[code]
    assert {path: after[path] for path in before} == before


def test_sources_that_are_as_they_were_run_their_first_code(warm: Installed) -> None:
    variables, panel = environment(warm.cache, warm.package), warm.kernels / "panel.py"
    original = panel.read_text()
    try:
        edit(warm.kernels, "panel.py")
        assert rotate(variables, IN_PLACE)["bits"] != warm.bits[IN_PLACE]
    finally:
        panel.write_text(original)
    for code, compiled in COMPILED.items():
        said = rotate(variables, code)
        assert (said["bits"], said["hits"], said["misses"]) == (warm.bits[code], compiled, 0)


@pytest.mark.parametrize("file", ["panel.py", "flags.py"])
def test_a_process_whose_sources_change_under_it_leaves_no_old_code_behind(file: str, tmp_path: Path) -> None:
    package, cache = copied(tmp_path / "package"), tmp_path / "cache"
    # One has imported the kernels by the time of the change, the other only what a Rope is made of.
    wait = 'print("ready", flush=True)\nsys.stdin.readline()\n'
    codes = ("import rope_numba.kernels.launch\n", "rn.Rope(24)\n")
    processes = [start(code + wait + IN_PLACE, environment(cache, package)) for code in codes]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    edit(package / "rope_numba" / "kernels", file)
    early, late = map(end, processes)
    assert early["good"]
    assert early["folders"] == ["None"]
    assert late["good"] != CHANGES[file][2]
    fresh = rotate(environment(cache, package), IN_PLACE)
    cold = rotate(environment(tmp_path / "empty", package), IN_PLACE)
    assert fresh["bits"] == cold["bits"]


def test_a_package_in_a_zip_file_never_runs_old_code(warm: Installed, tmp_path: Path) -> None:
    package, archive = copied(tmp_path / "package"), tmp_path / "package.zip"
    variables = environment(None, archive, HOME=str(tmp_path))
    zipped(package, archive)
    assert rotate(variables, IN_PLACE)["bits"] == warm.bits[IN_PLACE]
    again = rotate(variables, IN_PLACE)
    assert (again["bits"], again["misses"]) == (warm.bits[IN_PLACE], 0)
    edit(package / "rope_numba" / "kernels", "panel.py")
    zipped(package, archive)
    changed = rotate(variables, IN_PLACE)
    assert changed["hits"] == 0
    assert changed["bits"] != warm.bits[IN_PLACE]


def test_another_version_of_numba_never_runs_old_code(warm: Installed, tmp_path: Path) -> None:
    # Numba asks its own version too, but of an index that two versions may be writing.
    assert rotate(environment(tmp_path), IN_PLACE)["bits"] == warm.bits[IN_PLACE]
    files = names(tmp_path)
    another = rotate(environment(tmp_path), 'import numba\nnumba.__version__ = "999.0"\n' + IN_PLACE)
    assert (another["bits"], another["hits"]) == (warm.bits[IN_PLACE], 0)
    assert len(names(tmp_path)) == 2 * len(files)
    assert rotate(environment(tmp_path), IN_PLACE)["misses"] == 0


def test_what_is_compiled_has_all_its_sources_in_the_folder_that_is_digested() -> None:
    outside: dict[str, set[str]] = {}
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                outside.setdefault(path.name, set()).update(alias.name for alias in node.names)
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("rope_numba") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("rope_numba")
    # What these hold decides, in Python, when and where something is compiled; none of it is compiled itself.
    known = {"available_cpus", "forks", "on_another_thread", "one_line", "undisturbed"}
    assert set().union(*outside.values()) == known
