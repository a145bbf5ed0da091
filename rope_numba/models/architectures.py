"""How each architecture of GGUF files rotates: what a file does not say, because llama.cpp has it in its source.

From llama.cpp as of llama-cpp-python 0.3.36: `llama_model_rope_type` in `src/llama-model.cpp` for the layouts, checked
against what the graphs in `src/models/` do, where they differ (BERT, StarCoder and DeepSeek-OCR).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ALL",
    "ARCHITECTURES",
    "DIALECTS",
    "FULL",
    "REFUSED",
    "SLIDING",
    "UNKNOWN",
    "UNROTATED",
    "Architecture",
    "Windows",
]

FULL, SLIDING = "full_attention", "sliding_attention"  # types of layers, by the names that transformers has for them
ALL = "all"  # the one type where all layers are alike


@dataclass(frozen=True)
class Windows:
    """Which layers see a sliding window, and how those rotate otherwise than the rest."""

    period: int | None = None  # each period-th layer has none, unless the file says; None: the file must say
    full_first: bool = False  # whether it is the first of a period that has none, and not the last
    always: bool = False  # whether windows are there too where the file does not name their width
    theta: float | None = None  # their base where the file has none for them; None: that of the rest
    scaled: bool = True  # whether scaling is for them too
    factors: bool = True  # whether frequency factors are for them too


@dataclass(frozen=True)
class Architecture:
    """What the name of an architecture says about its rotation."""

    layout: Literal["interleaved", "half"]
    # The base of all its models, where a file has none; None: models have several, and the file must say.
    theta: float | None = None
    # Several positions for each token: pairs in "blocks" or in "turns" by rope.dimension_sections.
    sections: Literal["", "blocks", "turns"] = ""
    sections_layout: Literal["", "half"] = ""  # where sections may be missing: the layout if they are there
    sections_scheme: str = ""  # where they mean a scheme that is refused: its name
    windows: Windows | None = None
    # Layers without rotation, by number, whether they see a window, and how many dense layers come first.
    unrotated: Callable[[int, bool, int], bool] | None = None
    attention_interval: int = 0  # of each so many layers the last has attention, and the others a recurrence
    latent: bool = False  # heads are split, and only a part with a width of its own is rotated (MLA)
    logit_scale: bool = False  # YaRN also scales the logits; mscale_all_dim is stored as a tenth (DeepSeek-V2's family)
    whole_head: bool = False  # the converter permutes whole heads, so that a part of them cannot be rotated
    ignores_keys: bool = False  # plain rotation of whole heads, whatever the keys say
    full_width_halved: bool = False  # layers without a window rotate half of rope.dimension_count
    truncate: bool = True  # YaRN's ramp is widened to whole pairs
    yarn: str = "yarn"  # what scaling type yarn means
    longrope: str = ""  # what a file cannot hold of longrope
    alpha: bool = False  # rope.scaling.alpha is known
    switch: bool = False  # rope.scaling.finetuned switches the rotation off
    alibi_layers: int = 0  # with so many layers, it has ALiBi instead
    duty: str = ""  # what the caller must know besides
    indexer: tuple[str, str] | None = None  # the layout of its indexer, and which of its channels rotate


def _without_window(layer: int, window: bool, dense: int) -> bool:
    return not window


def _without_window_or_dense(layer: int, window: bool, dense: int) -> bool:
    return not window and layer >= dense


def _last_of_four(layer: int, window: bool, dense: int) -> bool:
    return layer % 4 == 3


def _first_of_four(layer: int, window: bool, dense: int) -> bool:
    return layer % 4 == 0


INTERLEAVED, HALF = Architecture("interleaved"), Architecture("half")
UNKNOWN = Architecture("half")  # what most architectures have, and most models as they are trained

_PLAIN_INTERLEAVED = """
    arcee bailingmoe chatglm command-r eagle3 internlm2 llada maincoder minicpm mistral3 nanbeige pockettts xverse
