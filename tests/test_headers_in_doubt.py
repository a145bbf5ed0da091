"""Nothing wrong in silence: what a header leaves in doubt is refused with the way on, or warned of where it is guessed.

The right values are those of each model's own code: transformers 5.24.0, vLLM for hy_v4, Ollama for its own files.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_files import HEAD_128, Write, written

import rope_numba as rn
from rope_numba.models.architectures import ARCHITECTURES, DIALECTS
from rope_numba.models.gguf import read_gguf, read_gguf_layers
from rope_numba.models.hf import read_hf, read_hf_layers
from rope_numba.models.hf.types import MODELS

SIZES: dict[str, Any] = {"hidden_size": 1024, "num_attention_heads": 8}
THETA: dict[str, Any] = {**SIZES, "rope_theta": 1e4}
NOVEL: dict[str, Any] = {"model_type": "novel", **THETA}
STRICT = pytest.mark.parametrize("strict", [True, False])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(written, tmp_path / "m.gguf")


def refusal(config: dict[str, Any], **how: Any) -> str:
    """Return the one line with which a configuration is refused, by both readers."""
    lines = set()
    for read in (read_hf, read_hf_layers):
        with pytest.raises(ValueError, match=r"; expected |so the model has no|has no rotary position") as refused:
            read(config, **how)
        lines.add(str(refused.value))
    (line,) = lines
    assert "\n" not in line
    return line


# --- types that no table knows


@pytest.mark.parametrize("config", [NOVEL, {**NOVEL, "model_type": None}, {"architectures": ["NovelModel"], **THETA}])
def test_an_unknown_type_is_refused_with_layout_as_the_way_on(config: dict[str, Any]) -> None:
    assert "layout= ('half' or 'interleaved'), or strict=False, which assumes 'half'" in refusal(config)


@pytest.mark.parametrize("turns", [True, False])
def test_the_key_of_qwen3_tts_says_whether_sections_take_turns(turns: bool) -> None:
    rope = {"type": "default", "mrope_section": [24, 20, 20], "interleaved": turns}
    header = read_hf({**NOVEL, "rope_scaling": rope}, layout="half")
    assert header.conflicts == ()
    expected = ([0, 1, 2] * 20 + [0] * 4) if turns else [0] * 24 + [1] * 20 + [2] * 20
    assert header.frequencies.streams.tolist() == expected
    with pytest.raises(ValueError, match="interleaved is not a known key"):
        read_hf({**NOVEL, "rope_scaling": {"type": "linear", "factor": 2.0, "interleaved": True}}, layout="half")


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_a_stated_layout_reads_an_unknown_type_without_a_warning_where_nothing_else_is_guessed(layout: Any) -> None:
    header = read_hf(NOVEL, layout=layout)
    assert (header.layout, header.conflicts) == (layout, ())
    assert {fact.name: fact.source for fact in header.facts}["layout"] == "argument layout"
    assert rn.Rope.from_hf(NOVEL, layout=layout).layout == layout
    assert rn.ropes_from_hf(NOVEL, layout=layout).ropes["all"].layout == layout


def test_an_unknown_type_without_strict_warns_that_its_layout_is_a_guess() -> None:
    with pytest.warns(UserWarning, match="layout 'half' was assumed"):
        assert read_hf(NOVEL, strict=False).layout == "half"


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ({"rope_theta": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "10000 was assumed"),
        ({"partial_rotary_factor": 0.5}, "transformers ignores for most model types"),
        ({"rope_scaling": {"mrope_section": [32, 16, 16]}}, "blocks were assumed"),
    ],
)
def test_whatever_else_is_guessed_of_an_unknown_type_is_warned_of(more: dict[str, Any], warning: str) -> None:
    with pytest.warns(UserWarning, match=warning):
        read_hf({**NOVEL, **more}, layout="half")


def test_a_layout_goes_before_what_is_known_and_the_difference_is_told() -> None:
    header = read_hf({"model_type": "llama", **THETA}, layout="interleaved")
    assert header.layout == "interleaved"
    assert header.conflicts == ("layout is 'interleaved', where the file says 'half': it was followed.",)


@pytest.mark.parametrize("layout", ["neox", 1, True])
def test_what_is_no_layout_is_refused(layout: Any, write: Write) -> None:
    for read, source in ((read_hf, NOVEL), (read_gguf, write("llama", **HEAD_128))):
        with pytest.raises(ValueError, match=r"^layout is .*; expected 'interleaved', 'half' or None$"):
            read(source, layout=layout)


@pytest.mark.parametrize("kind", [{}, {"model_type": "novel"}])
@pytest.mark.parametrize(
    ("name", "model"),
    [("CohereForCausalLM", "cohere"), ("GPTNeoXForCausalLM", "gpt_neox"), ("Qwen2MoeForCausalLM", "qwen2_moe")],
)
def test_a_class_stands_for_a_type_that_is_missing_or_unknown(kind: dict[str, Any], name: str, model: str) -> None:
    header = read_hf({**kind, "architectures": [name], **THETA})
    assert (header.model, header.layout) == (model, MODELS[model].layout)


@STRICT
@pytest.mark.parametrize("kind", ["llama", "novel", None])
@pytest.mark.parametrize("name", ["BaichuanForCausalLM", "QWenLMHeadModel", "ChatGLMModel"])
def test_a_refused_class_stays_refused_under_another_type(kind: str | None, name: str, strict: bool) -> None:
    config = {"model_type": kind, "architectures": [name], **THETA}
    assert "which rotates in a way of its own" in refusal(config, strict=strict)


def test_a_class_of_another_layout_than_the_types_is_a_contradiction() -> None:
    config = {"model_type": "llama", "architectures": ["CohereForCausalLM"], **THETA}
    assert "layout=" in refusal(config)
    assert read_hf(config, layout="interleaved").layout == "interleaved"
    with pytest.warns(UserWarning, match="layout 'half' was taken"):
        assert read_hf(config, strict=False).layout == "half"


def test_one_class_in_the_place_of_a_list_is_read() -> None:
    header = read_hf({"architectures": "CohereForCausalLM", **THETA})
    assert (header.model, header.layout) == ("cohere", "interleaved")
    assert refusal({"architectures": "NovelModel", **THETA}).startswith(
        "architectures is 'NovelModel', which is unknown"
    )


@pytest.mark.parametrize("around", ["foo_vl", "internvl", "llava", None])
def test_a_class_within_the_text_part_goes_before_the_type_around_it(around: str | None) -> None:
    def read(name: str) -> Any:
        text = {"llm_config": {**SIZES, "rope_theta": 1e6, "num_hidden_layers": 8, "architectures": [name]}}
        return read_hf_layers({"model_type": around, **text})

    assert read("CohereForCausalLM").headers["all"].layout == "interleaved"
    assert read("Cohere2ForCausalLM").layers == ("all", "all", "all", None) * 2
    assert read("SmolLM3ForCausalLM").layers == ("all", "all", "all", None) * 2
    assert list(read("Gemma3ForCausalLM").headers) == ["sliding_attention", "full_attention"]
    with pytest.raises(ValueError, match="which rotates in a way of its own"):
        read("QWenLMHeadModel")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "SmolLM3ForCausalLM"),  # layers without rotation
        ("llama", "GPTNeoXForCausalLM"),  # a quarter of each head
        ("llama", "Gemma3ForCausalLM"),  # two bases
        ("llama", "BloomForCausalLM"),  # ALiBi
        ("llama", "Exaone4ForCausalLM"),
        ("qwen2", "NanoChatForCausalLM"),  # the other sense of rotation
        ("qwen2", "Qwen3NextForCausalLM"),  # layers without attention
        ("qwen2", "Qwen2VLForConditionalGeneration"),  # three positions
        ("cohere", "Cohere2ForCausalLM"),
        ("deepseek_v2", "LlamaForCausalLM"),
    ],
)
def test_a_class_that_rotates_otherwise_than_the_type_is_a_contradiction(kind: str, name: str) -> None:
    config = {"model_type": kind, "architectures": [name], **THETA}
    for layout in (None, "half"):
        assert refusal(config, layout=layout) == (
            f"architectures[0], '{name}', is a class that rotates otherwise or not at all, but model_type is '{kind}'; "
            "expected one model, or strict=False"
        )
    with pytest.warns(UserWarning, match=f"model_type is '{kind}': the second was taken"):
        assert read_hf(config, strict=False).model == kind


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("mistral", "LlamaForCausalLM", {}),
        ("exaone", "LlamaForCausalLM", {}),
        ("kimi_k2", "DeepseekV3ForCausalLM", {}),
        ("sarvam_moe", "Glm4MoeForCausalLM", {}),
        ("qwen2_vl_text", "Qwen2VLForConditionalGeneration", {}),
        ("llama4_text", "Llama4ForCausalLM", {}),
        ("llama", "GPTNeoXForCausalLM", {"rotary_pct": 1.0}),
        ("gemma3_text", "Gemma3ForConditionalGeneration", {}),
        ("xlm-roberta", "XLMRobertaModel", {"position_embedding_type": "rotary"}),
    ],
)
def test_a_class_that_rotates_as_the_type_does_is_none(kind: str, name: str, more: dict[str, Any]) -> None:
    config = {"model_type": kind, **THETA, "head_dim": 128, **more}
    with_class = read_hf_layers({**config, "architectures": [name]})
    assert with_class == read_hf_layers(config)


# --- encoders of images and sound

TOWERS: list[dict[str, Any]] = [
    {"model_type": "qwen3_vl", "depth": 27, "hidden_size": 1152, "num_heads": 16, "patch_size": 16},
    {"model_type": "qwen2_vl", "depth": 32, "embed_dim": 1280, "num_heads": 16},
    {"model_type": "idefics3", **SIZES, "patch_size": 14, "image_size": 364},
    {**SIZES, "patch_size": 14},
    *({"model_type": name, **THETA} for name in ("pixtral", "dinov3_vit", "gemma4_vision", "llama4_vision_model")),
    *({"model_type": name, **THETA} for name in ("siglip_vision_model", "lasr_encoder", "qwen2_5_omni_audio_encoder")),
]


@STRICT
@pytest.mark.parametrize("layout", [None, "half"])
@pytest.mark.parametrize("config", TOWERS)
def test_an_encoder_of_images_or_sound_is_never_read_as_text(
    config: dict[str, Any], layout: str | None, strict: bool
) -> None:
    assert "encodes images or sound" in refusal(config, strict=strict, layout=layout)


def test_the_text_part_beside_an_encoder_is_read() -> None:
    text = {"model_type": "qwen2", **THETA}
    assert read_hf({"model_type": "novel_vl", "text_config": text, "vision_config": TOWERS[0]}).model == "qwen2"
    flat = {"model_type": "qwen2_vl", "vocab_size": 9, "head_dim": 128, "vision_config": TOWERS[1]}
    assert read_hf(flat).head_dim == 128


TEXT_TYPES = (
    *("kimi_audio", "videollama3_qwen2", "videochat_flash_qwen", "mimo_audio", "supervision_lm", "tokenizer_free_lm"),
    *("codecoder", "eclipse_lm"),
)


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_a_text_model_whose_name_speaks_of_images_or_sound_is_read_as_any_unknown_type(kind: str) -> None:
    config = {"model_type": kind, **THETA, "vocab_size": 32_000}
    assert refusal(config).endswith("or strict=False, which assumes 'half'")
    assert read_hf(config, layout="half") == replace(
        read_hf(NOVEL, layout="half"), model=kind, facts=read_hf(config, layout="half").facts
    )
    assert read_hf({"model_type": kind, "text_config": THETA}, layout="half").head_dim == 128


# --- layers


NONE_BUT_LAST = (None, None, None, "all")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mllama_text_model", "num_hidden_layers": 5, "cross_attention_layers": [0, 1, 2, 4]},
        {"model_type": "minimax_m1", "num_hidden_layers": 4, "attn_type_list": [0, 0, 0, 1], "head_dim": 64},
        {"model_type": "qwen3_next", "num_hidden_layers": 4, "full_attention_interval": 4},
        {"model_type": "qwen3_next", "num_hidden_layers": 4},
        {"model_type": "bamba", "num_hidden_layers": 4, "attn_layer_indices": [3]},
        {"model_type": "lfm2", "num_hidden_layers": 4, "full_attn_idxs": [3]},
        {"model_type": "recurrent_gemma", "num_hidden_layers": 4, "block_types": ["recurrent"] * 3 + ["attention"]},
        {"model_type": "bailing_hybrid", "num_hidden_layers": 4, "layer_group_size": 4},
        {"model_type": "qwen3_next", "layer_types": ["lightning_attention"] * 3 + ["full_attention"]},
        {**NOVEL, "num_hidden_layers": 4, "attn_type_list": [0, 0, 0, 1]},
    ],
)
def test_layers_without_rotary_attention_are_none_whichever_key_says_so(config: dict[str, Any]) -> None:
    layers = read_hf_layers(config, layout="half").layers
    assert layers[:4] == NONE_BUT_LAST


def test_mllama_has_cross_attention_where_its_class_has_it_if_no_key_says_so() -> None:
    layers = read_hf_layers({"model_type": "mllama_text_model", "num_hidden_layers": 40}).layers
    assert [index for index, layer in enumerate(layers) if layer is None] == [3, 8, 13, 18, 23, 28, 33, 38]


def test_the_first_name_of_exaone_4_5s_text_part_has_layers_without_rotation() -> None:
    text = {"model_type": "exaone4_5_text", "head_dim": 128, "num_hidden_layers": 8, "sliding_window": 4096}
    read = read_hf_layers({"model_type": "exaone4_5", "text_config": text})
    assert read.layers == ("all", "all", "all", None) * 2


def test_lara_mini_rotates_in_its_sliding_layers_alone() -> None:
    assert read_hf_layers({"model_type": "lara_mini", "num_hidden_layers": 5}).layers == (
        None,
        "all",
        None,
        None,
        "all",
    )


def test_mimo_tells_sliding_layers_by_ones() -> None:
    config = {"model_type": "mimo_v2_flash", "num_hidden_layers": 3, "hybrid_layer_pattern": [0, 1, 0]}
    assert read_hf_layers(config).layers == ("full_attention", "sliding_attention", "full_attention")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("attn_type_list", [0, 2], "attn_type_list is [0, 2]; expected only 0 and 1"),
        ("attn_type_list", [0], "attn_type_list has 1 entry; expected 2, one for each layer"),
        ("full_attn_idxs", [0, 2], "full_attn_idxs[1] is 2; expected 0 to 1"),
        ("cross_attention_layers", [-1], "cross_attention_layers[0] is -1; expected 0 to 1"),
        ("full_attention_interval", 0, "full_attention_interval is 0; expected 1 to 10000 layers"),
        ("block_types", [], "block_types has no names; expected one or more"),
    ],
)
def test_a_key_of_layers_that_cannot_be_is_refused(key: str, value: Any, line: str) -> None:
    assert refusal({**NOVEL, "num_hidden_layers": 2, key: value}, layout="half") == line


def test_a_model_that_does_not_say_which_layers_have_attention_says_that_this_is_not_known() -> None:
    read = read_hf_layers({"model_type": "minimax_m1", "num_hidden_layers": 4, "head_dim": 64, "rope_theta": 1e7})
    assert read.layers == ()
    assert any("Which layers have attention, and so rotate, is not known" in s for s in read.headers["all"].conflicts)


@pytest.mark.parametrize(
    ("key", "more"),
    [
        *((key, {key: "M-M*"}) for key in ("hybrid_override_pattern", "linear_attn_layers", "mamba_layer_interval")),
        ("no_rope_layer_interval", {"no_rope_layer_interval": 4}),
        ("nope_layer_interval", {"nope_layer_interval": 4}),
        ("attn_layer_period", {"attn_layer_period": 8, "attn_layer_offset": 4}),
        *((key, {key: [1, 3]}) for key in ("attn_layer_idx", "nope_layers", "ssm_layers", "gdn_layers", "kda_layers")),
        ("layer_pattern", {"layer_pattern": "MMA"}),
        ("mixer_types", {"mixer_types": ["gla", "attention"]}),
        ("linear_attn_config.full_attn_layers", {"linear_attn_config": {"full_attn_layers": [4], "num_heads": 8}}),
        ("attn.layers", {"attn": {"layers": [1, 3], "num_heads": 8}}),
        ("layers", {"layers": ["m", "a"]}),
        ("attn_freq", {"attn_freq": 4}),
        ("schedule", {"schedule": ["m", "m", "m", "a"]}),
        ("model.use_rope", {"model": {"use_rope": [1, 1, 1, 0]}}),
        ("use_rope", {"use_rope": [True, False]}),
    ],
)
def test_a_key_that_may_tell_of_layers_and_is_not_read_leaves_those_of_an_unknown_type_open(
    key: str, more: dict[str, Any]
) -> None:
    config = {**NOVEL, "num_hidden_layers": 4, **more}
    with pytest.warns(UserWarning, match=f"^{key} may say which layers rotate, and is not read"):
        assert read_hf_layers(config, layout="half").layers == ()


def test_keys_of_widths_experts_and_norms_say_nothing_of_layers() -> None:
    others = {
        "attention_bias": True,
        "attention_dropout": 0.1,
        "attn_layernorm": True,
        "full_attention_layernorm_eps": 1e-5,
        "moe_layer_interval": 2,
        "expert_layer_period": 2,
        "max_window_layers": 9,
        "mlp_layer_types": ["dense"] * 4,
        "num_nextn_predict_layers": 1,
        "linear_attn_config": {"num_heads": 8},
        "duration_delta_max_period": 10,
        "windows": [512, 512, 512, 0],
        "moe_layers": [0, 1, 1, 1],
        "attn_logit_softcapping": 50.0,
        "position_embedding_type": "rotary",
        "conv_kernel": 4,
        "vision_config": {"attn_layers": 4},
        "attn_layer_ids": [],
        "hybrid_layers": None,
        "use_local_attention_every": False,
    }
    header = read_hf_layers({**NOVEL, "num_hidden_layers": 4, **others}, layout="half")
    assert header.layers == ("all",) * 4


@pytest.mark.parametrize("key", ["nope_layers", "no_rope_layer_interval", "use_rope_here"])
def test_types_of_layers_do_not_say_that_all_of_them_rotate(key: str) -> None:
    config = {**NOVEL, "layer_types": ["full_attention", "sliding_attention"], "attn_layer_period": 2}
    assert read_hf_layers(config, layout="half").layers == ("all", "all")
    with pytest.warns(UserWarning, match=f"^{key} may say which layers rotate"):
        assert read_hf_layers({**config, "num_hidden_layers": 2, key: [1, 0]}, layout="half").layers == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("qwen3", "kda"),
        ("qwen3_next", "gated_delta_net"),
        ("cohere2", "nope_attention"),
        ("bamba", "retention"),
        ("novel", "deltanet"),
    ],
)
def test_a_type_of_layers_that_nobody_knows_leaves_the_layers_open(kind: str, name: str) -> None:
    config = {"model_type": kind, **THETA, "layer_types": [name, "full_attention", name, "sliding_attention"]}
    with pytest.warns(UserWarning, match=f"^layer_types names '{name}', of which nothing says whether it rotates"):
        assert read_hf_layers(config, layout="half").layers == ()


@pytest.mark.parametrize(
    "more",
    [
        *({key: 4} for key in ("full_attention_interval", "layer_group_size")),
        *({key: [1]} for key in ("attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids", "cross_attention_layers")),
        {"attn_type_list": [0, 0, 0, 1]},
        {"hybrid_layer_pattern": [0, 1, 0, 1]},
        {"block_types": ["recurrent", "attention"]},
        {"no_rope_layers": [1, 1, 1, 0]},
        {"layer_rope_theta": [1e4, 0.0, 1e4, 1e4]},
    ],
)
def test_a_known_type_does_not_look_at_keys_of_other_types_layers(more: dict[str, Any]) -> None:
    read = read_hf_layers({"model_type": "llama", **THETA, "num_hidden_layers": 4, **more})
    assert read.layers == ("all",) * 4
    (key,) = more
    assert read.headers["all"].conflicts == (f"{key}: models of type 'llama' do not look at this key.",)


@pytest.mark.parametrize("kind", ["cohere2", "flint"])
def test_without_a_window_no_layer_of_a_type_that_rotates_only_windowed_ones_does(kind: str) -> None:
    config = {"model_type": kind, **THETA, "num_hidden_layers": 8}
    assert set(read_hf_layers(config).layers) == {"all", None}
    assert refusal({**config, "sliding_window": None}) == (
        f"sliding_window is null; expected a number of positions, as layers of type '{kind}' without a window do not "
        "rotate"
    )


@pytest.mark.parametrize("key", ["nope_layer_interval", "hybrid_override_pattern"])
def test_a_params_json_with_layers_of_another_maker_is_refused_in_favour_of_the_config_json(key: str) -> None:
    params = {"dim": 1024, "n_heads": 8, "n_layers": 8, "rope_theta": 5e5, "use_scaled_rope": False}
    assert read_hf(params).layout == "interleaved"
    assert refusal({**params, key: 4}).endswith(("the config.json instead, for Meta's models", "config.json instead"))


# --- latent attention


@pytest.mark.parametrize("off", [{"use_mla": False}, {"qk_rope_head_dim": 0}, {"use_mla": False, "head_dim": 0}])
def test_latent_attention_that_is_switched_off_is_llamas(off: dict[str, Any]) -> None:
    header = read_hf({"model_type": "deepseek_v2", **THETA, **off})
    assert (header.layout, header.head_dim, header.rotary_dim, header.duties) == ("half", 128, 128, ())


def test_the_first_name_of_deepseek_vl2s_text_part_is_deepseek_v2() -> None:
    part = {**THETA, "use_mla": False, "architectures": ["DeepseekV2ForCausalLM"]}
    for named in ({}, {"model_type": "deepseek_v2"}):
        header = read_hf({"model_type": "deepseek_vl_v2", "language_config": {**part, **named}})
        assert (header.layout, header.head_dim) == ("half", 128)


def test_a_type_without_that_switch_refuses_it() -> None:
    assert refusal({"model_type": "deepseek_v3", **THETA, "use_mla": False}).startswith("use_mla is False; expected")


@pytest.mark.parametrize(
    ("kind", "architecture", "sentence"),
    [
        ("deepseek_v32", "deepseek32", "layout 'half', by"),
        ("glm_moe_dsa", "glm-dsa", "layout 'interleaved', by"),
        ("hy_v4", "hy_v4", "layout 'interleaved', in the last of their channels, by"),
    ],
)
def test_an_indexer_is_the_same_duty_in_both_readers(kind: str, architecture: str, sentence: str, write: Write) -> None:
    own = read_hf({"model_type": kind, "qk_rope_head_dim": 64})
    file = read_gguf(write(architecture, key_length=576, key_length_mla=192, rope_dimension_count=64))
    said = [[duty for duty in header.duties if "indexer" in duty] for header in (own, file)]
    assert said[0] == said[1]
    assert sentence in said[0][0]
    assert (own.layout, own.head_dim) == (file.layout, file.head_dim) == ("interleaved", 64)


def test_hy_v4_says_that_transformers_rotates_otherwise() -> None:
    (told,) = read_hf({"model_type": "hy_v4", "rope_theta": 1e7}).conflicts
    assert told.startswith("transformers' code of model_type 'hy_v4' rotates halves")


def test_the_published_name_of_youtu_is_known() -> None:
    header = read_hf({"model_type": "youtu_llm", "qk_rope_head_dim": 64, "rope_theta": 1.6e6})
    assert (header.layout, header.head_dim) == ("interleaved", 64)


def test_proportional_frequencies_of_latent_attention_stop_a_part_of_their_pairs() -> None:
    rope = {"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    header = read_hf({"model_type": "deepseek_v3", "qk_rope_head_dim": 64, "rope_parameters": rope})
    expected = [1e4 ** (-2 * pair / 64) if pair < 16 else 0.0 for pair in range(32)]
    np.testing.assert_allclose(header.frequencies.inv_freq, expected, rtol=1e-14)


def test_minimax_follows_its_checkpoint_and_says_where_transformers_differs() -> None:
    header = read_hf({"model_type": "minimax", "head_dim": 128, "rotary_dim": 64, "num_hidden_layers": 1})
    assert header.rotary_dim == 64
    assert "does not look at, and rotates 128: it was followed" in header.conflicts[0]


# --- schemes beside the dict of RoPE

CHUNKED = {
    "model_type": "qwen2",
    **THETA,
    "max_position_embeddings": 1_010_000,
    "dual_chunk_attention_config": {"chunk_size": 262_144, "original_max_position_embeddings": 262_144},
}


@pytest.mark.parametrize("seq_len", [None, 262_145])
def test_dual_chunks_are_warned_of_where_they_change_positions(seq_len: int | None) -> None:
    with pytest.warns(UserWarning, match="changes positions beyond 262144"):
        read_hf(CHUNKED, seq_len=seq_len)


def test_dual_chunks_are_noted_where_they_change_nothing() -> None:
    (told,) = read_hf(CHUNKED, seq_len=262_144).conflicts
    assert told.startswith("dual_chunk_attention_config (dual chunk attention) changes positions beyond 262144")


@pytest.mark.parametrize("key", ["use_dynamic_ntk", "use_logn_attn"])
def test_a_switch_of_another_scheme_is_warned_of(key: str) -> None:
    with pytest.warns(UserWarning, match=f"{key} is True, which changes rotation or logits by length"):
        read_hf({"model_type": "qwen2", **THETA, key: True})
    assert read_hf({"model_type": "qwen2", **THETA, key: False}).conflicts == ()


@STRICT
@pytest.mark.parametrize("key", ["rotary_emb_scale_base", "rotary_scaling_factor"])
def test_keys_of_schemes_that_are_not_here_are_refused(key: str, strict: bool) -> None:
    assert refusal({"model_type": "nomic_bert", **THETA, key: 2}, strict=strict).startswith(
        f"{key} is 2; expected null"
    )


# --- statements that must be true


@STRICT
def test_a_type_of_other_positions_with_keys_of_rope_is_not_said_to_have_none(strict: bool) -> None:
    config = {"model_type": "t5", "d_model": 768, "d_kv": 64, "num_heads": 12, "rope_theta": 1e4}
    line = refusal(config, strict=strict)
    assert "has no rotary position embeddings" not in line
    assert "rope_theta is 10000.0" in line
    assert "layout=" in line
    assert read_hf(config, layout="half").head_dim == 64


def test_the_first_configuration_of_jina_v3_is_read() -> None:
    config = {"model_type": "xlm-roberta", **SIZES, "position_embedding_type": "rotary", "rotary_emb_base": 2e4}
    header = read_hf(config)
    assert (header.layout, header.frequencies) == ("half", rn.frequencies.default(128, 2e4))
    learned = refusal({**config, "position_embedding_type": "absolute", "rotary_emb_base": None})
    assert learned.endswith("which has no rotary position embeddings: it has learned positions")


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"model_type": "mpt", "attn_config": {"rope": True, "rope_theta": 1e4}}, "attn_config.rope is True"),
        ({"model_type": "t5gemma", "encoder": {"rope_theta": 1e4}}, "only encoder speaks of RoPE"),
        (
            {"model_type": "colqwen2", "vlm_config": {"text_config": {"rope_theta": 1e6}}},
            "only vlm_config.text_config speaks of RoPE",
        ),
        (
            {"model_type": "qwen3_tts", "talker_config": {"rope_theta": 1e6}, "vision_config": {"rope_theta": 1e4}},
            "only talker_config speaks of RoPE",
        ),
    ],
)
@STRICT
def test_a_dict_within_that_speaks_of_rope_is_named(config: dict[str, Any], where: str, strict: bool) -> None:
    line = refusal(config, strict=strict)
    assert where in line
    assert "no key speaks" not in line


def test_mpt_with_values_that_its_switch_leaves_unused_has_alibi() -> None:
    config = {"model_type": "mpt", "attn_config": {"alibi": True, "rope": False, "rope_theta": 1e4}}
    assert refusal(config).endswith("it has biases by distance (ALiBi)")


def test_moonshine_rotates_neighbours_of_nine_tenths_of_a_head() -> None:
    heads = {"encoder_num_attention_heads": 8, "decoder_num_attention_heads": 8}
    header = read_hf({"model_type": "moonshine", "hidden_size": 288, **heads, "rope_theta": 1e4})
    assert (header.layout, header.head_dim, header.rotary_dim) == ("interleaved", 36, 32)
    uneven = {"model_type": "moonshine", "hidden_size": 288, **heads, "encoder_num_attention_heads": 4}
    assert refusal(uneven) == "encoder_num_attention_heads is 4; expected 8, as decoder_num_attention_heads is"


def test_the_further_keys_of_nomics_files_are_known() -> None:
    keys = {"rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None}
    header = read_hf({"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "rotary_emb_base": 1000, **keys})
    assert (header.layout, header.conflicts, header.frequencies) == ("half", (), rn.frequencies.default(64, 1000.0))


# --- GGUF files


def test_an_unknown_architecture_is_read_with_a_stated_layout(write: Write) -> None:
    path = write("novel", **HEAD_128)
    with pytest.raises(ValueError, match=r"expected a known one, or layout=, or strict=False$"):
        read_gguf(path)
    with pytest.warns(UserWarning, match="which is not known: all layers were taken to rotate alike"):
        assert read_gguf(path, layout="interleaved").layout == "interleaved"


def test_a_layout_goes_before_that_of_an_architecture_and_the_difference_is_told(write: Write) -> None:
    header = read_gguf(write("llama", **HEAD_128), layout="half")
    assert header.layout == "half"
    assert header.conflicts == ("layout is 'half', where 'llama' has 'interleaved': it was followed.",)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_base_that_is_missing_is_an_error_unless_all_models_have_ten_thousand(
    architecture: str, write: Write
) -> None:
    values = {"sliding_window": 512, "rope_dimension_count": 64, "key_length": 64, "block_count": 12}
    path = write(architecture, rope_freq_base=None, **values, context_length=4096)
    if ARCHITECTURES[architecture].theta is not None:
        assert rn.Rope.from_gguf(path, layer_type="full_attention").theta == 1e4
        return
    with pytest.raises(ValueError, match=f"^{architecture}.rope.freq_base is missing"):
        read_gguf_layers(path)


@STRICT
def test_a_file_of_ollama_without_bases_is_refused(strict: bool, write: Write) -> None:
    path = write("gemma3", key_length=256, block_count=34, sliding_window=1024, rope_freq_base=None)
    with pytest.raises(ValueError, match=r"^gemma3.rope.freq_base is missing; expected it, as layers of 'gemma3'"):
        read_gguf_layers(path, strict=strict)


def test_a_missing_base_is_a_guess_without_strict(write: Write) -> None:
    path = write("qwen2", **HEAD_128, rope_freq_base=None)
    with pytest.warns(UserWarning, match="models of 'qwen2' have several bases: 10000 is a guess"):
        assert read_gguf(path, strict=False).frequencies == rn.frequencies.default(128, 1e4)


@STRICT
@pytest.mark.parametrize("architecture", sorted(DIALECTS))
def test_ollamas_own_architectures_are_refused_with_their_keys(architecture: str, strict: bool, write: Write) -> None:
    path = write(architecture, **HEAD_128, rope_scaling_factor=32.0)
    keys = f"{architecture}.rope.freq_base, {architecture}.rope.scaling.factor; expected"
    with pytest.raises(ValueError, match=keys):
        read_gguf_layers(path, strict=strict)


@STRICT
@pytest.mark.parametrize("key", ["local.freq_base", "global.freq_base", "scaling.beta_fast", "freq_scale"])
def test_keys_that_change_the_rotation_elsewhere_are_refused(key: str, strict: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_key_length(256)
    writer.add_rope_freq_base(1e6)
    writer.add_float32(f"gemma3.rope.{key}", 8.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=f"'gemma3.rope.{key}' is a key that llama.cpp does not read for 'gemma3'"):
        read_gguf_layers(path, strict=strict)


@STRICT
def test_an_unknown_architecture_must_say_what_its_factor_is_for(strict: bool, write: Write) -> None:
    with pytest.raises(ValueError, match=r"^novel.rope.scaling.type is missing; expected it beside"):
        read_gguf(write("novel", **HEAD_128, rope_scaling_factor=32.0), layout="half", strict=strict)


def raw(path: Path, architecture: str, values: dict[str, Any]) -> Path:
    """Write a file with keys that the gguf package has no method for, of the architecture's own prefix."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in values.items():
        key = f"{architecture}.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


