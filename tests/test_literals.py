"""The words that arguments take are types, which stand once and which a type checker holds callers to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import rope_numba as rn

PACKAGE = Path(rn.__file__).parent
TYPES = {"layout": rn.Layout, "layout_out": rn.Layout, "order": rn.Order, "backend": rn.Backend}
NAMES = {
    **dict.fromkeys(("layout", "layout_out", "source", "target"), "Layout"),
    "order": "Order",
    "backend": "Backend",
    "layouts": "Sequence[Layout]",
}
# What users call or read; the readers' and the kernels' own `source` is another thing.
PUBLIC = ("apply", "identity", "layers", "layouts", "readable", "reference", "rope", "warm")


def annotated(module: str) -> list[tuple[str, str, str]]:
    """Return (where, name, annotation) of every argument of a public function, and of every attribute of a class."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.startswith("__")):
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if argument.annotation is not None:
                    found.append((f"{module}.{node.name}", argument.arg, ast.unparse(argument.annotation)))
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                    found.append((f"{module}.{node.name}", one.target.id, ast.unparse(one.annotation)))
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_word_has_its_type(module: str) -> None:
    ours = [(where, name, kind) for where, name, kind in annotated(module) if name in NAMES and where[-6:] != "stored"]
    assert ours
    assert [(w, n, k) for w, n, k in ours if k.removesuffix(" | None") != NAMES[n]] == []


@pytest.mark.parametrize("name", TYPES)
def test_the_types_name_the_words_that_are_taken(name: str) -> None:
    for word in get_args(TYPES[name]):
        settings: dict[str, Any] = {name: word}
        assert getattr(rn.Rope(8, **settings), name) == word
    settings = {name: "other"}
    wanted = " or ".join(map(repr, get_args(TYPES[name])))
    with pytest.raises(ValueError, match=f"^{name} is 'other'; expected {wanted}$"):
        rn.Rope(8, **settings)


def test_other_functions_take_the_same_words() -> None:
    for layout in get_args(rn.Layout):
        rn.layouts.indices(8, source=layout, target=layout)
        rn.warmup(layouts=[layout], axes=[], parallel=False)
        rn.reference.rotate(np.ones((1, 1, 2)), np.ones((1, 1)), np.ones((1, 1)), layout=layout)


CALLS = """
import rope_numba as rn
layout: rn.Layout = "half"
order: rn.Order = "htd"
backend: rn.Backend = "numpy"
rope = rn.Rope(8, layout=layout, order=order, backend=backend)
layout = rope.layout
order, backend = rope.order, rope.backend
rn.Rope(8, layout="neox")
rn.Rope.from_hf({}, order="bshd")
rn.ropes_from_hf({}, backend="numa")
rn.layouts.indices(8, source="half", target="halves")
"""


@pytest.mark.process  # as mypy is there for these tests only, and takes seconds
def test_a_type_checker_takes_the_words_and_no_others(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "calls.py"
    path.write_text(CALLS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--follow-imports=silent", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where site-packages is the folder, mypy takes nothing from it
        check=False,
    )
    wrong = [int(line) for line in re.findall(rf"{path.name}:(\d+): error", done.stdout)]
    assert wrong == [9, 10, 11, 12], done.stdout + done.stderr
