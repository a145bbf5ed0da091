"""What transformers assumes of each of its model types where a config.json is silent: one row for each.

Every row is compared with the configuration and the rotary module of transformers 5.23.0 in tests/test_hf_peers.py.
Types of which a row would not be the whole truth stand in defaults.py, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MODELS", "Model"]

H, I = "half", "interleaved"  # noqa: E741


@dataclass(frozen=True)
class Model:
    """What is known of a model type: how it rotates, and what it takes for keys that a file leaves out."""

    layout: str
    hidden_size: int | None
    heads: int | None
    head_dim: int | None  # None: hidden_size / heads
    context: int | None
    theta: float = 10_000.0
    partial: float | None = None  # None: its code has no partial rotation under the default scheme
    rope: dict[str, Any] | None = None  # what stands for a missing dict; by layer type, where layers differ
    rotary_dim: int | None = None
    original: int | None = None  # original_max_position_embeddings, where it is a key of its own
    latent: bool = False  # rotates a part of its own, of qk_rope_head_dim channels (MLA)
    flagged: bool = False  # the key rope_interleave decides the layout
    sections: tuple[int, ...] = ()  # of multi-axis positions
    in_turns: bool = False  # those sections are interleaved
    pattern: str = ""  # the order of layers, repeated, in the letters of kinds.NAMES
    first: str = ""  # the first layers, where they are not those of the pattern
    ends_full: bool = False  # the last layer has full attention, whatever the pattern or the file says
    still: tuple[str, ...] = ()  # layer types that are not rotated
    windowless: bool = False  # where the file says that there is no window, all layers have full attention and rotate
    window_needed: bool = False  # where the file says that there is no window, no layer rotates
    cross_attention: tuple[int, ...] = ()  # layers that attend to an image, and are not rotated
    flat: tuple[str, ...] = ()  # of layers that differ, those for which a flat dict holds
    global_head_dim: int | None = None  # of full-attention layers
    hybrid: bool = False  # some layers have no attention; without a pattern, the file must say which
    no_rope_interval: int | None = None  # each layer of this number is not rotated
    needs_theta: bool = False  # without a theta it does not rotate at all
    theta_dict: str = ""  # the dict that holds rope_theta, if it is not the file's own
    latent_switch: bool = False  # use_mla: false, or qk_rope_head_dim: 0, makes it Llama's attention
    reads_rotary_dim: bool = True  # transformers' code of the type looks at the key rotary_dim
    yarn_is_longrope: bool = False  # its files call longrope yarn
    backwards: bool = False  # pairs turn the other way
    temperature: bool = False  # queries of layers without rotation are scaled by their position
    indexer: tuple[str, str] | None = None  # the layout of its indexer, and which of its channels rotate
    duty: str = ""  # what is left to the caller besides
    conflict: str = ""  # where transformers' code differs from what the weights were trained with


FULL = ("full_attention",)
BOTH = ("full_attention", "sliding_attention")


def _by_layer(full: dict[str, Any], sliding: dict[str, Any]) -> dict[str, Any]:
    return {"full_attention": full, "sliding_attention": sliding}


LOCAL = {"rope_theta": 10_000.0}
YARN = {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0}
MSCALE = {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
LLAMA_3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TRAINED = "original_max_position_embeddings"
SHARE = "partial_rotary_factor"

APERTUS = {**LLAMA_3, "factor": 8.0, TRAINED: 8_192}
BEAM: dict[str, Any] = {"full_attention": None, "sliding_attention": LOCAL}
CWM = {**LLAMA_3, "factor": 16.0, TRAINED: 8_192}
GPT_OSS = {**YARN, "factor": 32.0, "truncate": False, TRAINED: 4_096}
MINISTRAL_3 = {**YARN, **MSCALE, "factor": 16.0, TRAINED: 16_384, "rope_theta": 1_000_000.0}
MISTRAL_4 = {**YARN, **MSCALE, "factor": 128.0, TRAINED: 8_192}
GEMMA_3 = _by_layer({"rope_theta": 1_000_000.0}, LOCAL)
GEMMA_4 = _by_layer({"rope_type": "proportional", SHARE: 0.25, "rope_theta": 1_000_000.0}, LOCAL)
LAGUNA = _by_layer({"rope_theta": 500_000.0, SHARE: 0.5}, {"rope_theta": 10_000.0, SHARE: 1.0})
LFM_3 = _by_layer({"rope_type": "proportional", SHARE: 0.5, "rope_theta": 1_000_000.0}, LOCAL)
MELLUM = _by_layer({"rope_theta": 500_000.0}, LOCAL)
MIMO = _by_layer({"rope_theta": 5_000_000.0, SHARE: 0.334}, {"rope_theta": 10_000.0, SHARE: 0.334})
MODERNBERT = _by_layer({"rope_theta": 160_000.0}, LOCAL)
OLMO_3 = _by_layer({}, {})
STEP: dict[str, Any] = _by_layer({}, {})
ULTRABERT = _by_layer({"rope_theta": 2_560_000.0}, LOCAL)
ZAYA = {
    "hybrid": {"rope_theta": 5_000_000.0, SHARE: 0.5},
    "hybrid_sliding": {"rope_theta": 10_000.0, SHARE: 0.5},
}

CROSS = "Queries and keys of cross-attention are not rotated."
# Pairs are neighbours in vLLM's code of this type, for the indexer too ("the checkpoint stores indexer q_pe/k_pe in
# interleaved layout"), in llama.cpp, and in transformers' code of hy_v4_vl, which loads the same weights unpermuted.
HY_INDEXER = ("interleaved", "the last of ")
HY_LAYOUT = (
    "transformers' code of model_type 'hy_v4' rotates halves; vLLM's, llama.cpp's and that of 'hy_v4_vl' rotate "
    "neighbours, which was followed."
)

# layout, hidden_size, heads, head_dim, context
MODELS: dict[str, Model] = {
    "afmoe": Model(H, 2_048, 16, 128, 16_384, pattern="LLLG", still=FULL),
    "apertus": Model(H, 4_096, 32, None, 65_536, theta=12_000_000, rope=APERTUS),
    "apertus1p5_text": Model(H, 4_096, 32, None, 65_536, theta=12_000_000, rope=APERTUS),
    "arcee": Model(H, 2_560, 32, None, 4_096),
    "aria_text": Model(H, 4_096, 32, None, 2_048),
    "axk1": Model(I, 7_168, 64, 64, 32_768, latent=True, flagged=True),
    "axk2": Model(I, 2_048, 32, 32, 131_072, latent=True, indexer=("half", "")),
    "bailing_hybrid": Model(I, 2_560, 32, 64, 262_144, theta=6_000_000, latent=True, hybrid=True, pattern="RRRRRG"),
    "bamba": Model(H, 4_096, 32, None, 262_144, partial=0.5, hybrid=True),
    "beam": Model(H, 5_120, 48, 128, 8_192, rope=BEAM, pattern="LLLLLG", ends_full=True),
    "bitnet": Model(H, 2_560, 20, None, 2_048, theta=500_000),
    "blt_global_transformer": Model(I, 2_048, 16, None, 4_096, theta=500_000),
    "blt_local_decoder": Model(I, 1_024, 16, None, 24_576, theta=500_000),
    "blt_local_encoder": Model(I, 1_024, 16, None, 24_576, theta=500_000),
    "blt_patcher": Model(I, 768, 12, None, 8_192),
    "chameleon": Model(H, 4_096, 32, None, 4_096),
    "codegen": Model(I, 4_096, 16, None, 2_048, rotary_dim=64),
    "cohere": Model(I, 8_192, 64, None, 8_192, theta=500_000),
    "cohere2": Model(I, 8_192, 64, None, 8_192, pattern="LLLG", still=FULL, window_needed=True),
    "cohere_compass_text": Model(H, 8_192, 64, None, 8_192, sections=(24, 20, 20), in_turns=True, pattern="LLLG"),
    "cosmos3_edge_text": Model(H, 2_048, 16, 128, 131_072, theta=100_000_000, sections=(24, 20, 20), in_turns=True),
    "csm": Model(H, 2_048, 32, None, 2_048, theta=500_000),
    "cwm": Model(H, 6_144, 48, 128, 131_072, theta=1_000_000, rope=CWM),
    "dbrx": Model(H, 2_048, 16, None, 2_048, theta_dict="attn_config"),
    "deepseek_ocr2_text": Model(H, 4_096, 32, None, 2_048),
    "deepseek_v2": Model(I, 4_096, 32, 64, 2_048, latent=True, latent_switch=True),
    "deepseek_v3": Model(I, 7_168, 128, 64, 4_096, latent=True, flagged=True),
    "deepseek_v32": Model(I, 7_168, 128, 64, 163_840, latent=True, indexer=("half", "")),
    "diffllama": Model(H, 2_048, 32, None, 2_048),
    "diffusion_gemma_text": Model(
        H, 2_304, 8, 256, 131_072, partial=1.0, rope=GEMMA_4, global_head_dim=512, pattern="LLLLLG", ends_full=True
    ),
    "doge": Model(H, 1_024, 8, None, 2_048),
    "dots1": Model(H, 4_608, 32, None, 2_048),
    "embedding_gemma2_text": Model(
        H, 512, 4, 256, 262_144, rope=GEMMA_3, global_head_dim=512, pattern="LLLLLG", ends_full=True
    ),
    "emu3_text_model": Model(H, 4_096, 32, None, 9_216, theta=1_000_000),
    "ernie4_5": Model(I, 1_024, 16, 128, 131_072, theta=500_000),
    "ernie4_5_moe": Model(I, 2_560, 20, None, 131_072, theta=500_000),
    "esm": Model(H, 768, 12, None, 1_026),
    "eurobert": Model(H, 768, 12, None, 8_192),
    "exaone": Model(H, 4_096, 32, None, 4_096, theta=500_000),
    "exaone4": Model(H, 4_096, 32, None, 2_048, pattern="LLLG", still=FULL, windowless=True),
    "exaone_moe": Model(H, 4_096, 32, None, 2_048, pattern="LLLG", still=FULL, windowless=True),
    "falcon": Model(H, 4_544, 71, None, 2_048),
    "falcon_h1": Model(H, 4_096, 32, None, 8_192),
    "flex_olmo": Model(H, 4_096, 32, None, 4_096, theta=500_000),
    "flint": Model(
        H, 2_048, 32, 128, 262_144, pattern="LGLL", first="GG", ends_full=True, still=FULL, window_needed=True
    ),
    "gemma": Model(H, 3_072, 16, 256, 8_192),
    "gemma2": Model(H, 2_304, 8, 256, 8_192),
    "gemma3_text": Model(H, 2_304, 8, 256, 131_072, rope=GEMMA_3, pattern="LLLLLG", flat=FULL),
    "gemma3n_text": Model(H, 2_048, 8, 256, 32_768, rope=GEMMA_3, pattern="LLLLG", flat=FULL),
    "gemma4_text": Model(
        H, 2_304, 8, 256, 131_072, rope=GEMMA_4, global_head_dim=512, pattern="LLLLLG", ends_full=True
    ),
    "gemma4_unified_text": Model(
        H, 2_304, 8, 256, 262_144, rope=GEMMA_4, global_head_dim=512, pattern="LLLLLG", ends_full=True
    ),
    "glm": Model(I, 4_096, 32, 128, 131_072, partial=0.5),
    "glm4": Model(I, 4_096, 32, 128, 131_072, partial=0.5),
    "glm4_moe": Model(H, 4_096, 96, None, 131_072, partial=0.5),
    "glm4_moe_lite": Model(I, 2_048, 20, 64, 202_752, partial=1.0, latent=True, flagged=True),
    "glm4v_moe_text": Model(H, 4_096, 96, None, 65_536, partial=0.5, sections=(8, 12, 12)),
    "glm4v_text": Model(I, 4_096, 32, None, 32_768, partial=1.0, sections=(8, 12, 12)),
    "glm_image_text": Model(H, 4_096, 32, None, 131_072, partial=1.0, sections=(8, 12, 12)),
    "glm_moe_dsa": Model(I, 6_144, 64, 64, 202_752, latent=True, indexer=("interleaved", "")),
    "glm_ocr_text": Model(I, 1_024, 16, None, 131_072, partial=1.0, sections=(8, 12, 12)),
    "gpt_neox": Model(H, 6_144, 64, None, 2_048, partial=0.25),
    "gpt_neox_japanese": Model(H, 2_560, 32, None, 2_048, partial=1.0),
    "gpt_oss": Model(H, 2_880, 64, 64, 131_072, theta=150_000, rope=GPT_OSS),
    "gptj": Model(I, 4_096, 16, None, 2_048, rotary_dim=64),
    "granite": Model(H, 4_096, 32, None, 2_048),
    "granite4_vision_text": Model(H, 4_096, 32, None, 2_048),
    "granite_docling_text": Model(H, 1_024, 16, None, 32_768),
    "granite_swa": Model(H, 2_560, 20, None, 8_192),
    "granitemoe": Model(H, 4_096, 32, None, 2_048),
    "granitemoe_swa": Model(H, 4_096, 32, None, 2_048),
    "granitemoehybrid": Model(H, 4_096, 32, None, 2_048, hybrid=True),
    "granitemoeshared": Model(H, 4_096, 32, None, 2_048),
    "gte": Model(H, 768, 12, None, 8_192, theta=160_000),
    "helium": Model(I, 2_560, 20, 128, 4_096, theta=100_000),
    "hrm_text": Model(H, 1_536, 12, 128, 2_048),
    "hunyuan_v1_dense": Model(H, 4_096, 32, None, 2_048),
    "hunyuan_v1_moe": Model(H, 4_096, 32, None, 2_048),
    "hy_v3": Model(H, 4_096, 64, 128, 131_072, theta=11_158_840),
    "hy_v4": Model(I, 2_816, 32, 64, 262_144, latent=True, indexer=HY_INDEXER, conflict=HY_LAYOUT),
    "hy_v4_vl_text": Model(
        I, 6_144, 64, 64, 262_144, latent=True, sections=(12, 10, 10), in_turns=True, indexer=HY_INDEXER
    ),
    "hyperclovax": Model(H, 4_096, 32, None, 2_048),
    "internlm3": Model(H, 4_096, 32, 128, 32_768),
    "iquestcoder": Model(H, 5_120, 40, 128, 131_072),
    "jais2": Model(H, 3_328, 26, None, 8_192),
    "jetmoe": Model(H, 2_048, 32, 128, 4_096),
    "jina_embeddings_v3": Model(H, 1_024, 16, None, 8_194, theta=20_000),
    "kolibri1": Model(H, 2_560, 48, 128, 262_144, pattern="LLLLG", still=FULL, windowless=True),
    "laguna": Model(H, 2_048, 48, 128, 131_072, partial=1.0, rope=LAGUNA, pattern="G"),
    "lara_mini": Model(H, 1_024, 16, 128, 131_072, pattern="RLRGL", still=FULL),
    "lfm2": Model(H, 2_560, 32, None, 128_000, theta=1_000_000, hybrid=True),
    "lfm2_moe": Model(H, 2_048, 32, None, 128_000, theta=1_000_000, hybrid=True),
    "lfm3": Model(H, 2_048, 16, 128, 128_000, rope=LFM_3, theta=1_000_000, hybrid=True, pattern="LCGC", first="C"),
    "llama": Model(H, 4_096, 32, None, 2_048),
    "llama4_text": Model(I, 5_120, 40, 128, 131_072, theta=500_000, no_rope_interval=4, temperature=True),
    "longcat_flash": Model(I, 6_144, 64, 64, 131_072, theta=10_000_000, latent=True),
    "mellum": Model(H, 2_304, 32, 128, 131_072, partial=1.0, rope=MELLUM, pattern="G"),
    "mimo_v2_flash": Model(H, 4_096, 64, 192, 131_072, partial=0.334, rope=MIMO, pattern="LLLLLG", first="G"),
    "minicpm3": Model(H, 2_560, 40, 32, 32_768, latent=True),
    "minimax": Model(H, 4_096, 32, None, 131_072, theta=1_000_000, hybrid=True, pattern="GR", reads_rotary_dim=False),
    "minimax_m2": Model(H, 3_072, 48, 128, 196_608, theta=5_000_000, partial=1.0),
    "minimax_m3_vl_text": Model(H, 6_144, 64, 128, 524_288, theta=5_000_000, partial=1.0, reads_rotary_dim=False),
    "ministral": Model(H, 4_096, 32, None, 131_072),
    "ministral3": Model(H, 4_096, 32, 128, 262_144, rope=MINISTRAL_3),
    "mistral": Model(H, 4_096, 32, None, 131_072),
    "mistral4": Model(I, 4_096, 32, 64, 1_048_576, rope=MISTRAL_4, latent=True, flagged=True),
    "mixtral": Model(H, 4_096, 32, None, 131_072, theta=1_000_000),
    "mllama_text_model": Model(
        H, 4_096, 32, None, 131_072, theta=500_000, cross_attention=(3, 8, 13, 18, 23, 28, 33, 38)
    ),
    "modernbert": Model(H, 768, 12, None, 8_192, rope=MODERNBERT, pattern="GLL", flat=BOTH),
    "modernbert-decoder": Model(H, 768, 12, None, 8_192, rope=MODERNBERT, pattern="GLL", flat=BOTH),
    "moonshine": Model(I, 288, 8, None, 512, partial=0.9, duty=CROSS),
    "nanochat": Model(H, 768, 6, None, 2_048, backwards=True),
    "nemotron": Model(H, 6_144, 48, None, 4_096, partial=0.5),
    "nomic_bert": Model(H, 768, 12, None, 2_048, theta=1_000, flagged=True),
    "olmo": Model(H, 4_096, 32, None, 2_048),
    "olmo2": Model(H, 4_096, 32, None, 2_048),
    "olmo3": Model(H, 4_096, 32, None, 2_048, rope=OLMO_3, theta=500_000, pattern="LLLG", flat=FULL),
    "olmo_hybrid": Model(H, 3_840, 30, None, 65_536, hybrid=True, needs_theta=True, pattern="RRRG"),
    "olmoe": Model(H, 2_048, 16, None, 4_096),
    "openai_privacy_filter": Model(I, 640, 14, 64, 131_072, theta=150_000, rope=GPT_OSS),
    "paddleocr_vl_text": Model(H, 1_024, 16, 128, 131_072, theta=500_000, sections=(16, 24, 24)),
    "persimmon": Model(H, 4_096, 64, None, 16_384, partial=0.5),
    "phi": Model(H, 2_048, 32, None, 2_048, partial=0.5),
    "phi3": Model(H, 3_072, 32, None, 4_096, partial=1.0, original=4_096, yarn_is_longrope=True),
    "phi4_multimodal": Model(H, 3_072, 32, None, 131_072, partial=1.0, original=4_096, yarn_is_longrope=True),
    "phimoe": Model(H, 4_096, 32, None, 131_072, theta=1_000_000, yarn_is_longrope=True),
    "qwen2": Model(H, 4_096, 32, None, 32_768),
    "qwen2_5_omni_text": Model(H, 3_584, 28, None, 32_768, theta=1_000_000, sections=(16, 24, 24)),
    "qwen2_5_vl_text": Model(H, 8_192, 64, None, 32_768, theta=1_000_000, sections=(16, 24, 24)),
    "qwen2_moe": Model(H, 2_048, 16, None, 32_768),
    "qwen2_vl_text": Model(H, 8_192, 64, None, 32_768, theta=1_000_000, sections=(16, 24, 24)),
    "qwen3": Model(H, 4_096, 32, 128, 32_768),
    "qwen3_5_moe_text": Model(
        H, 2_048, 16, 256, 32_768, partial=0.25, sections=(11, 11, 10), in_turns=True, hybrid=True, pattern="RRRG"
    ),
    "qwen3_5_text": Model(
        H, 4_096, 16, 256, 32_768, partial=0.25, sections=(11, 11, 10), in_turns=True, hybrid=True, pattern="RRRG"
    ),
    "qwen3_moe": Model(H, 2_048, 32, None, 32_768),
    "qwen3_next": Model(H, 2_048, 16, 256, 32_768, partial=0.25, hybrid=True, pattern="RRRG"),
    "qwen3_omni_moe_text": Model(H, 2_048, 28, None, 32_768, theta=1_000_000, sections=(24, 20, 20), in_turns=True),
    "qwen3_vl_moe_text": Model(H, 2_048, 16, None, 128_000, theta=500_000, sections=(24, 20, 20), in_turns=True),
    "qwen3_vl_text": Model(H, 4_096, 32, 128, 128_000, theta=500_000, sections=(24, 20, 20), in_turns=True),
    "qwen4_exp_text": Model(
        H, 2_048, 16, 256, 32_768, partial=1.0, sections=(11, 11, 10), in_turns=True, hybrid=True, pattern="RRRG"
    ),
    "recurrent_gemma": Model(H, 2_560, 10, None, None, partial=0.5, hybrid=True, pattern="RRL"),
    "seed_oss": Model(H, 4_096, 80, 128, 524_288),
    "smollm3": Model(H, 2_048, 16, None, 32_768, theta=2_000_000, no_rope_interval=4),
    "solar_open": Model(H, 4_096, 64, 128, 131_072, theta=1_000_000, partial=1.0),
    "stablelm": Model(H, 2_560, 32, None, 4_096, partial=0.25),
    "starcoder2": Model(H, 3_072, 24, None, 4_096),
    "step3p5": Model(H, 4_096, 64, 128, 128_000, partial=1.0, rope=STEP, pattern="G", flat=FULL),
    "t5_gemma_module": Model(H, 2_304, 8, 256, 8_192),
    "t5gemma2_decoder": Model(H, 2_304, 8, 256, 131_072, rope=GEMMA_3, pattern="LLLLLG", flat=FULL),
    "t5gemma2_text": Model(H, 2_304, 8, 256, 131_072, rope=GEMMA_3, pattern="LLLLLG", flat=FULL),
    "ultrabert": Model(H, 4_096, 32, None, 32_768, rope=ULTRABERT, pattern="LLG"),
    "unlimited_ocr_text": Model(H, 1_280, 10, None, 32_768),
    "vaultgemma": Model(H, 2_304, 8, 256, 8_192),
    "voxtral_realtime_text": Model(H, 4_096, 32, None, 131_072),
    "youtu": Model(I, 2_048, 16, 64, 131_072, latent=True, flagged=True),
    "zaya": Model(H, 2_048, 8, 128, 131_072, partial=1.0, rope=ZAYA),
}
