"""Everything that a user may copy runs: docstring examples, README snippets, README commands."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import get_origin

import numpy as np
import pytest
from numpy.typing import NDArray

import rope_numba

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = ["rope_numba"] + [
    module.name
    for module in pkgutil.walk_packages(rope_numba.__path__, "rope_numba.")
    if not module.name.endswith(".__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in rope_numba.__all__
        if callable(getattr(rope_numba, name)) and get_origin(getattr(rope_numba, name)) is None
    ],
)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(rope_numba, name).__doc__ or "")


@pytest.mark.parametrize("method", ["__call__", "inverse", "shift", "at", "tables", "from_hf", "from_gguf", "explain"])
def test_every_method_of_a_rope_has_an_example(method: str) -> None:
    assert ">>> " in (getattr(rope_numba.Rope, method).__doc__ or "")


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NEEDS = {"import torch": pytest.mark.peers, "import dask": pytest.mark.dask}  # what not every environment has


def marked(snippet: str) -> object:
    return pytest.param(snippet, marks=[mark for words, mark in NEEDS.items() if words in snippet])


@pytest.mark.parametrize("snippet", [marked(snippet) for snippet in SNIPPETS])
def test_readme_snippets_run(snippet: str) -> None:
    exec(compile(snippet, "README.md", "exec"), {})


def test_the_readme_has_snippets() -> None:
    assert SNIPPETS


@pytest.mark.parametrize("command", ["pip install . && python -m rope_numba", "pip install '.[test]' && pytest"])
def test_ci_runs_the_readmes_commands(command: str) -> None:
    assert f"    {command}\n" in README
    assert f"\n({command})\n" in (ROOT / ".ci" / "run").read_text()


REFUSALS = re.findall(
    r"^\| `(.+?)` \| `(.+)` \|$", README.split("## What it refuses")[1].split("\n## ")[0], re.MULTILINE
)


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_the_readme_quotes_messages_as_they_are(call: str, message: str) -> None:
    def x(*shape: int) -> NDArray[np.float32]:
        return np.ones(shape, np.float32)

    with pytest.raises((TypeError, ValueError)) as refused:
        eval(call, {"np": np, "rn": rope_numba, "rope": rope_numba.Rope(128), "x": x})
    assert str(refused.value) == message


def test_the_readme_quotes_messages() -> None:
    assert len(REFUSALS) >= 10


def test_the_picture_of_the_house_names_every_file() -> None:
    picture = README.split("rope_numba/\n", 1)[1].split("```", 1)[0]
    package = Path(rope_numba.__file__).parent
    files = {path.name for path in package.rglob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\b\w+\.py\b", picture)) == files


def test_the_version_stands_once() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {rope_numba.__version__}" in changelog
    assert not re.search(r"^version\b", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
