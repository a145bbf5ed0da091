"""GGUF files as the gguf package writes them, read back, and compared with values worked out apart from the reader."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import MODEL_ARCH_NAMES
from gguf_files import (
    DEEPSEEK,
    FULL,
    HEAD_128,
    QWEN,
    SLIDING,
    YARN,
    Write,
    close,
    llama3_divisors,
    phi3,
    plain,
    ramped,
    read_loosely,
    written,
)

from rope_numba.models.architectures import ARCHITECTURES, REFUSED, UNROTATED
from rope_numba.models.gguf import read_gguf, read_gguf_layers
from rope_numba.models.header import Header


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(written, tmp_path / "m.gguf")


# --- widths, base and layout


def test_a_plain_llama_is_read_whole(write: Write) -> None:
    header = read_gguf(
        write(
            "llama",
            head_count=32,
            embedding_length=4096,
            context_length=8192,
            rope_dimension_count=128,
            rope_freq_base=500_000.0,
        )
    )
    close(header, plain(128, 500_000.0))
    assert (header.model, header.scheme, header.head_dim, header.rotary_dim) == ("llama", "default", 128, 128)
    assert (header.layout, header.rotary_offset, header.layer_type) == ("interleaved", 0, None)
    assert (header.trained_length, header.context_length) == (8192, 8192)
    assert header.frequencies.attention_factor == header.frequencies.attention_logit_scale == 1.0
    assert header.unscaled == header.frequencies
    assert header.conflicts == header.duties == ()
    sources = {fact.name: fact.source for fact in header.facts}
    assert sources["theta"] == "llama.rope.freq_base"
    assert sources["head_dim"] == "llama.embedding_length / llama.attention.head_count"
    assert sources["rotary_dim"] == "llama.rope.dimension_count"
    assert sources["layout"] == "default of architecture 'llama'"


def test_what_a_file_leaves_out_is_gguf_default_and_told_so(write: Write) -> None:
    header = read_gguf(write("phi2", key_length=64, rope_freq_base=None))
    close(header, plain(64, 10_000.0))
    assert header.layout == "half"
    assert header.trained_length is header.context_length is None
    sources = {fact.name: fact.source for fact in header.facts}
    assert sources["theta"] == "default of GGUF"
    assert sources["rotary_dim"] == "default of GGUF: the whole head"


def test_a_part_of_each_head_is_rotated_where_the_file_says_so(write: Write) -> None:
    header = read_gguf(write("gptneox", head_count=64, embedding_length=6144, rope_dimension_count=24))
    assert (header.head_dim, header.rotary_dim, header.layout) == (96, 24, "half")
    close(header, plain(24, 10_000.0))


def test_key_length_goes_before_the_quotient(write: Write) -> None:
    header = read_gguf(write("gemma", head_count=16, embedding_length=3072, key_length=256))
    assert header.head_dim == header.rotary_dim == 256


def test_a_head_count_for_each_layer_is_a_list_whose_first_counts(write: Write) -> None:
    header = read_gguf(write("deci", head_count=[32, 16], embedding_length=4096, block_count=2))
    assert header.head_dim == 128


@pytest.mark.parametrize("architecture", ["llama", "deci", "falcon", "llama-embed"])
def test_architectures_that_are_permuted_whole_refuse_a_part(write: Write, architecture: str) -> None:
    path = write(architecture, **HEAD_128, rope_dimension_count=64)
    text = rf"{architecture}.rope.dimension_count is 64; expected 128, as '{architecture}' rotates whole heads"
    with pytest.raises(ValueError, match=text):
        read_gguf(path)


# --- the table of architectures


def test_every_architecture_of_the_gguf_package_is_in_one_table() -> None:
    tables = [set(ARCHITECTURES), set(UNROTATED), set(REFUSED)]
    assert set(MODEL_ARCH_NAMES.values()) <= set.union(*tables)
    assert sum(len(table) for table in tables) == len(set.union(*tables))


# Some of each kind, from llama.cpp's llama_model_rope_type, and three where its graphs do otherwise.
LAYOUTS = {
    "llama": "interleaved",
    "llama4": "interleaved",
    "baichuan": "interleaved",
    "internlm2": "interleaved",
    "command-r": "interleaved",
    "olmo": "interleaved",
    "chatglm": "interleaved",
    "granite": "interleaved",
    "smollm3": "interleaved",
    "ernie4_5": "interleaved",
    "mistral3": "interleaved",
    "glm4": "interleaved",
    "deepseek2-ocr": "half",  # NORMAL in the table, NEOX in the graph
    "falcon": "half",
    "qwen2": "half",
    "qwen3moe": "half",
    "phi3": "half",
    "gemma2": "half",
    "gpt-oss": "half",
    "gptneox": "half",
    "stablelm": "half",
    "nomic-bert": "half",
    "glm4moe": "half",
    "minicpm3": "half",
}


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_the_layout_is_that_of_llama_cpp(write: Write, architecture: str) -> None:
    path = write(architecture, key_length=64, rope_dimension_count=64, block_count=4)
    assert read_gguf(path).layout == LAYOUTS[architecture]


@pytest.mark.parametrize("architecture", UNROTATED)
def test_an_architecture_without_rotation_is_refused_with_what_it_has_instead(write: Write, architecture: str) -> None:
    for strict in (True, False):
        with pytest.raises(ValueError, match=f"is '{architecture}', which has {UNROTATED[architecture]}; expected"):
            read_gguf(write(architecture, key_length=64), strict=strict)


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_a_header_does_not_describe_is_refused(write: Write, architecture: str) -> None:
    with pytest.raises(ValueError, match=rf"is '{architecture}': .*rope_numba.Frequencies\(inv_freq=...\)"):
        read_gguf(write(architecture, key_length=64), strict=False)


def test_an_unknown_architecture_is_refused_or_its_layout_said_to_be_a_guess(write: Write) -> None:
    path = write("newmodel", key_length=64)
    text = "general.architecture is 'newmodel', which is not known, so that layout 'half' is a guess"
    with pytest.raises(ValueError, match=f"{text}; expected a known one, or layout=, or strict=False"):
        read_gguf(path)
    header = read_loosely(path)
    assert header.layout == "half"
    alike = "general.architecture is 'newmodel', which is not known: all layers were taken to rotate alike."
    assert header.conflicts == (alike, f"{text}.")


def test_deepseek_ocr_rotates_whole_heads_whatever_its_keys_say(write: Write) -> None:
    # Its converter writes dimension_count 0 and its parent's YaRN; the graph has constants instead.
    path = write("deepseek2-ocr", head_count=10, embedding_length=1280, rope_dimension_count=0)
    header = read_gguf(path)
    assert (header.head_dim, header.rotary_dim, header.scheme) == (128, 128, "default")


@pytest.mark.parametrize("architecture", ["granite", "granitemoe", "granitehybrid"])
def test_granite_does_not_rotate_where_its_switch_is_off(write: Write, architecture: str) -> None:
    assert read_gguf(write(architecture, **HEAD_128)).layout == "interleaved"
    assert read_gguf(write(architecture, **HEAD_128, rope_scaling_finetuned=True)).scheme == "default"
    with pytest.raises(ValueError, match=f"{architecture}.rope.scaling.finetuned is False, which switches off"):
        read_gguf(write(architecture, **HEAD_128, rope_scaling_finetuned=False))


def test_baichuan_13b_has_alibi_and_7b_rotates(write: Write) -> None:
    assert read_gguf(write("baichuan", key_length=128, block_count=32)).rotary_dim == 128
    with pytest.raises(ValueError, match=r"baichuan.block_count is 40, with which 'baichuan' has ALiBi"):
        read_gguf(write("baichuan", key_length=128, block_count=40))


# --- linear scaling, static NTK


def test_linear_scaling_divides_all_frequencies(write: Write) -> None:
    path = write("llama", **HEAD_128, rope_scaling_type=gguf.RopeScalingType.LINEAR, rope_scaling_factor=4.0)
    header = read_gguf(path)
    close(header, plain(128, 10_000.0) / 4.0)
    assert (header.scheme, header.trained_length, header.context_length) == ("linear", None, 8192)
    close(Header(**{**vars(header), "frequencies": header.unscaled}), plain(128, 10_000.0))


def test_a_factor_without_a_type_is_linear_scaling(write: Write) -> None:
    close(read_gguf(write("llama", **HEAD_128, rope_scaling_factor=8.0)), plain(128, 10_000.0) / 8.0)


def test_the_older_key_of_linear_scaling_still_counts(write: Write) -> None:
    close(read_gguf(write("llama", **HEAD_128, raw_rope__scale_linear=2.0)), plain(128, 10_000.0) / 2.0)


def test_the_newer_key_wins_over_the_older_and_the_contradiction_is_told(write: Write) -> None:
    header = read_gguf(write("llama", **HEAD_128, raw_rope__scale_linear=2.0, rope_scaling_factor=4.0))
    close(header, plain(128, 10_000.0) / 4.0)
    assert header.conflicts == (
        "llama.rope.scale_linear is 2.0, but llama.rope.scaling.factor is 4.0: the latter counts.",
    )


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_a_factor_of_nought_or_one_scales_nothing(write: Write, factor: float) -> None:
    header = read_gguf(write("llama", **HEAD_128, rope_scaling_factor=factor))
    assert header.scheme == "default"
    close(header, plain(128, 10_000.0))


def test_type_none_takes_the_effect_from_a_factor(write: Write) -> None:
    path = write("llama", **HEAD_128, rope_scaling_type=gguf.RopeScalingType.NONE, rope_scaling_factor=4.0)
    header = read_gguf(path)
    close(header, plain(128, 10_000.0))
    assert header.conflicts == (
        "llama.rope.scaling.factor is 4.0, but llama.rope.scaling.type is 'none': it has no effect.",
    )


def test_alpha_enlarges_the_base_of_hunyuan(write: Write) -> None:
    header = read_gguf(write("hunyuan_vl", **HEAD_128, rope_scaling_alpha=1000.0))
    close(header, plain(128, 10_000.0 * 1000.0 ** (128 / 126)))
    assert header.scheme == "ntk"
    assert header.unscaled is not None
    assert header.frequencies.inv_freq[-1] == pytest.approx(header.unscaled.inv_freq[-1] / 1000.0, rel=1e-12)


def test_an_alpha_of_nought_is_none(write: Write) -> None:
    assert read_gguf(write("hunyuan_vl", **HEAD_128, rope_scaling_alpha=0.0)).scheme == "default"


def test_alpha_of_an_architecture_that_does_not_know_it_is_refused(write: Write) -> None:
    path = write("llama", **HEAD_128, rope_scaling_alpha=4.0)
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"'llama.rope.scaling.alpha' is a key that llama.cpp does not read for"):
            read_gguf(path, strict=strict)


def test_attn_factor_multiplies_the_magnitude_of_any_scheme(write: Write) -> None:
    assert read_gguf(write("llama", **HEAD_128, rope_scaling_attn_factors=1.25)).frequencies.attention_factor == 1.25


# --- YaRN


def test_yarn_is_the_ramp_of_ggml(write: Write) -> None:
    header = read_gguf(write("qwen2", **QWEN))
    close(header, ramped(128, 1e6, 4.0, 32768))
    assert header.scheme == "yarn"
    assert header.frequencies.attention_factor == pytest.approx(0.1 * math.log(4.0) + 1.0, rel=1e-15)
    assert header.frequencies.attention_logit_scale == 1.0
    assert (header.trained_length, header.context_length) == (32768, 131072)
    golden = {1: 8.058421877615e-01, 32: 6.029411764706e-04, 48: 7.905694150421e-06, 63: 3.102344401879e-07}
    for pair, value in golden.items():
        assert header.frequencies.inv_freq[pair] == pytest.approx(value, rel=1e-12)


def test_yarn_without_its_own_length_takes_the_context(write: Write) -> None:
    values = {**QWEN, "context_length": 32768}
    del values["rope_scaling_orig_ctx_len"]
    close(read_gguf(write("qwen2", **values)), ramped(128, 1e6, 4.0, 32768))
    del values["context_length"]
    with pytest.raises(ValueError, match=r"qwen2.context_length is missing; expected the trained length"):
        read_gguf(write("qwen2", **values))


def test_yarn_takes_the_ends_of_its_ramp_from_the_file(write: Write) -> None:
    header = read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_beta_fast=16.0, rope_scaling_yarn_beta_slow=2.0))
    close(header, ramped(128, 1e6, 4.0, 32768, fast=16.0, slow=2.0))


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_an_ext_factor_of_one_or_unset_is_yarn_itself(write: Write, value: float) -> None:
    close(read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_ext_factor=value)), ramped(128, 1e6, 4.0, 32768))


def test_an_ext_factor_between_is_refused(write: Write) -> None:
    with pytest.raises(ValueError, match=r"qwen2.rope.scaling.yarn_ext_factor is 0.5; expected 1, or a negative"):
        read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_ext_factor=0.5))


def test_the_log_multiplier_of_ministral_makes_the_magnitude_one(write: Write) -> None:
    header = read_gguf(write("mistral3", **QWEN, rope_scaling_yarn_log_mul=1.0))
    assert header.frequencies.attention_factor == 1.0
    assert header.frequencies.attention_logit_scale == 1.0
    header = read_gguf(write("mistral3", **QWEN, rope_scaling_yarn_log_mul=0.5))
    expected = (0.1 * math.log(4.0) + 1.0) / (0.05 * math.log(4.0) + 1.0)
    assert header.frequencies.attention_factor == pytest.approx(expected, rel=1e-14)
    header = read_gguf(write("mistral3", **QWEN, rope_scaling_yarn_log_mul=0.0))
    assert header.frequencies.attention_factor == pytest.approx(0.1 * math.log(4.0) + 1.0)


def test_a_temperature_of_ministral_is_left_to_the_caller(write: Write) -> None:
    header = read_gguf(write("mistral3", **QWEN, rope_scaling_yarn_log_mul=1.0, attn_temperature_scale=0.1))
    assert header.duties == ("Multiply each query by 1 + 0.1 * log(1 + floor(position / 32768)), after the rotation.",)


def test_a_stated_magnitude_of_yarn_is_believed_and_the_difference_told(write: Write) -> None:
    rule = 0.1 * math.log(4.0) + 1.0
    header = read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_attn_factor=rule))
    assert header.frequencies.attention_factor == pytest.approx(rule, rel=1e-15)
    assert header.conflicts == ()
    header = read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_attn_factor=1.5))
    assert header.frequencies.attention_factor == 1.5
    assert "llama.cpp takes the rule's" in header.conflicts[0]
    header = read_gguf(write("qwen2", **QWEN, rope_scaling_yarn_attn_factor=1.0))
    assert header.frequencies.attention_factor == pytest.approx(rule, rel=1e-15)
    assert "which can mean a magnitude of 1" in header.conflicts[0]


def test_gpt_oss_has_a_ramp_that_is_not_widened(write: Write) -> None:
    values = {"key_length": 64, "rope_freq_base": 150_000.0, "rope_scaling_factor": 32.0, "context_length": 131072}
    path = write("gpt-oss", **values, **{**YARN, "rope_scaling_orig_ctx_len": 4096}, sliding_window=128, block_count=4)
    header = read_gguf(path)
    # Golden values of the published configuration, truncate false; with whole pairs, pair 16 would be 4.1e-4.
    golden = {1: 6.890443058882e-01, 8: 5.081327481546e-02, 16: 4.564839192232e-04, 24: 4.099978481803e-06}
    for pair, value in golden.items():
        assert header.frequencies.inv_freq[pair] == pytest.approx(value, rel=1e-12)
    assert header.frequencies.attention_factor == pytest.approx(1.346573590279973, rel=1e-14)
    assert "llama.cpp widens it" in header.conflicts[0]
    assert not np.allclose(header.frequencies.inv_freq, ramped(64, 150_000.0, 32.0, 4096), rtol=0.01)


def test_grok_is_refused_as_its_yarn_is_another(write: Write) -> None:
    assert read_gguf(write("grok", **HEAD_128)).layout == "half"
    with pytest.raises(ValueError, match="scheme is 'yarn_log', which is not here"):
        read_gguf(write("grok", key_length=128, context_length=8192, rope_scaling_factor=16.0, **YARN))


# --- latent attention


@pytest.mark.parametrize(
    ("mscale_all_dim", "scale"), [(1.0, 1.873854207092627), (0.707, 1.5896261651208736)], ids=["v3", "v2"]
)
def test_deepseek_stores_a_tenth_and_gets_its_logit_scale(write: Write, mscale_all_dim: float, scale: float) -> None:
    header = read_gguf(write("deepseek2", **DEEPSEEK, rope_scaling_yarn_log_mul=0.1 * mscale_all_dim))
    close(header, ramped(64, 10_000.0, 40.0, 4096))
    assert header.frequencies.attention_factor == 1.0
    assert header.frequencies.attention_logit_scale == pytest.approx(scale, rel=1e-7)
    if mscale_all_dim == 1.0:  # 0.1 in float32 is one again, exactly
        assert header.frequencies.attention_logit_scale == pytest.approx(scale, rel=1e-15)
    assert (header.head_dim, header.rotary_dim, header.layout) == (64, 64, "interleaved")
    rotary, logits = header.duties
    assert "the last 64 of 192 channels of each query head" in rotary
    assert logits.startswith(f"Multiply attention logits by {scale:.6g}"[:-1])


def test_a_further_magnitude_keeps_the_logit_scale(write: Write) -> None:
    path = write("deepseek2", **DEEPSEEK, rope_scaling_yarn_log_mul=0.1, rope_scaling_attn_factors=1.25)
    frequencies = read_gguf(path).frequencies
    assert frequencies.attention_factor == 1.25
    assert frequencies.attention_logit_scale == pytest.approx(1.873854207092627, rel=1e-15)


def test_deepseek_without_the_multiplier_scales_no_logits_and_says_so(write: Write) -> None:
    header = read_gguf(write("deepseek2", **DEEPSEEK))
    assert header.frequencies.attention_logit_scale == 1.0
    assert header.frequencies.attention_factor == pytest.approx(0.1 * math.log(40.0) + 1.0)
    assert header.conflicts[0].startswith(
        "deepseek2.rope.scaling.yarn_log_multiplier is missing: logits are not scaled"
    )


def test_latent_attention_must_say_how_much_it_rotates(write: Write) -> None:
    values = {name: value for name, value in DEEPSEEK.items() if name != "rope_dimension_count"}
    with pytest.raises(ValueError, match=r"deepseek2.rope.dimension_count is missing; expected the width"):
        read_gguf(write("deepseek2", **values))


def test_an_indexer_that_rotates_otherwise_is_told(write: Write) -> None:
    header = read_gguf(write("deepseek32", **DEEPSEEK, rope_scaling_yarn_log_mul=0.1))
    assert "Queries and keys of the indexer rotate in layout 'half', by the same frequencies." in header.duties


# --- lists of divisors


def test_rope_freqs_are_divisors_as_llama_3_has_them(write: Write) -> None:
    divisors = llama3_divisors(128, 500_000.0, 8.0, 1.0, 4.0, 8192)
    values = {**HEAD_128, "context_length": 131072, "rope_freq_base": 500_000.0}
    header = read_gguf(write("llama", {"rope_freqs.weight": divisors}, **values))
    close(header, plain(128, 500_000.0) / np.array(divisors), rtol=1e-7)  # as float32
    assert header.frequencies.inv_freq[48] == pytest.approx(6.647869871181e-06, rel=1e-7)
    assert (header.scheme, header.trained_length, header.context_length) == ("divided", None, 131072)
    assert {fact.name: fact.value for fact in header.facts}["divisors"] == "1 to 8"


def test_divisors_and_a_linear_factor_multiply(write: Write) -> None:
    header = read_gguf(write("llama", {"rope_freqs.weight": [2.0] * 64}, **HEAD_128, rope_scaling_factor=4.0))
    close(header, plain(128, 10_000.0) / 8.0)


def test_pairs_with_an_enormous_divisor_do_not_turn(write: Write) -> None:
    # Gemma 4: the converter writes proportional rotation so.
    divisors = [1.0] * 64 + [1e30] * 192
    values = {"key_length": 512, "key_length_swa": 256, "rope_dimension_count": 512, "rope_dimension_count_swa": 256}
    bases = {"rope_freq_base": 1e6, "rope_freq_base_swa": 10_000.0, "sliding_window": 512, "block_count": 6}
    pattern = {"sliding_window_pattern": [True] * 5 + [False], "context_length": 131072}
    path = write("gemma4", {"rope_freqs.weight": divisors}, **values, **bases, **pattern)
    full = read_gguf(path, layer_type=FULL)
    assert full.frequencies.inv_freq[63] == pytest.approx(0.033376246942920386, rel=1e-14)
    assert not full.frequencies.inv_freq[64:].any()
    assert (full.head_dim, full.rotary_dim, full.trained_length) == (512, 512, 131072)
    sliding = read_gguf(path, layer_type=SLIDING)
    close(sliding, plain(256, 10_000.0))  # no divisors, another width, another base
    assert (sliding.head_dim, sliding.scheme) == (256, "default")


def test_longrope_has_short_factors_up_to_the_trained_length_itself_and_long_ones_beyond(write: Write) -> None:
    path = phi3(write)
    short = plain(96, 10_000.0) / np.array([1.0 + 0.01 * pair for pair in range(48)])
    long = plain(96, 10_000.0) / np.array([1.0 + pair for pair in range(48)])
    for seq_len, expected in ((None, short), (1, short), (4096, short), (4097, long), (10**6, long)):
        header = read_gguf(path, seq_len=seq_len)
        close(header, expected, rtol=1e-7)
        assert header.scheme == "longrope"
        assert header.frequencies.attention_factor == pytest.approx(1.1902380714238083, rel=1e-7)
        assert (header.trained_length, header.context_length) == (4096, 131072)
        assert len(header.duties) == (seq_len is None)
        variant = {fact.name: fact.value for fact in header.facts}["variant"]
        assert variant == ("long" if expected is long else "short")
    assert (
        "They hold for contexts of up to 4096 positions; for a longer one, give its length" in read_gguf(path).duties[0]
    )


def test_longrope_without_a_magnitude_has_that_of_the_rule_and_says_so(write: Write) -> None:
    header = read_gguf(phi3(write, rope_scaling_attn_factors=1.0))
    assert header.frequencies.attention_factor == 1.0
    assert header.frequencies.depends_on_length
    path = write(
        "minicpm3",
        {"rope_factors_long.weight": [1.0] * 16, "rope_factors_short.weight": [1.0] * 16},
        rope_dimension_count=32,
        key_length=96,
        context_length=131072,
        rope_scaling_orig_ctx_len=4096,
        rope_scaling_type=gguf.RopeScalingType.LONGROPE,
    )
    header = read_gguf(path)
    assert header.frequencies.attention_factor == pytest.approx(1.1902380714238083, rel=1e-14)
    assert "minicpm3.rope.scaling.attn_factor is missing" in header.conflicts[0]


def test_a_magnitude_that_a_file_cannot_hold_is_told(write: Write) -> None:
    lists = {f"rope_factors_{name}.weight": [2.0] * 64 for name in ("long", "short")}
    [conflict] = read_gguf(write("phimoe", lists, **HEAD_128, rope_scaling_attn_factors=1.19)).conflicts
    assert conflict.startswith("GGUF has no keys for short_mscale and long_mscale")
    assert read_gguf(write("phimoe", **HEAD_128)).conflicts == ()


@pytest.mark.parametrize(("there", "missing"), [("long", "short"), ("short", "long")])
def test_one_list_of_longrope_without_the_other_is_refused(write: Write, there: str, missing: str) -> None:
    path = write("phi3", {f"rope_factors_{there}.weight": [1.0] * 64}, **HEAD_128)
    with pytest.raises(ValueError, match=f"tensor rope_factors_{missing}.weight is missing; expected both lists"):
        read_gguf(path)


def test_the_type_longrope_without_lists_is_refused(write: Write) -> None:
    path = write("phi3", **HEAD_128, rope_scaling_type=gguf.RopeScalingType.LONGROPE)
    with pytest.raises(ValueError, match=r"tensor rope_factors_short.weight is missing; expected both lists"):
        read_gguf(path)


def test_rope_freqs_win_over_the_lists_of_longrope(write: Write) -> None:
    lists = {f"rope_factors_{name}.weight": [2.0] * 64 for name in ("long", "short")}
    header = read_gguf(write("llama", {**lists, "rope_freqs.weight": [4.0] * 64}, **HEAD_128))
    close(header, plain(128, 10_000.0) / 4.0)


def test_combinations_that_no_model_has_are_refused(write: Write) -> None:
    with pytest.raises(ValueError, match=r"qwen2.rope.scaling.type is 'yarn'; expected no tensor rope_freqs.weight"):
        read_gguf(write("qwen2", {"rope_freqs.weight": [1.0] * 64}, **QWEN))
    with pytest.raises(ValueError, match=r"phi3.rope.scaling.factor is 32.0; expected none beside tensor rope_factors"):
        read_gguf(phi3(write, rope_scaling_factor=32.0))


# --- several positions for each token

SECTIONS = {"key_length": 128, "rope_freq_base": 1e6, "context_length": 32768}


@pytest.mark.parametrize("architecture", ["qwen2vl", "paddleocr"])
def test_sections_of_qwen2_vl_are_blocks(write: Write, architecture: str) -> None:
    header = read_gguf(write(architecture, **SECTIONS, rope_dimension_sections=[16, 24, 24, 0]))
    close(header, plain(128, 1e6))
    assert header.frequencies.streams.tolist() == [0] * 16 + [1] * 24 + [2] * 24
    assert (header.scheme, header.layout) == ("mrope", "half")


@pytest.mark.parametrize("architecture", ["qwen3vl", "qwen3vlmoe"])
def test_sections_of_qwen3_vl_take_turns(write: Write, architecture: str) -> None:
    header = read_gguf(write(architecture, **SECTIONS, rope_dimension_sections=[24, 20, 20, 0]))
    streams = header.frequencies.streams.tolist()
    assert streams[:60] == [0, 1, 2] * 20
    assert streams[60:] == [0, 0, 0, 0]
    assert header.layout == "half"
    assert header.conflicts == (
        "Pairs [61, 62] follow time here, as in transformers; llama.cpp does not turn them for text.",
    )


def test_sections_that_fit_leave_nothing_to_tell(write: Write) -> None:
    values = {"key_length": 256, "rope_dimension_count": 64, "block_count": 8, "rope_freq_base": 1e7}
    layers = read_gguf_layers(write("qwen35", **values, rope_dimension_sections=[11, 11, 10, 0]))
    header = layers.headers["all"]
    assert header.frequencies.streams.tolist() == ([0, 1, 2] * 11)[:32]
    assert header.conflicts == ()
    assert layers.layers == (None, None, None, "all") * 2  # the others have a recurrence


@pytest.mark.parametrize(("architecture", "without"), [("glm4", "interleaved"), ("glm4moe", "half")])
def test_glm_is_laid_out_in_halves_where_it_has_sections(write: Write, architecture: str, without: str) -> None:
    values = {"key_length": 128, "rope_dimension_count": 64}
    assert read_gguf(write(architecture, **values)).layout == without
    header = read_gguf(write(architecture, **values, rope_dimension_sections=[8, 12, 12, 0]))
    assert header.layout == "half"
    assert header.frequencies.streams.tolist() == [0] * 8 + [1] * 12 + [2] * 12


def test_sections_with_yarn_keep_both(write: Write) -> None:
    header = read_gguf(write("qwen2vl", **QWEN, rope_dimension_sections=[16, 24, 24, 0]))
    close(header, ramped(128, 1e6, 4.0, 32768))
    assert header.scheme == "yarn"
    assert header.frequencies.attention_factor == pytest.approx(0.1 * math.log(4.0) + 1.0)
    assert header.frequencies.stream_count == 3


def test_a_model_of_several_positions_must_have_sections(write: Write) -> None:
    with pytest.raises(ValueError, match=r"qwen2vl.rope.dimension_sections is missing; expected pairs of time, height"):
        read_gguf(write("qwen2vl", **SECTIONS))


def test_sections_that_do_not_fit_are_refused_by_their_key(write: Write) -> None:
    for sections in ([16, 24, 23, 0], [16, 24], [16, 16, 16, 16]):
        with pytest.raises(ValueError, match=r"^qwen2vl.rope.dimension_sections is \[16, .*; expected 3 numbers"):
            read_gguf(write("qwen2vl", **SECTIONS, rope_dimension_sections=sections))
    with pytest.raises(ValueError, match=r"qwen2vl.rope.dimension_sections is \[-1, 65, 0, 0\]; expected a list"):
        read_gguf(write("qwen2vl", **SECTIONS, rope_dimension_sections=[-1, 65, 0, 0]))


@pytest.mark.parametrize(("architecture", "scheme"), [("hunyuan_vl", "xdrope"), ("ernie4_5-moe", "ernie")])
def test_axes_of_other_kinds_are_refused_by_name(write: Write, architecture: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=f"scheme is '{scheme}', which is not here"):
        read_gguf(write(architecture, **SECTIONS, rope_dimension_sections=[22, 22, 20, 0]), strict=False)


def test_sections_of_a_model_with_one_position_are_doubted(write: Write) -> None:
    path = write("qwen2", **SECTIONS, rope_dimension_sections=[16, 24, 24, 0])
    with pytest.raises(ValueError, match=r"dimension_sections is \[16, 24, 24, 0\], but tokens of 'qwen2' have one"):
        read_gguf(path)
    assert read_loosely(path).frequencies.stream_count == 1
    assert read_gguf(write("qwen2", **SECTIONS, rope_dimension_sections=[0, 0, 0, 0])).conflicts == ()
