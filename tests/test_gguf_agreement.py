"""The same model as a GGUF file and as a Hugging Face configuration: one rotation, but for the rows of Q and K."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_files import DEEPSEEK, FULL, QWEN, YARN, llama3_divisors, phi3, written

from rope_numba.models.gguf import read_gguf, read_gguf_layers
from rope_numba.models.hf import read_hf, read_hf_layers


def keys(**values: Any) -> dict[str, Any]:
    """Return what the gguf package's writer is told."""
    return {"block_count": 8, **values}


def config(model_type: str, **values: Any) -> dict[str, Any]:
    """Return what stands in a config.json."""
    return {"model_type": model_type, "num_hidden_layers": 8, **values}


def llama3(factor: float, high: float) -> dict[str, Any]:
    bands = {"low_freq_factor": 1.0, "high_freq_factor": high, "original_max_position_embeddings": 8192}
    return {"rope_type": "llama3", "factor": factor, **bands}


def yarn(factor: float, trained: int, **more: Any) -> dict[str, Any]:
    return {"type": "yarn", "factor": factor, "original_max_position_embeddings": trained, **more}


def stretched(factor: float, trained: int, **more: Any) -> dict[str, Any]:
    return {**YARN, "rope_scaling_factor": factor, "rope_scaling_orig_ctx_len": trained, **more}


