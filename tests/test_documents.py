"""Everything that a user may copy runs: docstring examples, README snippets, README commands."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import rope_numba

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = ["rope_numba"] + [
    f"rope_numba.{module.name}" for module in pkgutil.iter_modules(rope_numba.__path__) if module.name != "__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0


@pytest.mark.parametrize(
    "name", [name for name in rope_numba.__all__ if name[0] != "_" and name not in ("frequencies", "reference")]
)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(rope_numba, name).__doc__ or "")


@pytest.mark.parametrize("method", ["__call__", "inverse", "at", "tables"])
def test_every_method_of_a_rope_has_an_example(method: str) -> None:
    assert ">>> " in (getattr(rope_numba.Rope, method).__doc__ or "")


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme_snippets_run(snippet: str) -> None:
    exec(compile(snippet, "README.md", "exec"), {})


def test_the_readme_has_snippets() -> None:
    assert SNIPPETS


@pytest.mark.parametrize("command", ["pip install . && python -m rope_numba", "pip install '.[test]' && pytest"])
def test_ci_runs_the_readmes_commands(command: str) -> None:
    assert f"    {command}\n" in README
    assert f"\n({command})\n" in (ROOT / ".ci" / "run").read_text()


def test_the_message_that_the_readme_quotes_is_the_message() -> None:
    import numpy as np

    with pytest.raises(TypeError) as refused:
        rope_numba.Rope(8)(np.ones((1, 1, 8), np.int32), offset=0)
    assert f"`{refused.value}`" in README


def test_the_picture_of_the_house_names_every_file() -> None:
    picture = README.split("rope_numba/\n", 1)[1].split("```", 1)[0]
    package = Path(rope_numba.__file__).parent
    files = {path.name for path in package.rglob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\b\w+\.py\b", picture)) == files


def test_the_version_stands_once() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {rope_numba.__version__}" in changelog
    assert not re.search(r"^version\b", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
