"""A model's converter and the runtime agree: SmolLM2's GGUF header, and the config made of the same file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_smollm2
import test_smollm2_layouts
from numpy.typing import NDArray
from test_smollm2 import TOLERANCE, one_pass

import rope_numba as rn
from rope_numba.__main__ import main

pytestmark = pytest.mark.model

example, loaded, model = test_smollm2.example, test_smollm2.loaded, test_smollm2.model
reference, half, tokens = test_smollm2.reference, test_smollm2_layouts.half, test_smollm2_layouts.tokens


@pytest.fixture(scope="module")
def path(example: ModuleType) -> Path:
    return Path(example.find_weights())


def test_the_gguf_header_gives_the_rotation_of_the_files_own_weights(
    example: ModuleType, model: Any, path: Path, reference: Mapping[str, NDArray[Any]], tokens: list[int]
) -> None:
    rope = rn.Rope.from_gguf(path)
    assert rope == rn.Rope(64, theta=100_000.0, layout="interleaved")
    ours = one_pass(example, model, tokens, rope)
    np.testing.assert_array_equal(ours.argmax(axis=1), reference["argmax"])


@pytest.mark.peers
def test_the_config_that_transformers_makes_of_the_file_gives_the_rotation_of_its_weights(
    example: ModuleType, model: Any, half: Any, path: Path, reference: Mapping[str, NDArray[Any]], tokens: list[int]
) -> None:
    from transformers import AutoConfig

    rope = rn.Rope.from_hf(AutoConfig.from_pretrained(path.parent, gguf_file=path.name))
    assert rope == rn.Rope(64, theta=100_000.0, layout="half")
    ours = one_pass(example, half, tokens, rope)
    np.testing.assert_array_equal(ours.argmax(axis=1), reference["argmax"])
    runtimes = one_pass(example, model, tokens, rn.Rope.from_gguf(path))
    np.testing.assert_allclose(ours, runtimes, rtol=0, atol=TOLERANCE)


def test_the_readme_quotes_what_is_said_of_the_file(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    assert main(["inspect", path.name]) == 0
    said = capsys.readouterr().out.rstrip()
    assert said in (Path(__file__).parent.parent / "README.md").read_text()
