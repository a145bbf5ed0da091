"""Model types: what each takes for granted, which are other types by another name, and which are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .types import MODELS, H, I, Model

__all__ = [
    "ALIASES",
    "ATTENTION_FREE",
    "ATTENTION_TYPES",
    "CERTAIN",
    "NO_ROTATION",
    "OTHERS_CODE",
    "REFUSED_MODELS",
    "REMOTE",
    "ROTARY_VARIANTS",
    "SWITCHES",
    "TEXT_PARTS",
    "Known",
    "known",
    "type_of_class",
]


@dataclass(frozen=True)
class Known:
    """A model type's row, and the name that it stands under."""

    name: str
    model: Model


# Types whose code comes with their weights, so that no installed transformers can confirm them. internlm2 and internlm:
# Llama's rotation (vLLM, models/internlm2.py). deepseek: Llama's (DeepSeek-MoE). kimi_k2: DeepSeek-V3's, as its
# config.json says by its auto_map. longcat_flash_ngram: LongCat-Flash's (LongCat-Flash-Lite). minimax_m1,
# minimax_text_01: MiniMax's, in layers that attn_type_list names. sarvam_mla and sarvam_moe: transformers runs them
# with the code of deepseek_v3 and glm4_moe.
REMOTE: dict[str, Model] = {
    "deepseek": Model(H, 4_096, 32, None, 2_048),
    "internlm": Model(H, 4_096, 32, None, 2_048),
    "internlm2": Model(H, 4_096, 32, None, 2_048),
    "kimi_k2": replace(MODELS["deepseek_v3"], theta=50_000.0, context=131_072),
    "longcat_flash_ngram": MODELS["longcat_flash"],
    "minimax_m1": replace(MODELS["minimax"], pattern="", reads_rotary_dim=True),
    "minimax_text_01": replace(MODELS["minimax"], pattern="", reads_rotary_dim=True),
    "phi3_v": replace(MODELS["phi3"]),
    "sarvam_mla": Model(I, 4_096, 64, 64, 4_096, latent=True, flagged=True),
    "sarvam_moe": Model(H, 4_096, 64, 64, 131_072, theta=8_000_000, partial=1.0),
}

# Names that published files have for types of the tables, and transformers does not register.
ALIASES: dict[str, str] = {
    "deepseek_vl_v2": "deepseek_v2",
    "exaone4_5_text": "exaone4",
    "youtu_llm": "youtu",
}

# Multimodal types and the type of their text part, for files that keep both in one dict or do not name the part.
TEXT_PARTS: dict[str, str] = {
    "apertus1p5": "apertus1p5_text",
    "aria": "aria_text",
    "cohere2_vision": "cohere2",
    "cohere_compass": "cohere_compass_text",
    "cosmos3_edge": "cosmos3_edge_text",
    "deepseek_ocr2": "deepseek_ocr2_text",
    "dots3_note": "dots3_note_text",
    "diffusion_gemma": "diffusion_gemma_text",
    "embedding_gemma2": "embedding_gemma2_text",
    "emu3": "emu3_text_model",
    "ernie4_5_vl_moe": "ernie4_5_vl_moe_text",
    "exaone4_5": "exaone4",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm46v": "glm4v_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "glm_image": "glm_image_text",
    "glm_ocr": "glm_ocr_text",
    "granite4_vision": "granite4_vision_text",
    "granite_docling": "granite_docling_text",
    "hunyuan_vl": "hunyuan_vl_text",
    "hy_v4_vl": "hy_v4_vl_text",
    "hyperclovax_vision_v2": "hyperclovax",
    "idefics2": "mistral",
    "idefics3": "llama",
    "internvl": "qwen2",
    "kimi_k25": "deepseek_v3",
    "lfm2_vl": "lfm2",
    "lfm3_vl": "lfm3",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_onevision": "qwen2",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "mistral3": "mistral",
    "mistral_large4": "mistral_large4_text",
    "mllama": "mllama_text_model",
    "molmo2": "molmo2_text",
    "muse_glimmer": "muse_glimmer_text",
    "muse_spark": "muse_spark_text",
    "paddleocr_vl": "paddleocr_vl_text",
    "paligemma": "gemma",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_audio": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "smolvlm": "llama",
    "step3p7": "step3p5",
    "t5gemma2_encoder": "t5gemma2_text",
    "ultravbert": "ultrabert",
    "unlimited_ocr": "unlimited_ocr_text",
    "voxtral": "llama",
    "voxtral_realtime": "voxtral_realtime_text",
}

LEARNED = "it has learned positions"
BIASED = "it has biases by distance (ALiBi)"
RELATIVE = "it has relative positions"
RECURRENT = "it is recurrent and has no positions"
UNMARKED = "its attention layers have no positions"