SHORT, LONG = [1.0 + 0.1 * pair for pair in range(16)], [2.0 + pair for pair in range(16)]
SIX = [True] * 5 + [False]
BETAS = {"beta_fast": 32, "beta_slow": 1}
# Architecture and keys of the file, its tensors, and the configuration.
Case = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "Llama 2": (
        "llama",
        keys(head_count=32, embedding_length=4096, context_length=4096),
        {},
        config("llama", hidden_size=4096, num_attention_heads=32, max_position_embeddings=4096),
    ),
    "Llama 3.1": (
        "llama",
        keys(key_length=128, rope_freq_base=5e5, context_length=131072),
        {"rope_freqs.weight": llama3_divisors(128, 5e5, 8.0, 1.0, 4.0, 8192)},
        config("llama", hidden_size=4096, num_attention_heads=32, rope_theta=5e5, rope_scaling=llama3(8.0, 4.0)),
    ),
    "Llama 4 Scout": (
        "llama4",
        keys(key_length=128, rope_freq_base=5e5, context_length=10485760),
        {"rope_freqs.weight": llama3_divisors(128, 5e5, 16.0, 1.0, 1.0001, 8192)},
        config(
            "llama4_text",
            max_position_embeddings=10485760,
            head_dim=128,
            rope_theta=5e5,
            rope_scaling=llama3(16.0, 1.0001),
        ),
    ),
    "Ministral 3": (
        "mistral3",
        keys(
            key_length=128,
            rope_freq_base=1e6,
            context_length=262144,
            **stretched(16.0, 16384, rope_scaling_yarn_log_mul=1.0),
        ),
        {},
        config(
            "ministral3",
            head_dim=128,
            max_position_embeddings=262144,
            rope_theta=1e6,
            rope_scaling=yarn(16.0, 16384, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1, **BETAS),
        ),
    ),
    "Qwen2.5 with YaRN": (
        "qwen2",
        {**QWEN, "block_count": 8},
        {},
        config("qwen2", hidden_size=3584, num_attention_heads=28, rope_theta=1e6, rope_scaling=yarn(4.0, 32768)),
    ),
    "Qwen2-VL": (
        "qwen2vl",
        keys(key_length=128, rope_freq_base=1e6, rope_dimension_sections=[16, 24, 24, 0]),
        {},
        config(
            "qwen2_vl",
            hidden_size=3584,
            num_attention_heads=28,
            rope_theta=1e6,
            rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
        ),
    ),
    "Qwen3-VL": (
        "qwen3vl",
        keys(key_length=128, rope_freq_base=5e6, rope_dimension_sections=[24, 20, 20, 0]),
        {},
        config(
            "qwen3_vl_text",
            head_dim=128,
            rope_theta=5e6,
            rope_scaling={"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        ),
    ),
    "Qwen3.5": (
        "qwen35",
        keys(key_length=256, rope_dimension_count=64, rope_freq_base=1e7, rope_dimension_sections=[11, 11, 10, 0]),
        {},
        config(
            "qwen3_5_text",
            head_dim=256,
            layer_types=(["linear_attention"] * 3 + [FULL]) * 2,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e7,
                "partial_rotary_factor": 0.25,
                "mrope_section": [11, 11, 10],
                "mrope_interleaved": True,
            },
        ),
    ),
    "DeepSeek V2": (
        "deepseek2",
        {**DEEPSEEK, "block_count": 8, "rope_scaling_yarn_log_mul": 0.0707},
        {},
        config(
            "deepseek_v2",
            qk_rope_head_dim=64,
            qk_nope_head_dim=128,
            rope_scaling=yarn(40, 4096, mscale=0.707, mscale_all_dim=0.707, **BETAS),
        ),
    ),
    "DeepSeek V3": (
        "deepseek2",
        {**DEEPSEEK, "block_count": 8, "rope_scaling_yarn_log_mul": 0.1},
        {},
        config(
            "deepseek_v3",
            qk_rope_head_dim=64,
            qk_nope_head_dim=128,
            rope_scaling=yarn(40, 4096, mscale=1.0, mscale_all_dim=1.0, **BETAS),
        ),
    ),
    "MiniCPM 3": (
        "minicpm3",
        keys(
            key_length=96,
            rope_dimension_count=32,
            context_length=32768,
            rope_scaling_orig_ctx_len=32768,
            rope_scaling_type=gguf.RopeScalingType.LONGROPE,
        ),
        {"rope_factors_long.weight": LONG, "rope_factors_short.weight": SHORT},
        config(
            "minicpm3",
            qk_rope_head_dim=32,
            qk_nope_head_dim=64,
            max_position_embeddings=32768,
            rope_scaling={
                "type": "longrope",
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 32768,
            },
        ),
    ),
    "gpt-oss": (
        "gpt-oss",
        keys(key_length=64, rope_freq_base=150_000.0, sliding_window=128, **stretched(32.0, 4096)),
        {},
        config("gpt_oss", head_dim=64, rope_theta=150_000, rope_scaling=yarn(32.0, 4096, truncate=False, **BETAS)),
    ),
    "Gemma 3": (
        "gemma3",
        keys(key_length=256, rope_freq_base=1e6, rope_scaling_factor=8.0, sliding_window=1024),
        {},
        config(
            "gemma3_text",
            head_dim=256,
            rope_theta=1e6,
            rope_local_base_freq=1e4,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
        ),
    ),
    "Gemma 3n": (
        "gemma3n",
        keys(key_length=256, rope_freq_base=1e6, sliding_window=512),
        {},
        config("gemma3n_text", head_dim=256, rope_theta=1e6, rope_local_base_freq=1e4),
    ),
    "Gemma 4": (
        "gemma4",
        keys(
            block_count=6,
            key_length=512,
            key_length_swa=256,
            rope_dimension_count=512,
            rope_dimension_count_swa=256,
            rope_freq_base=1e6,
            rope_freq_base_swa=1e4,
            sliding_window=512,
            sliding_window_pattern=SIX,
        ),
        {"rope_freqs.weight": [1.0] * 64 + [1e30] * 192},
        config("gemma4_text", num_hidden_layers=6, head_dim=256, global_head_dim=512),
    ),
    "OLMo 3": (
        "olmo2",
        keys(
            key_length=128,
            rope_freq_base=5e5,
            sliding_window=4096,
            **stretched(8.0, 8192, rope_scaling_yarn_attn_factor=1.2079441541679836),
        ),
        {},
        config(
            "olmo3",
            hidden_size=4096,
            num_attention_heads=32,
            rope_theta=5e5,
            rope_scaling=yarn(8.0, 8192, attention_factor=1.2079441541679836, **BETAS),
        ),
    ),
    "ModernBERT": (
        "modern-bert",
        keys(key_length=64, sliding_window=128, rope_freq_base=160_000.0, rope_freq_base_swa=10_000.0),
        {},
        config("modernbert", hidden_size=768, global_rope_theta=160_000.0, local_rope_theta=10_000.0),
    ),
    "GPT-NeoX": (
        "gptneox",
        keys(head_count=64, embedding_length=6144, rope_dimension_count=24),
        {},
        config("gpt_neox", hidden_size=6144, num_attention_heads=64, rotary_pct=0.25),
    ),
    "GLM 4": (
        "glm4",
        keys(key_length=128, rope_dimension_count=64),
        {},
        config("glm4", head_dim=128, partial_rotary_factor=0.5),
    ),
    "SmolLM3": (
        "smollm3",
        keys(key_length=128, rope_freq_base=5e6),
        {},
        config("smollm3", hidden_size=2048, num_attention_heads=16, rope_theta=5e6),
    ),
    "Command R7B": (
        "cohere2",
        keys(key_length=128, sliding_window=4096, rope_freq_base=5e4),
        {},
        config("cohere2", head_dim=128, rope_theta=5e4),
    ),
    "EXAONE 4 32B": (
        "exaone4",
        keys(key_length=128, sliding_window=4096, rope_freq_base=1e6),
        {},
        config("exaone4", head_dim=128, rope_theta=1e6, sliding_window=4096, sliding_window_pattern="LLLG"),
    ),
    "Granite": (
        "granite",
        keys(key_length=128, rope_freq_base=1e7),
        {},
        config("granite", hidden_size=4096, num_attention_heads=32, rope_theta=1e7),
    ),
}
PERMUTED = {"Llama 2", "Llama 3.1", "Ministral 3", "SmolLM3", "Granite"}  # rows of Q and K, by the converter