FOUR = {"block_count": 4, "attention.key_length": 64, "rope.freq_base": 1e6, "context_length": 4096}


@pytest.mark.parametrize(
    "more",
    [
        {"attention.head_count_kv": [0, 0, 0, 4]},
        {"attention.recurrent_layers": [True, True, True, False]},
        {"full_attention_interval": 4},
        {"full_attention_interval": 4, "ssm.conv_kernel": 4},
        {"attention.head_count_kv": [0, 0, 0, 4], "shortconv.l_cache": 3},
    ],
)
def test_layers_that_an_unknown_architecture_leaves_out_are_none_and_nothing_else_is_said(
    more: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="layers that rotate by its keys were taken to rotate alike"):
        read = read_gguf_layers(raw(tmp_path / "m.gguf", "novel", {**FOUR, **more}), layout="half")
    assert read.layers == NONE_BUT_LAST
    assert not any("all layers" in sentence for sentence in read.headers["all"].conflicts)


@pytest.mark.parametrize(
    "more",
    [
        *({key: 4} for key in ("ssm.conv_kernel", "wkv.head_size", "no_rope_layer_interval", "attention.layer_period")),
        {"attention.head_count_kv": [0, 0, 0, 4], "nope_layers": [3]},
    ],
)
def test_a_key_that_may_tell_of_layers_leaves_those_of_an_unknown_architecture_open(
    more: dict[str, Any], tmp_path: Path
) -> None:
    *_, key = more
    with pytest.warns(UserWarning, match=f"'?novel.{key}'? may say which layers rotate: layers are not known"):
        read = read_gguf_layers(raw(tmp_path / "m.gguf", "novel", {**FOUR, **more}), layout="half")
    assert read.layers == ()
    assert not any("all layers" in sentence for sentence in read.headers["all"].conflicts)