# Types without rotary position embeddings.
NO_ROTATION: dict[str, str] = {
    **dict.fromkeys(("albert", "bart", "bert", "biogpt", "camembert", "distilbert", "electra", "gpt-sw3"), LEARNED),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo", "mbart", "openai-gpt", "opt", "roberta", "whisper"), LEARNED),
    **dict.fromkeys(("xlm", "xlm-roberta", "xglm", "ctrl", "marian", "pegasus", "m2m_100", "longformer"), LEARNED),
    **dict.fromkeys(("bloom", "mpt"), BIASED),
    **dict.fromkeys(("deberta", "deberta-v2", "longt5", "mt5", "switch_transformers", "t5", "umt5", "xlnet"), RELATIVE),
    **dict.fromkeys(("falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"), RECURRENT),
    **dict.fromkeys(("glm5_next_text", "jamba", "kimi_linear", "nemotron_h", "zamba"), UNMARKED),
}

# What is so whatever the file says: keys of RoPE in files of these types are left over from others.
CERTAIN = (RECURRENT, UNMARKED)

# Types of NO_ROTATION whose files mean a type that rotates, if position_embedding_type is "rotary".
ROTARY_VARIANTS: dict[str, str] = {"xlm-roberta": "jina_embeddings_v3"}

# Types whose files name the class of another type, and rotate by the row of their own.
OTHERS_CODE: dict[str, str] = {"jina_embeddings_v3": "xlm-roberta", "sarvam_moe": "glm4_moe"}

# Types that rotate only if a key has this value.
SWITCHES: dict[str, tuple[str, object]] = {
    "esm": ("position_embedding_type", "rotary"),
    "granitemoehybrid": ("position_embedding_type", "rope"),
    "zamba2": ("use_mem_rope", True),
}

# Types that rotate in a way of their own.
REFUSED_MODELS: dict[str, str] = {
    "blt": "each of its parts has a width and a base of its own; the dict of a part is read",
    "baichuan": "its sizes have different kinds of positions under one name",
    "chatglm": "its file names widths and base in a way of its own; the type glm is the same model",
    "cohere2_moe": "some of its full-attention layers rotate and some do not",
    "deepseek_v4": "its attention output is rotated back, and its layers use two sets of frequencies",
    "dots3_note_text": "its layers differ in the width of their rotary part",
    "ernie4_5_vl_moe_text": "height and width alternate from pair to pair",
    "hunyuan_vl_text": "its axes are cut over channels, not over pairs",
    "mistral_large4_text": "its frequencies are changed by trained weights",
    "molmo2_text": "some of its layers are scaled and some are not",
    "muse_glimmer_text": "which of its layers rotate is written in no key",
    "muse_spark_text": "which of its layers rotate is written in no key",
    "neomme": "row and column alternate from pair to pair",
    "phi3small": "its base and its positions are scaled by keys of its own",
    "qwen": "its base and its queries change with the length of the text",
}

# Layer types, as files call them, whose layers have attention that rotates, unless the model type says otherwise.
ATTENTION_TYPES = frozenset(
    (
        *("attention", "full_attention", "sliding_attention", "chunked_attention", "window_attention", "hybrid"),
        *("hybrid_sliding", "reference_sliding_attention", "global_attention", "local_attention", "minimax_m3_sparse"),
        *("indexed_attention", "deepseek_sparse_attention", "qwen_sparse_attention", "sparse_attention"),
        *("compressed_sparse_attention", "heavily_compressed_attention"),
    )
)
# Layer types, as files call them, whose layers have no attention to rotate for.
ATTENTION_FREE = frozenset(
    (
        *("conv", "cross_attention", "lightning_attention", "linear_attention", "mamba", "mamba2", "mlp", "moe"),
        *("recurrent", "rwkv", "short_conv"),
    )
)


def known(model_type: str) -> Known | None:
    """Return what is known of a model type, or None if it is unknown."""
    name = TEXT_PARTS.get(model_type, model_type)
    name = ALIASES.get(name, name)
    model = MODELS.get(name) or REMOTE.get(name)
    return None if model is None else Known(name, model)


def type_of_class(name: str) -> str | None:
    """Return the model type of a class that `architectures` names, or None if none of the tables has it.

    Examples
    --------
    >>> type_of_class("CohereForCausalLM"), type_of_class("GPTNeoXForCausalLM"), type_of_class("Chronos2Model")
    ('cohere', 'gpt_neox', None)
    """
    stem = re.sub(r"(For[A-Z]\w*|LMHeadModel|Model)$", "", name)
    return _TYPES_BY_CLASS.get(_letters(stem))


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


_TYPES_BY_CLASS = {
    _letters(name): name
    for table in (NO_ROTATION, REFUSED_MODELS, SWITCHES, REMOTE, ALIASES, TEXT_PARTS, MODELS)
    for name in table
}