@pytest.mark.parametrize("case", CASES)
def test_a_gguf_file_and_a_config_of_one_model_agree_layer_by_layer(tmp_path: Path, case: str) -> None:
    architecture, values, tensors, given = CASES[case]
    values = {"context_length": 131072, **values}
    given = {"max_position_embeddings": 131072, **given}
    one = read_gguf_layers(written(tmp_path / "m.gguf", architecture, tensors, **values))
    other = read_hf_layers(given)
    assert one.layers == other.layers
    assert set(one.headers) == set(other.headers)
    for kind, header in one.headers.items():
        same = other.headers[kind]
        np.testing.assert_allclose(header.frequencies.inv_freq, same.frequencies.inv_freq, rtol=1e-7, atol=0.0)
        for name in ("attention_factor", "attention_logit_scale"):  # a file holds float32
            assert getattr(header.frequencies, name) == pytest.approx(getattr(same.frequencies, name), rel=1e-7)
        assert header.frequencies.streams.tolist() == same.frequencies.streams.tolist()
        assert (header.head_dim, header.rotary_dim) == (same.head_dim, same.rotary_dim)
        assert header.rotary_offset == same.rotary_offset
        assert header.context_length == same.context_length
        if "llama3" not in str(given):  # of which a file has the outcome only
            assert header.trained_length == same.trained_length
        assert (
            (header.layout, same.layout) in {("interleaved", "half")}
            if case in PERMUTED
            else {(layout, layout) for layout in ("interleaved", "half")}
        )


@pytest.mark.parametrize("seq_len", [None, 4096, 4097])
def test_phi_3_agrees_with_its_config_for_short_and_for_long_contexts(tmp_path: Path, seq_len: int | None) -> None:
    short, long = [1.0 + 0.01 * pair for pair in range(48)], [1.0 + pair for pair in range(48)]
    given = config(
        "phi3",
        hidden_size=3072,
        num_attention_heads=32,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        rope_scaling={"type": "longrope", "short_factor": short, "long_factor": long},
    )
    path = phi3(lambda *more, **values: written(tmp_path / "m.gguf", *more, **values))
    one, other = read_gguf(path, seq_len=seq_len), read_hf(given, seq_len=seq_len)
    np.testing.assert_allclose(one.frequencies.inv_freq, other.frequencies.inv_freq, rtol=1e-7, atol=0.0)
    assert one.frequencies.attention_factor == pytest.approx(other.frequencies.attention_factor, rel=1e-7)
    assert (one.trained_length, one.context_length) == (other.trained_length, other.context_length)
    assert (one.scheme, one.layout) == (other.scheme, other.layout) == ("longrope", "half")
