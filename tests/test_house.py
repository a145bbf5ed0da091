"""The house: which module may import which, and what an import costs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rope_numba

PACKAGE = Path(rope_numba.__file__).parent

# For each module, the modules of the package that it may import when it is loaded.
ARROWS: dict[str, set[str]] = {
    "__init__": {"forks"},
    "forks": set(),
    "undisturbed": set(),
    "__main__": set(),
    "literals": set(),
    "hints": {"numbers"},
    "numbers": {"texts"},
    "arrays": {"numbers", "texts"},
    "exact": set(),
    "errorfree": set(),
    "frequencies.__init__": {
        "frequencies.axes",
        "frequencies.base",
        "frequencies.interpolated",
        "frequencies.listed",
        "frequencies.partial",
        "frequencies.plain",
        "frequencies.ramped",
        "frequencies.refused",
    },
    "frequencies.powers": {"errorfree", "exact"},
    "frequencies.arguments": {"integrations.torch", "numbers", "texts"},
    "frequencies.axes": {"frequencies.arguments", "frequencies.base", "hints", "numbers"},
    "frequencies.base": {
        "arrays",
        "frequencies.arguments",
        "hints",
        "integrations.dynamo",
        "integrations.torch",
        "numbers",
        "texts",
    },
    "frequencies.interpolated": {
        "frequencies.arguments",
        "frequencies.base",
        "frequencies.plain",
        "frequencies.powers",
        "hints",
    },
    "frequencies.listed": {
        "frequencies.arguments",
        "frequencies.base",
        "frequencies.plain",
        "frequencies.powers",
        "hints",
        "numbers",
    },
    "frequencies.partial": {"frequencies.arguments", "frequencies.base", "frequencies.plain", "hints", "numbers"},
    "frequencies.plain": {"frequencies.arguments", "frequencies.base", "frequencies.powers", "hints", "numbers"},
    "frequencies.ramped": {
        "frequencies.arguments",
        "frequencies.base",
        "frequencies.plain",
        "frequencies.powers",
        "hints",
        "numbers",
    },
    "frequencies.refused": {"hints", "numbers", "wording"},
    "layouts": {"hints", "literals", "numbers"},
    "cosines": {"errorfree", "exact", "extremes"},
    "extremes": {"errorfree", "exact"},
    "tables": {"cosines", "floating_point", "frequencies", "numbers"},
    "reference": {"arrays", "hints", "literals", "numbers", "texts"},
    "warm": {"forks", "hints", "integrations.torch", "kernels", "literals", "numbers"},
    "positions": {"arrays", "integrations.torch", "numbers", "texts"},
    "ragged": {"hints", "integrations.dynamo", "numbers", "positions"},
    "engine": {"frequencies", "kernels", "kernels.flags", "tables"},
    "rotation": {
        "arrays",
        "engine",
        "hints",
        "integrations.dynamo",
        "integrations.torch",
        "kernels.flags",
        "numbers",
        "reference",
        "tables",
    },
    "settings": {"frequencies", "kernels.flags", "literals", "numbers"},
    "identity": {"frequencies", "hints", "literals", "texts"},
    "readable": {"frequencies", "hints", "integrations.dynamo", "literals"},
    "rope": {
        "arrays",
        "engine",
        "frequencies",
        "hints",
        "identity",
        "integrations.dynamo",
        "integrations.torch",
        "literals",
        "positions",
        "readable",
        "recent",
        "rotation",
        "settings",
    },
    "recent": {"engine", "rotation"},
    "apply": {
        "arrays",
        "frequencies",
        "hints",
        "integrations.dynamo",
        "integrations.torch",
        "literals",
        "numbers",
        "rope",
        "rotation",
    },
    "layers": {"hints", "integrations.dynamo", "literals", "readable", "rope", "texts"},
    "explain": {"models.header", "numbers"},
    "plots": {"frequencies", "numbers", "texts"},
    "inspecting": {"explain", "layers", "literals", "models.local", "rope", "texts", "wording"},
    "selfcheck": {"__init__", "forks", "installed", "kernels", "literals", "numbers", "reference", "rope"},
    "models.header": {"frequencies", "texts"},
    "models.__init__": {"models.header"},
    "models.local": {"texts", "wording"},
    "models.hf.__init__": {"models.hf.reader"},
    "models.hf.assembly": {
        "frequencies",
        "models.header",
        "models.hf.axes",
        "models.hf.config",
        "models.hf.layers",
        "models.hf.lengths",
        "models.hf.magnitude",
        "models.hf.named",
        "models.hf.schemes",
        "models.hf.widths",
        "models.keys",
        "numbers",
        "texts",
        "wording",
    },
    "models.hf.axes": {
        "frequencies",
        "models.hf.config",
        "models.hf.layers",
        "models.hf.named",
        "models.keys",
        "numbers",
    },
    "models.hf.config": {"hints", "literals", "models.hf.defaults", "models.keys", "numbers", "wording"},
    "models.hf.defaults": {"models.hf.types"},
    "models.hf.files": {"integrations.torch", "models.local", "texts", "wording"},
    "models.hf.kinds": {"models.hf.config", "models.hf.defaults", "models.keys", "numbers"},
    "models.hf.layers": {"models.hf.config", "models.hf.kinds", "models.keys", "numbers", "texts"},
    "models.hf.lengths": {"models.hf.config", "models.hf.layers", "models.hf.named", "models.keys", "numbers"},
    "models.hf.magnitude": {
        "frequencies",
        "models.hf.config",
        "models.hf.layers",
        "models.hf.schemes",
        "models.hf.widths",
        "models.keys",
        "texts",
    },
    "models.hf.named": {"frequencies", "models.hf.config", "models.hf.layers", "models.keys", "numbers"},
    "models.hf.opening": {
        "literals",
        "models.hf.config",
        "models.hf.defaults",
        "models.hf.kinds",
        "models.hf.refusals",
        "models.hf.types",
        "models.keys",
        "numbers",
        "wording",
    },
    "models.hf.refusals": {"models.hf.config", "models.hf.defaults", "models.keys", "numbers", "wording"},
    "models.hf.params": {
        "literals",
        "models.hf.config",
        "models.hf.defaults",
        "models.hf.kinds",
        "models.hf.magnitude",
        "models.hf.types",
        "models.keys",
        "numbers",
    },
    "models.hf.reader": {
        "literals",
        "models.header",
        "models.hf.assembly",
        "models.hf.files",
        "models.hf.opening",
        "models.hf.params",
    },
    "models.hf.schemes": {
        "frequencies",
        "models.hf.config",
        "models.hf.layers",
        "models.hf.lengths",
        "models.hf.named",
        "models.hf.widths",
        "models.keys",
        "numbers",
        "wording",
    },
    "models.hf.types": set(),
    "models.hf.widths": {"models.hf.config", "models.hf.layers", "models.keys", "numbers", "wording"},
    "models.keys": {"models.header", "numbers"},
    "models.architectures": set(),
    "models.gguf.__init__": {"models.gguf.reader"},
    "models.gguf.reader": {
        "hints",
        "literals",
        "models.architectures",
        "models.gguf.duties",
        "models.gguf.layers",
        "models.gguf.opening",
        "models.gguf.scaling",
        "models.gguf.sections",
        "models.gguf.source",
        "models.gguf.widths",
        "models.header",
        "models.keys",
        "numbers",
        "texts",
        "wording",
    },
    "models.gguf.opening": {
        "literals",
        "models.architectures",
        "models.gguf.file",
        "models.gguf.layers",
        "models.gguf.metadata",
        "models.gguf.source",
        "models.keys",
        "models.local",
        "numbers",
        "texts",
        "wording",
    },
    "models.gguf.duties": {"frequencies", "models.gguf.source", "models.keys"},
    "models.gguf.layers": {"models.architectures", "models.gguf.source", "numbers"},
    "models.gguf.widths": {"models.architectures", "models.gguf.source", "models.keys"},
    "models.gguf.scaling": {
        "frequencies",
        "models.architectures",
        "models.gguf.source",
        "models.gguf.yarn",
        "models.header",
        "models.keys",
        "numbers",
        "wording",
    },
    "models.gguf.yarn": {"frequencies", "models.gguf.source", "models.keys"},
    "models.gguf.sections": {"frequencies", "models.gguf.source", "models.keys"},
    "models.gguf.source": {"frequencies", "models.architectures", "models.gguf.file", "models.gguf.metadata"},
    "models.gguf.metadata": {"numbers"},
    "models.gguf.file": {"models.local", "texts", "wording"},
    "kernels.__init__": {"forks", "texts", "undisturbed"},
    "kernels.flags": set(),
    "kernels.compile": {"kernels.frozen", "kernels.machine", "undisturbed"},
    "kernels.frozen": set(),
    "kernels.geometry": {"kernels.compile", "kernels.flags"},
    "kernels.storage": {"kernels.compile", "kernels.machine", "kernels.vector"},
    "kernels.panel": {"kernels.compile", "kernels.machine", "kernels.storage", "kernels.vector"},
    "kernels.ndarray_abi": set(),
    "kernels.precheck": {"kernels.compile", "kernels.flags", "kernels.geometry", "kernels.ndarray_abi"},
    "kernels.launch": {
        "forks",
        "kernels.compile",
        "kernels.flags",
        "kernels.in_place",
        "kernels.ndarray_abi",
        "kernels.out_of_place",
        "kernels.panel",
        "kernels.precheck",
        "kernels.storage",
        "kernels.threads",
        "kernels.walk",
    },
    "integrations.__init__": set(),
    "integrations.njit": {"arrays", "forks", "hints", "kernels", "kernels.flags", "numbers", "reference", "texts"},
    "integrations.families": {"arrays", "integrations.torch", "kernels", "kernels.flags", "reference"},
    "integrations.torch": {"arrays", "texts"},
    "integrations.transformers": {"arrays", "hints", "integrations.families", "numbers"},
    "integrations.overloads": {
        "kernels.compile",
        "kernels.in_place",
        "kernels.launch",
        "kernels.machine",
        "kernels.panel",
        "kernels.storage",
    },
    "texts": set(),
    "wording": set(),
    "installed": set(),
    "integrations.dynamo": set(),
    "kernels.in_place": {
        "kernels.compile",
        "kernels.flags",
        "kernels.geometry",
        "kernels.machine",
        "kernels.ndarray_abi",
        "kernels.panel",
        "kernels.storage",
        "kernels.walk",
    },
    "kernels.machine": {"kernels.vector"},
    "kernels.out_of_place": {
        "kernels.compile",
        "kernels.flags",
        "kernels.geometry",
        "kernels.machine",
        "kernels.ndarray_abi",
        "kernels.panel",
        "kernels.storage",
        "kernels.vector",
        "kernels.walk",
    },
    "kernels.vector": set(),
    "kernels.walk": {"kernels.compile", "kernels.geometry", "kernels.machine", "kernels.panel"},
    "cpus": set(),
    "kernels.threads": {"cpus", "forks", "kernels.flags", "texts", "undisturbed"},
    "floating_point": set(),
}
# Third-party modules that only these may import, be it inside a function.
ONLY = {
    "numba": {name for name in ARROWS if name.startswith("kernels.")} - {"kernels.flags"} | {"integrations.overloads"},
    "llvmlite": {"kernels.compile", "kernels.machine", "kernels.ndarray_abi", "kernels.vector"},
    "matplotlib": {"plots"},
    "gguf": set(),  # GGUF files are read without it, and tested with it
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def loaded_imports(path: Path) -> tuple[set[str], set[str]]:
    """Return the package's modules and the other packages that a file imports at its top level."""
    own: set[str] = set()
    others: set[str] = set()
    here = module_name(path).split(".")[:-1]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                candidate = ".".join([*base, *str(name).split(".")])
                known = candidate in ARROWS or f"{candidate}.__init__" in ARROWS
                own.add(candidate if known else "__init__")
    return own, others


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_follow_the_arrows(path: Path) -> None:
    own, others = loaded_imports(path)
    name = module_name(path)
    assert name in ARROWS, "a new room: give it its arrows here, and its place in the README's picture of the house"
    assert own <= ARROWS[name]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").split(".")[0])
    for package, allowed in ONLY.items():
        assert package not in others or name in allowed


