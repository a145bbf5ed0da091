"""What this package says reads like sentences, whatever the numbers in it: one, none, all, or missing ones."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import LLAMA as GGUF_LLAMA
from gguf_files import written

import rope_numba as rn
from rope_numba.__main__ import main
from rope_numba.explain import explain
from rope_numba.models.keys import Keys

CONFIGS = sorted(p for p in (Path(__file__).parent / "configs").glob("*.json") if p.stem not in ("golden", "sources"))
NOUNS = "pairs|positions|layers|channels|axes|tokens|numbers|streams|names|bytes|rows|entries|parts"
BAD = [
    rf"(?<![\d.,])1 ({NOUNS})\b",  # one of many
    r"\b0 of \d|\b(\d+) of \1\b",  # none or all, in figures
    r"'unknown', which is unknown|'unknown'",
    r"\bNone\b.*\bNone\b",
    r"\.\.\.\.",
    r"\bof type (list|tuple|dict)\b",
    r"\bwhose the\b",
    r"\bdefault of \S+ '[^']*'[^;]* is missing",
    r"\bwithout which [^;.]*\bno\b",
    r"  +$",
]


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if any(re.search(bad, line) for bad in BAD)]


def header(**more: Any) -> dict[str, Any]:
    return {"model_type": "llama", "head_dim": 64, "rope_theta": 1e4, "max_position_embeddings": 4096, **more}


def told(capsys: pytest.CaptureFixture[str], path: Path) -> str:
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_stored_configuration_is_explained_in_sentences(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaints(told(capsys, path)) == []


@pytest.mark.parametrize(
    ("head_dim", "length", "sentence"),
    [
        (64, 1, "No pair turns once within the 1 position that the model was trained for."),
        (64, 6, "No pair turns once within the 6 positions that the model was trained for."),
        (64, 8, "31 of 32 pairs do not turn once within the 8 positions that the model was trained for."),
        (64, 45_000, "1 of 32 pairs does not turn once within the 45,000 positions that the model was trained for."),
        (64, 50_000, "Each pair turns at least once within the 50,000 positions that the model was trained for."),
        (2, 5, "No pair turns once within the 5 positions that the model was trained for."),
        (2, 4096, "Each pair turns at least once within the 4,096 positions that the model was trained for."),
    ],
)
def test_pairs_that_do_not_turn_are_counted_in_words(head_dim: int, length: int, sentence: str) -> None:
    text = rn.Rope.from_hf(header(head_dim=head_dim, max_position_embeddings=length)).explain()
    assert f"  {sentence}" in text.splitlines()
    assert complaints(text) == []


def gemma_4(share: float, length: int) -> rn.Rope:
    layers = {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": share, "rope_theta": 1e6}}
    config = {"model_type": "gemma4_text", "rope_parameters": layers, "max_position_embeddings": length}
    return rn.Rope.from_hf(config, layer_type="full_attention")


def test_pairs_that_never_turn_are_not_counted_among_those_that_turn_slowly() -> None:
    text = gemma_4(0.25, 131_072).explain()
    assert "; 192 of 256 pairs never turn." in text
    assert "Each pair that turns does so at least once within the 131,072 positions" in text
    assert "  No pair turns once within the 6 positions" in gemma_4(0.25, 6).explain()
    assert "  2 of 64 pairs that turn do not turn once within the 170 positions" in gemma_4(0.25, 170).explain()
    assert "; 1 of 256 pairs never turns." in gemma_4(255 / 256, 4096).explain()


def test_one_pair_or_none_is_spoken_of_as_such() -> None:
    assert "Wavelengths: the pair turns once in 6.283 positions." in rn.Rope(2).explain()
    alike = rn.Rope(4, frequencies=rn.Frequencies([0.5, 0.5])).explain()
    assert "Wavelengths: pairs turn once in 12.57 positions." in alike
    still = rn.Rope(2, frequencies=rn.Frequencies([0.0])).explain()
    assert "No pair turns: the rotation changes nothing." in still
    larger = rn.Rope(2, frequencies=rn.Frequencies([0.0], attention_factor=2.0)).explain()
    assert "No pair turns: the rotation changes nothing but the magnitude." in larger


def test_a_model_without_scaling_is_not_offered_by_its_scaling(tmp_path: Path) -> None:
    write = partial(written, tmp_path / "m.gguf", "llama", **GGUF_LLAMA)
    plain = rn.Rope.from_gguf(write(rope_scaling_orig_ctx_len=4096)).explain()
    assert "  The model is offered for 8,192 positions." in plain.splitlines()
    scaled = rn.Rope.from_gguf(write(rope_scaling_orig_ctx_len=4096, rope_scaling_factor=2.0)).explain()
    assert "  With this scaling it is offered for 8,192 positions." in scaled.splitlines()


@pytest.mark.parametrize(
    ("skipped", "sentence"),
    [
        ([3], "1 of 4 layers is not rotated (counted from 0): 3."),
        ([0, 3], "2 of 4 layers are not rotated (counted from 0): 0, 3."),
        (range(8), "8 of 12 layers are not rotated (counted from 0): 0, 1, 2, 3, 4, 5, 6, 7."),
        (range(9), "9 of 12 layers are not rotated (counted from 0): 0, 1, 2, 3, 4, 5, 6, 7 and 1 more."),
        (range(11), "11 of 12 layers are not rotated (counted from 0): 0, 1, 2, 3, 4, 5, 6, 7 and 3 more."),
    ],
)
def test_layers_without_rotation_are_counted_in_a_sentence(skipped: Any, sentence: str) -> None:
    count = 4 if max(skipped) < 4 else 12
    rotates = [int(layer not in skipped) for layer in range(count)]
    config = {**header(model_type="smollm3"), "num_hidden_layers": count, "no_rope_layers": rotates}
    text = rn.Rope.from_hf(config).explain()
    assert f"  - {sentence}" in text.splitlines()
    assert complaints(text) == []


def test_lists_of_numbers_are_summed_up_in_numbers() -> None:
    factors = {"short_factor": [1.0, 1.5] * 16, "long_factor": [4.0] * 31 + [2.0]}
    scaling = {"rope_type": "longrope", **factors, "original_max_position_embeddings": 1024, "factor": 4.0}
    text = rn.Rope.from_hf(header(rope_scaling=scaling)).explain()
    assert re.search(r"short_factor +32 numbers, 1 to 1.5 +rope_scaling.short_factor", text)
    assert re.search(r"long_factor +32 numbers, 2 to 4 +rope_scaling.long_factor", text)
    assert complaints(text) == []


@pytest.mark.parametrize(
    ("factors", "value"),
    [
        ([1.0, 2.0, 1e30, 1e30], "1 to 2; 2 pairs do not turn"),
        ([0.5, 0.5, 0.75, 1e30], "0.5 to 0.75; 1 pair does not turn"),
        ([1e30] * 4, "of all pairs infinite"),
        ([2.0] * 4, "2 to 2"),
    ],
)
def test_divisors_are_summed_up_by_those_that_there_are(tmp_path: Path, factors: list[float], value: str) -> None:
    path = written(tmp_path / "m.gguf", "llama", {"rope_freqs.weight": factors}, key_length=8, context_length=4096)
    (fact,) = (fact for fact in rn.Rope.from_gguf(path)._header.facts if fact.name == "divisors")  # type: ignore[union-attr]
    assert fact.value == value


# --- what is missing ---


def test_a_header_that_names_no_model_type_is_spoken_of_without_one() -> None:
    config = {"head_dim": 64, "rope_theta": 1e4, "num_hidden_layers": 2}
    with pytest.warns(UserWarning, match="layout 'half' was assumed"):
        rope = rn.Rope.from_hf(config, strict=False)
    text = rope.explain()
    assert text.startswith("Rope of a model of no stated type, from a dict: default frequencies, half layout\n")
    assert "No key names the model type: layout 'half' was assumed" in text
    assert re.search(r"layout +half +assumed, as no key names the model type\n", text)
    assert complaints(text) == []
    with pytest.raises(ValueError, match=r"^model_type is missing, and no key speaks of RoPE; expected rope_theta, "):
        rn.Rope.from_hf({"head_dim": 64})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "novel"}, "model_type"),
        ({"architectures": ["NovelModel"]}, "architectures[0]"),
        ({"text_config": {"model_type": "novel", "head_dim": 64, "rope_theta": 1e4}}, "text_config.model_type"),
    ],
)
def test_a_type_that_is_not_known_is_named_where_it_stands(config: dict[str, Any], named: str) -> None:
    with pytest.warns(UserWarning, match="layout 'half' was assumed"):
        text = rn.Rope.from_hf({"head_dim": 64, "rope_theta": 1e4, **config}, strict=False).explain()
    assert re.search(rf"  - {re.escape(named)} '(novel|NovelModel)' is unknown: layout 'half' was assumed", text)
    assert re.search(rf"assumed, as {re.escape(named)} is unknown\n", text)


def test_layers_of_a_model_without_a_type_differ_without_one() -> None:
    dicts = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    config = {"head_dim": 64, "rope_parameters": dicts, "layer_types": list(dicts), "num_hidden_layers": 2}
    with pytest.raises(ValueError, match=r", as layers of this model differ$"):
        rn.Rope.from_hf(config, layout="half")
    with pytest.raises(ValueError, match=r", as layers of 'novel' differ$"):
        rn.Rope.from_hf({**config, "model_type": "novel"}, layout="half")


# --- one of something, in errors ---


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rn.Rope(8)(ones(8), offset=0), "q has 1 axis; expected "),
        (lambda: rn.Rope(8)(ones(1, 1, 8), ones(8), offset=0), "k has 1 axis; expected 3, as q has"),
        (lambda: rn.Rope(8)(ones(1, 1, 8), positions=[1, 2]), "q has 1 token; expected 2, the number of positions"),
        (lambda: rn.apply_rope(ones(8), offset=0), "q has 1 axis; expected 2, 3 or 4, the last one head_dim"),
        (lambda: rn.frequencies.divided(2, divisors="x"), "divisors is 'x'; expected 1 number above 0, "),
        (lambda: rn.frequencies.proportional(2, partial_rotary_factor=0.1), " enough for one of 1 pair"),
        (
            lambda: rn.rotate_interleaved(ones(2, 1, 2), ones(1, 1), ones(1, 1)),
            "expected 2 rows, one for each token of x",
        ),
        (
            lambda: rn.rotate_interleaved(ones(1, 1, 2), ones(2, 1), ones(2, 1)),
            "expected 1 row, one for each token of x",
        ),
        (lambda: rn.reference.rotate(ones(8), ones(1, 1), ones(1, 1)), "x has 1 axis; expected "),
        (lambda: rn.Rope.from_hf(header(layer_types=["a"], num_hidden_layers=2)), "layer_types has 1 name; expected 2"),
    ],
)
def test_one_is_singular_in_errors(call: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        call()
    assert text in str(refused.value)
    assert complaints(str(refused.value)) == []


def test_a_key_that_a_default_lacks_is_named_by_where_it_would_stand() -> None:
    default = Keys({}, "rope_scaling", label="default of model_type 'llama'")
    assert default.source("factor") == "default of model_type 'llama'"
    assert default.lacking("factor") == "rope_scaling.factor"


def test_a_rope_of_arguments_is_explained_in_sentences() -> None:
    for rope in (
        rn.Rope(2),
        rn.Rope(64, layout_out="half", max_position=1),
        rn.Rope(64, frequencies=rn.Frequencies([1.0])),
    ):
        assert complaints(explain(rope)) == []
