"""Every refusal of the config.json reader: the exception and its one line, which names the key by its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from rope_numba.models.hf import read_hf, read_hf_layers
from rope_numba.models.hf.defaults import NO_ROTATION, REFUSED_MODELS

LLAMA: dict[str, Any] = {"model_type": "llama", "head_dim": 64, "max_position_embeddings": 4096, "rope_theta": 1e4}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LONG: dict[str, Any] = {
    "type": "longrope",
    "short_factor": [1.0] * 32,
    "long_factor": [2.0] * 32,
    "original_max_position_embeddings": 1024,
}
LLAMA_3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
GEMMA: dict[str, Any] = {"model_type": "gemma3_text", "head_dim": 64}
PARAMS: dict[str, Any] = {"dim": 128, "n_heads": 2, "rope_theta": 1e4}
RELAXED = " (strict=False reads on without it)"
HAND = "rope_numba.Frequencies(inv_freq=...)"


def scaled(**rope: Any) -> dict[str, Any]:
    return {**LLAMA, "rope_scaling": rope}


# What is read, the exception, its text.
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    # A model without rotation
    (
        {"model_type": "gpt2"},
        ValueError,
        "model_type is 'gpt2', which has no rotary position embeddings: it has learned positions",
    ),
    (
        {"model_type": "bloom"},
        ValueError,
        "model_type is 'bloom', which has no rotary position embeddings: it has biases by distance (ALiBi)",
    ),
    (
        {"model_type": "mamba"},
        ValueError,
        "model_type is 'mamba', which has no rotary position embeddings: it is recurrent and has no positions",
    ),
    (
        {"model_type": "t5"},
        ValueError,
        "model_type is 't5', which has no rotary position embeddings: it has relative positions",
    ),
    (
        {"model_type": "bert"},
        ValueError,
        "model_type is 'bert', which has no rotary position embeddings: it has learned positions",
    ),
    (
        {"model_type": "kimi_linear"},
        ValueError,
        "model_type is 'kimi_linear', which has no rotary position embeddings: its attention layers have no positions",
    ),
    (
        {"model_type": "falcon", "alibi": True},
        ValueError,
        "alibi is True, so the model has no rotary position embeddings",
    ),
    (
        {"model_type": "novel", "rope_theta": 1e4, "position_embedding_type": "alibi"},
        ValueError,
        "position_embedding_type is 'alibi', and rope_theta is 10000.0; expected 'rotary' or 'rope'" + RELAXED,
    ),
    (
        {"model_type": "esm", "position_embedding_type": "absolute"},
        ValueError,
        "position_embedding_type is 'absolute'; expected 'rotary', as RoPE is used only then",
    ),
    (
        {"model_type": "granitemoehybrid"},
        ValueError,
        "position_embedding_type is None; expected 'rope', as RoPE is used only then",
    ),
    (
        {"model_type": "zamba2", "use_mem_rope": False},
        ValueError,
        "use_mem_rope is False; expected True, as RoPE is used only then",
    ),
    (
        {"model_type": "olmo_hybrid", "rope_parameters": {"rope_theta": None}},
        ValueError,
        "rope_theta is missing; expected it, as models of type 'olmo_hybrid' use RoPE only with it",
    ),
    (
        {"model_type": "smollm3", "num_hidden_layers": 2, "no_rope_layers": [0, 0]},
        ValueError,
        "no_rope_layers leaves no layer that rotates; expected a model with rotary embeddings",
    ),
    (
        {"model_type": "cohere2", "layer_types": ["full_attention"]},
        ValueError,
        "layer_types leaves no layer that rotates; expected a model with rotary embeddings",
    ),
    (
        {"model_type": "qwen3_next", "layer_types": ["linear_attention"]},
        ValueError,
        "layer_types leaves no layer that rotates; expected a model with rotary embeddings",
    ),
    (
        {"model_type": "granite_swa", "layer_rope_theta": [0, 0.0]},
        ValueError,
        "layer_rope_theta leaves no layer that rotates; expected a model with rotary embeddings",
    ),
    # A model that rotates in a way of its own
    (
        {"model_type": "molmo2"},
        ValueError,
        "model_type is 'molmo2', which rotates in a way of its own (some of its layers are scaled "
        f"and some are not); expected another model, or {HAND} made by hand",
    ),
    # A type that nobody knows
    (
        {"model_type": "novel", "head_dim": 64},
        ValueError,
        "model_type is 'novel', which is unknown, and no key speaks of RoPE; expected rope_theta, "
        "rope_parameters or rope_scaling",
    ),
    (
        {},
        ValueError,
        "model_type is missing, and no key speaks of RoPE; expected rope_theta, rope_parameters or rope_scaling, and "
        "layout=",
    ),
    ({"model_type": 5}, TypeError, "model_type is 5; expected a name"),
    ({"architectures": [["x"]]}, TypeError, "architectures[0] is ['x']; expected a name"),
    # The dict
    ({**LLAMA, "rope_scaling": [1]}, TypeError, "rope_scaling is [1]; expected an object or null"),
    ({**LLAMA, "rope_parameters": "yarn"}, TypeError, "rope_parameters is 'yarn'; expected an object or null"),
    (
        {
            **LLAMA,
            "rope_scaling": {"type": "linear", "factor": 2.0},
            "rope_parameters": {"rope_type": "linear", "factor": 4.0},
        },
        ValueError,
        f"rope_scaling.factor is 2.0, but rope_parameters.factor is 4.0; expected the same{RELAXED}",
    ),
    (
        scaled(type="linear", factor=2.0, facktor=3.0),
        ValueError,
        f"rope_scaling.facktor is not a known key of scheme 'linear'{RELAXED}",
    ),
    (
        scaled(type="linear", factor=2.0, **{"a\nb": 3.0}),
        ValueError,
        f"rope_scaling.'a\\nb' is not a known key of scheme 'linear'{RELAXED}",
    ),
    (
        scaled(factor=4.0),
        ValueError,
        f"rope_scaling.rope_type is missing; expected the scheme that the other keys belong to{RELAXED}",
    ),
    (scaled(type=5), TypeError, "rope_scaling.type is 5; expected the name of a scheme"),
    (scaled(rope_type=["yarn"]), TypeError, "rope_scaling.rope_type is ['yarn']; expected the name of a scheme"),
    (
        scaled(type="novel", factor=2.0),
        ValueError,
        f"rope_scaling.type is 'novel', which is not known; expected ready-made frequencies, {HAND}",
    ),
    (
        scaled(rope_type="axial"),
        ValueError,
        "rope_scaling.rope_type is 'axial', which is not here (it turns patches of an image by row "
        f"and column); expected ready-made frequencies, {HAND}",
    ),
    (
        scaled(rope_type="ntk", factor=2.0),
        ValueError,
        "rope_scaling.rope_type is 'ntk', which is not here (the type of this name in vLLM is "
        f"another rule than NTK-aware scaling, which frequencies.ntk is); expected ready-made frequencies, {HAND}",
    ),
    # Its numbers
    (scaled(type="linear", factor=0.5), ValueError, "rope_scaling.factor is 0.5; expected 1 or more"),
    (scaled(type="linear", factor="2"), TypeError, "rope_scaling.factor is '2'; expected a number, 1 or more"),
    (scaled(type="linear", factor=True), TypeError, "rope_scaling.factor is True; expected a number, 1 or more"),
    (
        scaled(type="linear", factor=float("nan")),
        ValueError,
        "rope_scaling.factor is nan; expected a finite number, 1 or more",
    ),
    (scaled(type="linear"), ValueError, "rope_scaling.factor is missing; expected a number, 1 or more"),
    (scaled(type="dynamic", factor=-1), ValueError, "rope_scaling.factor is -1.0; expected 1 or more"),
    (
        {"model_type": "novel", "head_dim": 64, "rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        ValueError,
        "max_position_embeddings is missing; expected the trained length, in positions",
    ),
    (scaled(type="dynamic", alpha=-3.0), ValueError, "rope_scaling.alpha is -3.0; expected 1 or more"),
    (
        {
            "model_type": "novel",
            "head_dim": 64,
            "rope_theta": 1e4,
            "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 64},
        },
        ValueError,
        "rope_scaling.factor is missing; expected a number, 1 or more",
    ),
    (
        scaled(**{**YARN, "beta_fast": 1.0, "beta_slow": 2.0}),
        ValueError,
        "rope_scaling.beta_fast is 1.0; expected beta_slow, 2.0, or more",
    ),
    (scaled(**YARN, beta_slow=-1), ValueError, "rope_scaling.beta_slow is -1.0; expected a finite number above 0"),
    (scaled(**YARN, truncate="yes"), TypeError, "rope_scaling.truncate is 'yes'; expected True or False"),
    (
        scaled(**YARN, attention_factor=0),
        ValueError,
        "rope_scaling.attention_factor is 0.0; expected a finite number above 0",
    ),
    (scaled(**YARN, mscale=-1.0), ValueError, "rope_scaling.mscale is -1.0; expected 0 or more"),
    (
        scaled(**YARN, extrapolation_factor=0.5),
        ValueError,
        "rope_scaling.extrapolation_factor is 0.5; expected 1, the only one that is supported",
    ),
    (scaled(**YARN, attn_factor="x"), TypeError, "rope_scaling.attn_factor is 'x'; expected a number above 0"),
    (
        scaled(**YARN, llama_4_scaling_beta=-0.1),
        ValueError,
        "rope_scaling.llama_4_scaling_beta is -0.1; expected a finite number above 0",
    ),
    (
        scaled(**{**YARN, "original_max_position_embeddings": 0}),
        ValueError,
        "rope_scaling.original_max_position_embeddings is 0; expected 1 position or more",
    ),
    (
        scaled(**{**YARN, "original_max_position_embeddings": 1024.0}),
        TypeError,
        "rope_scaling.original_max_position_embeddings is 1024.0; expected an int",
    ),
    (
        {"model_type": "novel", "head_dim": 64, "rope_theta": 1e4, "rope_scaling": {"type": "yarn", "factor": 2.0}},
        ValueError,
        "rope_scaling.original_max_position_embeddings is missing; expected a number of positions",
    ),
    (
        scaled(**{**LONG, "short_factor": [1.0] * 31}),
        ValueError,
        "rope_scaling.short_factor has shape (31,); expected (32,), one number for each pair",
    ),
    (
        scaled(**{**LONG, "long_factor": [0.0] * 32}),
        ValueError,
        "rope_scaling.long_factor[0] is 0.0; expected a finite number above 0",
    ),
    (
        scaled(**{**LONG, "long_factor": "1"}),
        TypeError,
        "rope_scaling.long_factor is '1'; expected 32 numbers above 0, one for each pair",
    ),
    (
        scaled(type="longrope", long_factor=[1.0] * 32),
        ValueError,
        "rope_scaling.short_factor is missing; expected a list of numbers, one for each pair",
    ),
    (
        scaled(**{**LLAMA_3, "high_freq_factor": 0.5}),
        ValueError,
        "rope_scaling.high_freq_factor is 0.5; expected low_freq_factor, 1.0, or more",
    ),
    (
        scaled(**{**LLAMA_3, "low_freq_factor": None}),
        ValueError,
        "rope_scaling.low_freq_factor is missing; expected a number above 0",
    ),
    (
        scaled(type="proportional", partial_rotary_factor=0.01),
        ValueError,
        "rope_scaling.partial_rotary_factor is 0.01; expected enough for one of 32 pairs",
    ),
    (
        scaled(rope_type="default", rope_theta=-1),
        ValueError,
        "rope_scaling.rope_theta is -1.0; expected a finite number above 0",
    ),
    ({**LLAMA, "rope_theta": "1e6"}, TypeError, "rope_theta is '1e6'; expected a number above 0"),
    (
        {**LLAMA, "rope_theta": 1},
        ValueError,
        "rope_theta is 1.0; expected another number above 0, as all pairs would turn alike",
    ),
    (
        {**LLAMA, "max_position_embeddings": -5},
        ValueError,
        "max_position_embeddings is -5; expected 1 to 9007199254740992 positions",
    ),
    # Several axes
    (
        {"model_type": "qwen2_vl", "head_dim": 64},
        ValueError,
        "mrope_section is missing; expected 3 numbers of pairs, whose sum is 32, as the usual [16, "
        "24, 24] does not fit",
    ),
    (
        {"model_type": "qwen2_vl", "head_dim": 64, "rope_scaling": {"type": "mrope"}},
        ValueError,
        "rope_scaling.mrope_section is missing; expected 3 numbers of pairs, whose sum is 32, as the "
        "usual [16, 24, 24] does not fit",
    ),
    (
        {"model_type": "qwen2_vl", "head_dim": 64, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
        ValueError,
        "rope_scaling.mrope_section is [16, 24, 24]; expected 3 numbers of pairs, for time, height "
        "and width, whose sum is 32",
    ),
    (
        {"model_type": "qwen2_vl", "head_dim": 64, "rope_scaling": {"type": "mrope", "mrope_section": "16"}},
        TypeError,
        "rope_scaling.mrope_section is '16'; expected 3 numbers of pairs, for time, height and width",
    ),
    (
        {"model_type": "qwen2_vl", "head_dim": 64, "rope_scaling": {"type": "mrope", "mrope_section": [1.0]}},
        TypeError,
        "rope_scaling.mrope_section[0] is 1.0; expected 3 numbers of pairs, for time, height and width",
    ),
    (
        {"model_type": "qwen3_vl", "head_dim": 128, "rope_scaling": {"mrope_interleaved": 1}},
        TypeError,
        "rope_scaling.mrope_interleaved is 1; expected true or false",
    ),
    # Widths
    ({**LLAMA, "head_dim": 10**12}, ValueError, "head_dim is 1000000000000; expected 2 to 65536 channels"),
    ({**LLAMA, "head_dim": 0}, ValueError, "head_dim is 0; expected 2 to 65536 channels"),
    (
        {**LLAMA, "head_dim": 63},
        ValueError,
        "head_dim is 63; expected an even number of channels, as all of them are rotated",
    ),
    ({**LLAMA, "head_dim": "64"}, TypeError, "head_dim is '64'; expected an int"),
    ({"model_type": "novel", "rope_theta": 1e4}, ValueError, "hidden_size is missing; expected it, or head_dim"),
    (
        {"model_type": "novel", "rope_theta": 1e4, "hidden_size": 64},
        ValueError,
        "num_attention_heads is missing; expected it, or head_dim",
    ),
    (
        {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 0},
        ValueError,
        "num_attention_heads is 0; expected 1 to 1000000 heads",
    ),
    (
        {"model_type": "llama", "hidden_size": 4, "num_attention_heads": 4},
        ValueError,
        "hidden_size // num_attention_heads is 1; expected 2 to 65536 channels",
    ),
    (
        {"model_type": "llama", "hidden_size": 64, "num_attention_heads": [8, 8]},
        TypeError,
        "num_attention_heads is [8, 8]; expected an int",
    ),
    (
        {**LLAMA, "partial_rotary_factor": 1.5},
        ValueError,
        "partial_rotary_factor is 1.5; expected above 0 and at most 1",
    ),
    (
        {**LLAMA, "partial_rotary_factor": 0},
        ValueError,
        "partial_rotary_factor is 0.0; expected a finite number above 0",
    ),
    (
        {**LLAMA, "partial_rotary_factor": 0.01},
        ValueError,
        "partial_rotary_factor is 0.01, or 0 of 64 channels; expected 2 channels or more",
    ),
    (
        {"model_type": "glm4", "head_dim": 128, "partial_rotary_factor": 0.7},
        ValueError,
        "partial_rotary_factor is 0.7, or 89 of 128 channels; expected an even number (transformers "
        "rotates one more, with frequencies of the odd number)",
    ),
    (
        {"model_type": "gptj", "n_embd": 64, "n_head": 4, "rotary_dim": None},
        ValueError,
        "rotary_dim is null; expected an even number of channels",
    ),
    (
        {"model_type": "gptj", "n_embd": 64, "n_head": 4, "rotary_dim": 32},
        ValueError,
        "rotary_dim is 32; expected 2 to 16 channels, which head_dim has",
    ),
    (
        {"model_type": "gptj", "n_embd": 64, "n_head": 4, "rotary_dim": 7},
        ValueError,
        "rotary_dim is 7; expected an even number of channels, as all of them are rotated",
    ),
    (
        {"model_type": "deepseek_v3", "qk_rope_head_dim": 63},
        ValueError,
        "qk_rope_head_dim is 63; expected an even number of channels, as all of them are rotated",
    ),
    (
        {"model_type": "deepseek_v3", "rope_interleave": "yes"},
        TypeError,
        "rope_interleave is 'yes'; expected true or false",
    ),
    # Layers
    (
        GEMMA,
        ValueError,
        "layer_type is None; expected 'full_attention' or 'sliding_attention', as layers of 'gemma3_text' differ",
    ),
    (
        {**GEMMA, "num_hidden_layers": 3, "layer_types": ["full_attention", "full_attention", "novel"]},
        ValueError,
        "layer_types names 'novel'; expected one of 'full_attention', 'sliding_attention', which have values",
    ),
    (
        {**GEMMA, "num_hidden_layers": 3, "layer_types": ["full_attention"]},
        ValueError,
        "layer_types has 1 name; expected 3",
    ),
    ({**GEMMA, "layer_types": []}, ValueError, "layer_types has 0 names; expected at least 1"),
    (
        {**GEMMA, "layer_types": "full_attention"},
        TypeError,
        "layer_types is 'full_attention'; expected a list of names, one for each layer",
    ),
    ({**GEMMA, "layer_types": [1]}, TypeError, "layer_types[0] is 1; expected a list of names, one for each layer"),
    ({**GEMMA, "num_hidden_layers": 10**9}, ValueError, "num_hidden_layers is 1000000000; expected 1 to 10000 layers"),
    (
        {**GEMMA, "num_hidden_layers": 6, "sliding_window_pattern": 0},
        ValueError,
        "sliding_window_pattern is 0; expected 1 to 10000 layers",
    ),
    (
        {**GEMMA, "num_hidden_layers": 6, "sliding_window_pattern": "LLX"},
        ValueError,
        "sliding_window_pattern is 'LLX'; expected a word of the letters L and G",
    ),
    (
        {"model_type": "smollm3", "no_rope_layers": 4},
        TypeError,
        "no_rope_layers is 4; expected a list of 1 for layers that rotate and 0 for those that do not",
    ),
    (
        {"model_type": "smollm3", "no_rope_layers": [1, 2]},
        ValueError,
        "no_rope_layers is [1, 2]; expected only 1 (rotates) and 0 (does not)",
    ),
    (
        {"model_type": "smollm3", "no_rope_layers": [1], "num_hidden_layers": 2},
        ValueError,
        "no_rope_layers has 1 entry; expected 2, one for each layer",
    ),
    (
        {"model_type": "laguna", "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
        ValueError,
        "rope_parameters is one dict, but layers differ; expected a dict for each layer type",
    ),
    (
        {**LLAMA, "rope_local_base_freq": 1e4, "rope_scaling": YARN},
        ValueError,
        "rope_scaling is one dict, but layers differ; expected a dict for each layer type",
    ),
    (
        {**LLAMA, "rope_parameters": {"a": {"rope_type": "default"}, "factor": 2.0}},
        ValueError,
        f"rope_parameters.factor is 2.0; expected only dicts for layer types beside each other{RELAXED}",
    ),
    (
        {**LLAMA, "rope_parameters": {5: {"rope_type": "default"}}},
        TypeError,
        "rope_parameters has the key 5; expected names of layer types",
    ),
    (
        {**GEMMA, "rope_parameters": {"full_attention": {"type": "linear", "factor": 0}}},
        ValueError,
        "rope_parameters.full_attention.factor is 0.0; expected 1 or more",
    ),
    (
        {**LLAMA, "rope_theta": [1e4, "x"]},
        TypeError,
        "rope_theta[1] is 'x'; expected a list of numbers, one for each layer",
    ),
    ({**LLAMA, "rope_theta": [1e4], "num_hidden_layers": 2}, ValueError, "rope_theta has 1 number; expected 2"),
    (
        {**LLAMA, "rope_theta": [1e4, 1e5]},
        ValueError,
        "rope_theta[1] is 100000.0, but rope_theta[0] is 10000.0; expected layers of type 'all' to be alike",
    ),
    # Where the language model stands
    (
        {"model_type": "llava", "text_config": {"model_type": "gpt2"}},
        ValueError,
        "text_config.model_type is 'gpt2', which has no rotary position embeddings: it has learned positions",
    ),
    (
        {"model_type": "llava", "text_config": {**LLAMA, "head_dim": 3}},
        ValueError,
        "text_config.head_dim is 3; expected an even number of channels, as all of them are rotated",
    ),
    # params.json
    (
        {**PARAMS, "rope_theta": None},
        ValueError,
        "rope_theta is missing; expected it, as programs take different ones for granted",
    ),
    (
        {**PARAMS, "qk_rope_head_dim": 64},
        ValueError,
        "qk_rope_head_dim is 64; expected the config.json instead, for latent attention",
    ),
    (
        {**PARAMS, "use_scaled_rope": True},
        ValueError,
        "use_scaled_rope is True; expected the config.json instead, for Meta's models",
    ),
    (
        {**PARAMS, "yarn": {"factor": 2.0, "original_max_position_embeddings": 64, "gamma": 1}},
        ValueError,
        f"yarn.gamma is not a known key of scheme 'yarn'{RELAXED}",
    ),
    (
        {**PARAMS, "yarn": {"factor": 0.1, "original_max_position_embeddings": 64}},
        ValueError,
        "yarn.factor is 0.1; expected 1 or more",
    ),
    (
        {**PARAMS, "yarn": {"factor": 2.0}},
        ValueError,
        "yarn.original_max_position_embeddings is missing; expected a number of positions",
    ),
    ({**PARAMS, "yarn": {"apply_scale": 1}}, TypeError, "yarn.apply_scale is 1; expected true or false"),
    (
        {**PARAMS, "llama_4_scaling": {"beta": 0.1}},
        ValueError,
        "llama_4_scaling is {'beta': 0.1}; expected beta and original_max_position_embeddings",
    ),
    ({**PARAMS, "n_heads": "2"}, TypeError, "n_heads is '2'; expected an int"),
]


def stated(config: dict[str, Any]) -> Literal["half"] | None:
    """Return the layout that an unknown type is read with, so that what is wrong besides comes to light."""
    return "half" if config.get("model_type") == "novel" else None


@pytest.mark.parametrize(("config", "kind", "text"), REFUSED, ids=[text[:60] for _, _, text in REFUSED])
def test_what_is_refused_is_told_in_one_line_that_names_the_key(
    config: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as refused:
        read_hf(config, layout=stated(config))
    assert type(refused.value) is kind
    assert str(refused.value) == text


@pytest.mark.parametrize("kind", sorted(NO_ROTATION))
def test_every_type_without_rotation_is_refused_however_it_is_read(kind: str) -> None:
    for read in (read_hf, read_hf_layers):
        with pytest.raises(ValueError, match="which has no rotary position embeddings"):
            read({"model_type": kind, "head_dim": 64}, strict=False)
        with pytest.raises(ValueError, match=r"which has no rotary position embeddings|but rope_theta is 10000"):
            read({"model_type": kind, "rope_theta": 1e4, "head_dim": 64}, strict=False)


@pytest.mark.parametrize("kind", sorted(REFUSED_MODELS))
def test_every_type_with_a_rotation_of_its_own_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="which rotates in a way of its own"):
        read_hf({"model_type": kind, "rope_theta": 1e4, "head_dim": 64}, strict=False)


@pytest.mark.parametrize(
    ("layer_type", "kind", "text"),
    [
        ("novel", ValueError, "layer_type is 'novel'; expected 'full_attention' or None, if all rotate alike"),
        (5, TypeError, "layer_type is 5; expected a name or None"),
    ],
)
def test_a_layer_type_that_is_not_there_is_refused(layer_type: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as refused:
        read_hf({**LLAMA, "layer_types": ["full_attention"] * 2}, layer_type=layer_type)
    assert str(refused.value) == text


def test_a_layer_type_that_does_not_rotate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^layer_type is 'full_attention'; expected another, as those layers are not"):
        read_hf({"model_type": "cohere2"}, layer_type="full_attention")


@pytest.mark.parametrize(
    ("seq_len", "kind", "text"),
    [
        (0, ValueError, "seq_len is 0; expected 1 to 2**53 positions"),
        (2**53 + 1, ValueError, "seq_len is 9007199254740993; expected 1 to 2**53 positions"),
        (1.0, TypeError, "seq_len is 1.0; expected an int"),
        (True, TypeError, "seq_len is True; expected an int"),
    ],
)
def test_a_length_that_is_none_is_refused(seq_len: Any, kind: type[Exception], text: str) -> None:
    for read in (read_hf, read_hf_layers):
        with pytest.raises(kind) as refused:
            read(LLAMA, seq_len=seq_len)
        assert str(refused.value) == text


def test_a_length_beyond_the_models_is_told() -> None:
    assert read_hf(LLAMA, seq_len=5000).conflicts == ("seq_len is 5000, but the model is offered for 4096 positions.",)


@pytest.mark.parametrize("strict", [None, 1, "no"])
def test_strict_is_a_bool(strict: Any) -> None:
    for config in (LLAMA, PARAMS):
        with pytest.raises(TypeError) as refused:
            read_hf(config, strict=strict)
        assert str(refused.value) == f"strict is {strict!r}; expected True or False"


class Broken:
    def to_dict(self) -> str:
        return "no dict"


@pytest.mark.parametrize("config", [5, None, [1], b"path", Broken()])
def test_what_is_no_configuration_is_refused(config: Any) -> None:
    with pytest.raises(TypeError, match=r"^config is .*; expected a path, a dict or a configuration object$"):
        read_hf(config)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "config.json is not JSON (Expecting value: line 1 column 1 (char 0)); expected a configuration file"),
        (b"[1, 2]", "config.json holds [1, 2]; expected a JSON object"),
        (b'"text"', "config.json holds 'text'; expected a JSON object"),
        (
            b'{"a": 1',
            "config.json is not JSON (Expecting ',' delimiter: line 1 column 8 (char 7)); expected a "
            "configuration file",
        ),
        (
            b'{"rope_theta": 1.0, "rope_theta": 2.0}',
            "config.json has the key 'rope_theta' twice, as 1.0 and as 2.0; expected each key once",
        ),
        (
            b'{"rope_scaling": {"type": "a", "type": "b"}}',
            "config.json has the key 'type' twice, as 'a' and as 'b'; expected each key once",
        ),
        (b'{"model_type": "llama", "rope_theta": NaN}', "rope_theta is nan; expected a finite number above 0"),
        (b'{"model_type": "llama", "rope_theta": Infinity}', "rope_theta is inf; expected a finite number above 0"),
        (b'{"model_type": "llama", "rope_theta": 1e999}', "rope_theta is inf; expected a finite number above 0"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the whole text is compared)
        read_hf(tmp_path)
    assert str(refused.value) == text


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", b"{" + b'"a":{' * 50_000 + b"}" * 50_001])
def test_a_file_of_other_bytes_or_endless_depth_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^config\.json is (not JSON|nested too deeply).*configuration file$"
    ) as refused:
        read_hf(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "head_dim": ' + "9" * 5000 + "}")
    with pytest.raises(ValueError, match=r"^(config\.json is not JSON|head_dim is)"):
        read_hf(tmp_path)


def test_a_dict_of_endless_depth_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"type": deep}
    for config in ({**LLAMA, "rope_scaling": deep}, {"text_config": deep}, {**LLAMA, "rope_scaling": {"type": deep}}):
        with pytest.raises((ValueError, TypeError)) as refused:
            read_hf(config)
        assert "\n" not in str(refused.value)
    while deep:  # or Python's own clean-up would go as deep
        deep = deep["type"]


def test_equal_keys_may_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rope_theta": 1e5, "rope_theta": 100000.0}')
    assert read_hf(tmp_path).unscaled == read_hf({"model_type": "llama", "rope_theta": 1e5}).unscaled


def test_a_missing_file_is_an_error_of_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hf(tmp_path / "config.json")


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected one that holds config\.json or params\.json$"):
        read_hf(tmp_path)


def test_a_gguf_file_is_for_the_other_reader(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="GGUF files have a reader of their own"):
        read_hf(tmp_path / "model.gguf")


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**34)  # sparse: it takes no room
    with pytest.raises(ValueError, match=r"has more than 16777216 bytes; expected a configuration file$"):
        read_hf(path)


def test_an_unfit_value_is_refused_without_strict_too() -> None:
    with pytest.raises(ValueError, match=r"^rope_scaling\.factor is 0\.5; expected 1 or more$"):
        read_hf(scaled(type="linear", factor=0.5), strict=False)


def test_every_text_of_this_file_survives_a_round_through_json() -> None:
    for config, kind, text in REFUSED:
        if 5 in list(config.get("rope_parameters") or ()):
            continue  # JSON has only names for keys
        with pytest.raises(kind) as refused:
            read_hf(json.loads(json.dumps(config)), layout=stated(config))
        assert str(refused.value) == text


@pytest.mark.parametrize("name", ["rope_tetha", "rope_foo", "rotary_base_freq", "partial_rotation_factor"])
def test_a_misspelt_key_beside_the_dict_is_refused_and_only_warned_of_if_not_strict(name: str) -> None:
    config = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, name: 1e6}
    message = f"{name} is 1000000.0, which is not a known key of RoPE"
    with pytest.raises(ValueError, match=rf"^{name} is 1000000\.0, which is not a known key of RoPE \(strict=False"):
        read_hf(config)
    with pytest.warns(UserWarning, match=name):
        header = read_hf(config, strict=False)
    assert f"{message}: it was left out." in header.conflicts
    assert (
        read_hf({**config, name: None}).conflicts == read_hf({k: v for k, v in config.items() if k != name}).conflicts
    )
