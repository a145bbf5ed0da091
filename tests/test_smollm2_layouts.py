"""A real model in both layouts: SmolLM2's W_q and W_k, interleaved in its GGUF file, permuted to half and run.

The model, the prompt and the tolerance are those of test_smollm2.py, which compares the file's own layout with logits
of transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_smollm2
from numpy.typing import NDArray
from test_smollm2 import TOLERANCE, Logits, make_rope, one_pass

from rope_numba.layouts import permute

pytestmark = pytest.mark.model

example, loaded, model = test_smollm2.example, test_smollm2.loaded, test_smollm2.model
reference, logits = test_smollm2.reference, test_smollm2.logits

TO_HALF = {"source": "interleaved", "target": "half"}
BACK = {"source": "half", "target": "interleaved"}


def names_of(model: Any, kinds: str = "qk") -> list[str]:
    return [f"blk.{layer}.attn_{kind}" for layer in range(model.layers) for kind in kinds]


def permuted(model: Any, kinds: str, **how: str) -> Any:
    """Return the model with the projections of some kinds in another layout."""
    changed = {name: permute(model.weights[name], model.head_dim, axis=0, **how) for name in names_of(model, kinds)}
    return dataclasses.replace(model, weights=model.weights | changed)


@pytest.fixture(scope="module")
def half(model: Any) -> Any:
    """The model with W_q and W_k in the half layout."""
    return permuted(model, "qk", **TO_HALF)


@pytest.fixture(scope="module")
def tokens(reference: Mapping[str, NDArray[Any]]) -> list[int]:
    prompt: list[int] = reference["tokens"].tolist()
    return prompt


def test_permuted_weights_in_the_half_layout_give_the_logits_of_the_file(
    example: ModuleType, half: Any, logits: Logits, reference: Mapping[str, NDArray[Any]], tokens: list[int]
) -> None:
    assert len(tokens) >= 40
    assert half.heads != half.kv_heads
    ours = one_pass(example, half, tokens, make_rope(half, layout="half"))
    np.testing.assert_allclose(ours, logits, rtol=0, atol=TOLERANCE)  # measured: 5.9e-5
    np.testing.assert_array_equal(ours.argmax(axis=1), reference["argmax"])


# Measured over the 108 tokens, correlation and the share of equal argmax: 0.728 and 0.38, 0.087 and 0.01, 0.049 and
# 0.02. (The file's own weights in the half layout: test_smollm2.py.)
@pytest.mark.parametrize(("kinds", "layout"), [("qk", "interleaved"), ("q", "half"), ("qkv", "half")])
def test_weights_and_layout_that_do_not_belong_together_are_told_apart(
    example: ModuleType, model: Any, logits: Logits, tokens: list[int], kinds: str, layout: str
) -> None:
    wrong = one_pass(example, permuted(model, kinds, **TO_HALF), tokens, make_rope(model, layout=layout))
    assert np.corrcoef(wrong.ravel(), logits.ravel())[0, 1] < 0.85
    assert np.mean(wrong.argmax(axis=1) == logits.argmax(axis=1)) < 0.5


def test_there_and_back_gives_the_weights_of_the_file(model: Any, half: Any) -> None:
    back = permuted(half, "qk", **BACK)
    for name in names_of(model):
        assert not np.array_equal(half.weights[name], model.weights[name])
        np.testing.assert_array_equal(back.weights[name], model.weights[name])


def test_quantised_rows_may_be_permuted_as_bytes(example: ModuleType, model: Any, half: Any) -> None:
    names = {f"{name}.weight" for name in names_of(model)}
    tensors = [tensor for tensor in example.GGUFReader(example.find_weights()).tensors if tensor.name in names]
    assert len(tensors) == len(names)
    for tensor in tensors:
        assert tensor.data.dtype == np.uint8  # Q4_1: blocks of 32 columns, each with a scale and a minimum
        rows = permute(tensor.data, model.head_dim, axis=0, **TO_HALF)
        weights = example.dequantize(rows, tensor.tensor_type)
        np.testing.assert_array_equal(weights, half.weights[tensor.name.removesuffix(".weight")])