def test_keys_of_norms_experts_and_shared_caches_say_nothing_of_an_unknown_architectures_layers(tmp_path: Path) -> None:
    more = {"attention.layer_norm_rms_epsilon": 1e-5, "attention.shared_kv_layers": 2, "expert_count": 8}
    with pytest.warns(UserWarning, match="all layers were taken to rotate alike"):
        read = read_gguf_layers(raw(tmp_path / "m.gguf", "novel", {**FOUR, **more}), layout="half")
    assert read.layers == ("all",) * 4


@STRICT
def test_a_second_base_of_an_unknown_architecture_is_that_of_layers_with_a_window(strict: bool, tmp_path: Path) -> None:
    keys = {**FOUR, "rope.freq_base_swa": 1e4, "attention.sliding_window": 512}
    pattern = {"attention.sliding_window_pattern": [True, True, True, False]}
    bases = {"sliding_attention": 1e4, "full_attention": 1e6}
    with pytest.warns(UserWarning, match="layers of each type were taken to rotate alike"):
        read = read_gguf_layers(raw(tmp_path / "a.gguf", "novel", {**keys, **pattern}), layout="half", strict=strict)
    assert read.layers == (*("sliding_attention",) * 3, "full_attention")
    for kind, base in bases.items():
        assert read.headers[kind].frequencies == rn.frequencies.default(64, base)
    with pytest.warns(UserWarning, match="pattern is missing: which layer is of which type is not known"):
        read = read_gguf_layers(raw(tmp_path / "b.gguf", "novel", keys), layout="half", strict=strict)
    assert read.layers == ()
    assert {kind: header.frequencies for kind, header in read.headers.items()} == {
        kind: rn.frequencies.default(64, base) for kind, base in bases.items()
    }