"""
# With the base 10,000 in all their models: the converter writes the base that a config.json states, and theirs state
# this one or none.
_TEN_THOUSAND_INTERLEAVED = "arctic chameleon deepseek neo-bert olmo"
_TEN_THOUSAND_HALF = "codeshell gemma gptneox olmoe openelm phi2 phi3 plamo"
_PLAIN_HALF = """
    apertus bailingmoe2 bitnet cogvlm dbrx dots1 dream eurobert exaone falcon-h1 grovemoe hrm_text hunyuan-dense
    hunyuan-moe hy_v3 jais2 jina-bert-v3 lfm2 lfm2moe llada-moe minimax-m2 minimax-m3 nemotron nomic-bert nomic-bert-moe
    orion pangu-embedded plamo2 qwen qwen2 qwen2moe qwen3 qwen3moe rnd1 seed_oss stablelm starcoder2 talkie
"""
_MLA = Architecture("interleaved", latent=True)
_DEEPSEEK = Architecture("interleaved", latent=True, logit_scale=True)
_LLAMA = Architecture("interleaved", whole_head=True)
_GRANITE = Architecture("interleaved", switch=True)
_TURNS = Architecture("half", sections="turns")
_HYBRID = Architecture("half", attention_interval=4)
_HYBRID_TURNS = Architecture("half", sections="turns", attention_interval=4)
_GEMMA4 = Architecture("half", windows=Windows(always=True, theta=1e4, scaled=False, factors=False))

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(_PLAIN_INTERLEAVED.split(), INTERLEAVED),
    **dict.fromkeys(_PLAIN_HALF.split(), HALF),
    **dict.fromkeys(_TEN_THOUSAND_INTERLEAVED.split(), Architecture("interleaved", theta=1e4)),
    **dict.fromkeys(_TEN_THOUSAND_HALF.split(), Architecture("half", theta=1e4)),
    # Heads that are rotated whole, or not at all.
    "llama": _LLAMA,
    "llama-embed": _LLAMA,
    "deci": _LLAMA,
    "falcon": Architecture("half", whole_head=True),
    # ALiBi in Baichuan 13B; no rotation where Granite 4 leaves it out.
    "baichuan": Architecture("interleaved", theta=1e4, alibi_layers=40),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitehybrid": _GRANITE,
    "graniteswitch": _GRANITE,
    "granite_swa": INTERLEAVED,
    # Latent attention: a part of each head, and one key for all heads.
    "deepseek2": _DEEPSEEK,
    "mistral4": _DEEPSEEK,
    "deepseek32": Architecture(
        "interleaved",
        latent=True,
        logit_scale=True,
        indexer=("half", ""),
    ),
    "glm-dsa": Architecture(
        "interleaved",
        latent=True,
        logit_scale=True,
        indexer=("interleaved", ""),
    ),
    "hy_v4": Architecture("interleaved", latent=True, indexer=("interleaved", "the last of ")),
    "plm": _MLA,
    "minicpm3": Architecture("half", latent=True),
    "dots3note": Architecture(
        "interleaved",
        latent=True,
        windows=Windows(always=True, theta=1e4),
        duty="Queries and keys of the indexer rotate in layout 'half', by the frequencies of full attention.",
    ),
    "deepseek2-ocr": Architecture("half", theta=1e4, ignores_keys=True),
    # Several positions for each token.
    "qwen2vl": Architecture("half", sections="blocks"),
    "paddleocr": Architecture("half", sections="blocks"),
    "glm4": Architecture("interleaved", sections="blocks", sections_layout="half"),
    "glm4moe": Architecture("half", sections="blocks", sections_layout="half"),
    "bailingmoe3": Architecture("interleaved", latent=True, sections="blocks", sections_layout="half"),
    "hunyuan_vl": Architecture("half", sections_scheme="xdrope", alpha=True),
    "ernie4_5": Architecture("interleaved", sections_scheme="ernie"),
    "ernie4_5-moe": Architecture("interleaved", sections_scheme="ernie"),
    "qwen3vl": _TURNS,
    "qwen3vlmoe": _TURNS,
    "qwen3tts": _TURNS,
    "qwen35": _HYBRID_TURNS,
    "qwen35moe": _HYBRID_TURNS,
    "qwen4exp": _HYBRID_TURNS,
    "qwen3next": _HYBRID,
    "minimax-01": Architecture("half", attention_interval=8),
    # YaRN and longrope with values that a file has no key for.
    "gpt-oss": Architecture("half", windows=Windows(2, always=True), truncate=False),
    "grok": Architecture("half", yarn="yarn_log"),
    "phimoe": Architecture(
        "half",
        theta=1e4,
        longrope="GGUF has no keys for short_mscale and long_mscale, which a config.json of phimoe can hold; the "
        "magnitude is another one there.",
    ),
    # Layers with a sliding window, which may rotate otherwise.
    "gemma2": Architecture("half", theta=1e4, windows=Windows(2, always=True)),
    "gemma3": Architecture("half", windows=Windows(6, theta=1e4, scaled=False)),
    "gemma3n": Architecture("half", windows=Windows(5, always=True, theta=1e4, scaled=False)),
    "gemma-embedding": Architecture("half", windows=Windows(6, always=True, theta=1e4, scaled=False)),
    "gemma4": _GEMMA4,
    "gemma4-assistant": _GEMMA4,
    "modern-bert": Architecture("half", windows=Windows(3, full_first=True, theta=1e4, scaled=False)),
    "plamo3": Architecture("half", windows=Windows(8, theta=1e4, scaled=False)),
    "mimo2": Architecture("half", windows=Windows(always=True, theta=1e4, scaled=False)),
    "step35": Architecture(
        "half", windows=Windows(always=True, theta=1e4, scaled=False, factors=False), full_width_halved=True
    ),
    "laguna": Architecture("half", windows=Windows(4, full_first=True, scaled=False, factors=False)),
    "olmo2": Architecture("half", windows=Windows(4, scaled=False)),
    "mellum": Architecture("half", windows=Windows(4, scaled=False)),
    "spark2_5": Architecture("half", windows=Windows(always=True)),
    # Layers without rotation.
    "smollm3": Architecture("interleaved", unrotated=_last_of_four),
    "llama4": Architecture(
        "interleaved",
        windows=Windows(4, always=True),
        unrotated=_last_of_four,
        duty="In layers that are not rotated, multiply each query by 1 + 0.1 * log(1 + floor((position + 1) / 8192)).",
    ),
    "afmoe": Architecture("half", windows=Windows(4), unrotated=_last_of_four),
    "smallthinker": Architecture("half", windows=Windows(4, full_first=True), unrotated=_first_of_four),
    "cohere2": Architecture("interleaved", windows=Windows(4, always=True), unrotated=_without_window),
    "cohere2moe": Architecture(
        "interleaved",
        windows=Windows(4, full_first=True, always=True),
        unrotated=_without_window_or_dense,
    ),
    "exaone4": Architecture("half", windows=Windows(4), unrotated=_without_window),
    "exaone-moe": Architecture("half", windows=Windows(4, always=True), unrotated=_without_window),
    "maple": Architecture("half", windows=Windows(always=True), unrotated=_without_window),
    "muse-glimmer": Architecture(
        "interleaved", windows=Windows(4, always=True, scaled=False), unrotated=_without_window
    ),
}

# Architectures without any rotation, and what they have instead.
UNROTATED: dict[str, str] = {
    **dict.fromkeys(["bert", "gpt2", "starcoder"], "a learned vector for each position"),
    **dict.fromkeys(["bloom", "jais", "jina-bert-v2", "mpt", "refact"], "ALiBi"),
    **dict.fromkeys(["t5", "t5encoder"], "a learned bias for each distance"),
    **dict.fromkeys(["arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"], "a recurrence and no attention"),
    **dict.fromkeys(
        ["glm5-next", "jamba", "kimi-k3", "kimi-linear", "nemotron_h", "nemotron_h_moe"],
        "recurrent layers that know the order, and attention without positions",
    ),
    "wavtokenizer-dec": "convolutions",
}

# Names that Ollama's converter has for architectures of llama.cpp, with keys that mean something else: what the model
# needs beyond them stands in Ollama's code.
DIALECTS: dict[str, str] = {
    "deepseekocr": "deepseek2-ocr",
    "gemma3n_text": "gemma3n",
    "glm4moelite": "deepseek2",
    "glmocr": "glm4",
    "gptoss": "gpt-oss",
    "mllama": "llama",
    "qwen25vl": "qwen2vl",
}

# Architectures whose rotation cannot be told from a header, and why.
REFUSED: dict[str, str] = {
    "clip": "it encodes images or sound, and the header does not say how",
    "deepseek4": "its layers have one of two bases, and rotate the output of attention back",
    "dflash": "a draft model rotates as the model that it drafts for",
    "gptj": "llama.cpp does not run it, so that nobody has laid down what its keys mean",
}