def test_every_arrow_of_the_house_leads_to_a_file() -> None:
    assert {module_name(path) for path in FILES} == set(ARROWS)


def test_llvm_is_written_in_three_files_only() -> None:
    writers = {module_name(path) for path in FILES if "from llvmlite import ir" in path.read_text()}
    assert writers == {"kernels.machine", "kernels.ndarray_abi", "kernels.vector"}
    for path in FILES:
        assert module_name(path) in writers or not re.search(r"\bllvmlite\.ir\b|\bbuilder\b", path.read_text())


def test_the_readme_shows_the_step_of_the_kernels_as_it_is() -> None:
    shown = (
        (Path(__file__).parent.parent / "README.md").read_text().partition("def rotate_parted(")[2].partition("```")[0]
    )
    body = [line.strip() for line in shown.splitlines()[1:]]
    source = [line.strip() for line in (PACKAGE / "kernels" / "panel.py").read_text().splitlines()]
    start = source.index(body[0])
    assert source[start : start + len(body)] == body


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    most = 300 if module_name(path).startswith("kernels.") else 400
    assert len(path.read_text().splitlines()) <= most


def imported(code: str) -> set[str]:
    """Return the modules that are loaded after running some code in a fresh process."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import rope_numba",
        "import rope_numba as rn; rn.Rope(64); rn.frequencies.default(8)",
        "import rope_numba as rn; rn.Rope(64).at(offset=3, tokens=5)",
        "import rope_numba as rn, numpy as np; rn.Rope(2, backend='numpy')(np.ones((1, 2)), offset=1)",
    ],
)
def test_nothing_heavy_is_imported_before_the_first_kernel(code: str) -> None:
    loaded = imported(code)
    assert "rope_numba" in loaded
    for heavy in ("numba", "llvmlite", "ml_dtypes", "scipy", "torch", "gguf", "rope_numba.kernels.launch"):
        assert heavy not in loaded


def test_importing_the_package_itself_loads_not_even_its_rooms() -> None:
    assert "rope_numba.rope" not in imported("import rope_numba")


def test_every_public_name_is_there_and_no_other_is_promised() -> None:
    for name in rope_numba.__all__:
        assert getattr(rope_numba, name) is not None
    assert dir(rope_numba) == sorted(rope_numba.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rope_numba.nothing  # type: ignore[attr-defined]  # noqa: B018