@pytest.mark.filterwarnings("ignore:general.architecture is 'novel', which is not known")
def test_a_second_width_of_an_unknown_architecture_is_that_of_layers_with_a_window(tmp_path: Path) -> None:
    pattern = {"attention.sliding_window_pattern": [True, True, True, False], "rope.scaling.type": "none"}
    keys = {**FOUR, "rope.dimension_count": 64, "rope.dimension_count_swa": 32, **pattern}
    with pytest.warns(UserWarning, match="layers with a sliding window were taken to be scaled as the others are"):
        read = read_gguf_layers(raw(tmp_path / "m.gguf", "novel", keys), layout="half")
    assert {kind: header.rotary_dim for kind, header in read.headers.items()} == {
        "sliding_attention": 32,
        "full_attention": 64,
    }


def test_an_unknown_key_of_rotation_is_not_said_to_be_one_that_llama_cpp_does_not_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "m.gguf", "novel", {**FOUR, "rope.local.freq_base": 1e4})
    with pytest.raises(ValueError, match=r"^'novel.rope.local.freq_base' is a key that is not known; expected"):
        read_gguf(path, layout="half", strict=False)


def test_latent_attention_of_an_unknown_architecture_is_taken_as_in_the_other_reader(tmp_path: Path) -> None:
    keys = {**FOUR, "attention.key_length": 192, "rope.dimension_count": 64, "attention.kv_lora_rank": 512}
    with pytest.warns(UserWarning, match="is not known"):
        file = read_gguf(raw(tmp_path / "m.gguf", "novel", keys), layout="half")
    sizes = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "kv_lora_rank": 512}
    own = read_hf({"model_type": "novel", "rope_theta": 1e6, **sizes}, layout="half")
    assert (file.head_dim, file.rotary_dim, file.duties) == (own.head_dim, own.rotary_dim, own.duties)
    assert (file.head_dim, file.rotary_dim) == (64, 64)
    assert file.duties[0].startswith("Rotate only the rotary parts of queries and keys")


@pytest.mark.filterwarnings("ignore:general.architecture is 'novel', which is not known")
def test_biases_by_distance_of_an_unknown_architecture_are_in_doubt(tmp_path: Path) -> None:
    path = raw(tmp_path / "m.gguf", "novel", {**FOUR, "attention.max_alibi_bias": 8.0})
    with pytest.raises(ValueError, match=r"^novel.attention.max_alibi_bias is 8, which means biases by distance"):
        read_gguf(path, layout="half")
    with pytest.warns(UserWarning, match=r"max_alibi_bias is 8, which means biases by distance \(ALiBi\)"):
        read_gguf(path, layout="half", strict=False)


def test_a_first_layer_without_attention_says_nothing_of_the_width_of_heads(tmp_path: Path) -> None:
    keys = {"block_count": 4, "embedding_length": 2048, "rope.freq_base": 5e5}
    read = read_gguf_layers(raw(tmp_path / "m.gguf", "deci", {**keys, "attention.head_count": [0, 16, 16, 16]}))
    assert read.layers == (None, "all", "all", "all")
    assert read.headers["all"].head_dim == 128
    with pytest.raises(ValueError, match="no layer of 'deci' rotates"):
        read_gguf(raw(tmp_path / "n.gguf", "deci", {**keys, "attention.head_count": [0, 0, 0, 0], "block_count": 4}))


@pytest.mark.parametrize("architecture", ["phi3", "llama"])
def test_a_stretched_context_without_anything_that_stretches_it_is_in_doubt(architecture: str, tmp_path: Path) -> None:
    keys = {**FOUR, "rope.scaling.original_context_length": 1024, "rope.scaling.attn_factor": 1.19}
    path = raw(tmp_path / "m.gguf", architecture, keys)
    line = "attn_factor is 1.19, for 4096 positions after 1024 of the training, but no key or tensor scales .*"
    with pytest.raises(ValueError, match=f"{line}; expected tensors .*, or strict=False$"):
        read_gguf(path)
    with pytest.warns(UserWarning, match=line):
        assert read_gguf(path, strict=False).frequencies.attention_factor == pytest.approx(1.19)
    for more in ({"rope.scaling.type": "none"}, {"rope.scaling.factor": 4.0}, {"context_length": 1024}):
        assert read_gguf(raw(path, architecture, {**keys, **more})).conflicts == ()


# --- the command line


def test_the_command_line_takes_a_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rope_numba.__main__ import main

    path = tmp_path / "config.json"
    path.write_text(json.dumps(NOVEL))
    assert main(["inspect", str(path)]) == 2
    assert "--layout ('half' or 'interleaved'), or --lenient" in capsys.readouterr().err
    assert main(["inspect", str(path), "--layout", "interleaved"]) == 0
    assert "interleaved layout" in capsys.readouterr().out
