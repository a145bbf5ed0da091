"""Make golden.json: what follows from the configurations beside this file, in 50 digits, without rope_numba.

    python tests/configs/make_golden.py

Each model's rule is written out below from its paper and from the model's own description; only numbers are taken from
the files. Nothing here looks for keys under several names: that is what the reader is tested for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpmath import ceil, floor, log, mp, mpf, pi, sqrt

mp.dps = 50
HERE = Path(__file__).parent
Config = dict[str, Any]
Speeds = list[mpf]


def plain(width: int, theta: float) -> Speeds:
    return [mpf(theta) ** (-mpf(2 * pair) / width) for pair in range(width // 2)]


def m(factor: float, weight: float) -> mpf:
    return mpf(1) if factor <= 1 else mpf("0.1") * mpf(weight) * log(mpf(factor)) + 1


def yarn(width: int, theta: float, rope: Config) -> Speeds:
    factor, trained = mpf(rope["factor"]), mpf(rope["original_max_position_embeddings"])

    def pair_of(turns: float) -> mpf:
        return width * log(trained / (2 * pi * mpf(turns))) / (2 * log(mpf(theta)))

    low, high = pair_of(rope.get("beta_fast", 32)), pair_of(rope.get("beta_slow", 1))
    if rope.get("truncate", True):
        low, high = mpf(floor(low)), mpf(ceil(high))
    low, high = max(low, mpf(0)), min(high, mpf(width - 1))
    if low == high:
        high += mpf("0.001")
    ramp = [min(max((pair - low) / (high - low), mpf(0)), mpf(1)) for pair in range(width // 2)]
    return [(1 - g) * w + g * w / factor for g, w in zip(ramp, plain(width, theta), strict=True)]


def llama3(width: int, theta: float, rope: Config) -> Speeds:
    """Return the three bands of Llama 3.1, by wavelength, as its own code has them."""
    factor, trained = mpf(rope["factor"]), mpf(rope["original_max_position_embeddings"])
    low, high = mpf(rope["low_freq_factor"]), mpf(rope["high_freq_factor"])
    made = []
    for w in plain(width, theta):
        wavelength = 2 * pi / w
        if wavelength < trained / high:
            made.append(w)
        elif wavelength > trained / low:
            made.append(w / factor)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            made.append((1 - smooth) * w / factor + smooth * w)
    return made


def divided(width: int, theta: float, by: list[float]) -> Speeds:
    return [w / mpf(d) for w, d in zip(plain(width, theta), by, strict=True)]


def dynamic(width: int, theta: float, factor: float, trained: int, length: int) -> Speeds:
    grown = mpf(factor) * max(length, trained) / trained - (mpf(factor) - 1)
    return plain(width, mpf(theta) * grown ** (mpf(width) / (width - 2)))


def proportional(head_dim: int, theta: float, share: float) -> Speeds:
    turning = int(share * head_dim) // 2
    return plain(head_dim, theta)[:turning] + [mpf(0)] * (head_dim // 2 - turning)


def blocks(sections: list[int]) -> list[int]:
    return [axis for axis, pairs in enumerate(sections) for _ in range(pairs)]


def in_turns(sections: list[int]) -> list[int]:
    axes = [0] * sum(sections)
    for axis in (1, 2):
        for place in range(axis, 3 * sections[axis], 3):
            axes[place] = axis
    return axes


def entry(
    head_dim: int,
    speeds: Speeds,
    layout: str = "half",
    *,
    scheme: str = "default",
    magnitude: Any = 1,
    logit_scale: Any = 1,
    axes: list[int] | None = None,
    trained: int | None = None,
    context: int | None = None,
    call: Config | None = None,
) -> Config:
    return {
        "call": call or {},
        "scheme": scheme,
        "head_dim": head_dim,
        "rotary_dim": 2 * len(speeds),
        "layout": layout,
        "attention_factor": mp.nstr(mpf(magnitude), 20),
        "attention_logit_scale": mp.nstr(mpf(logit_scale), 20),
        "trained_length": trained,
        "context_length": context,
        "axes": axes,
        "inv_freq": [mp.nstr(speed, 20) for speed in speeds],
    }


def whole_head(c: Config, layout: str = "half") -> list[Config]:
    """Return the plain rotation of all channels."""
    width = c["hidden_size"] // c["num_attention_heads"]
    length = c["max_position_embeddings"]
    return [entry(width, plain(width, c["rope_theta"]), layout, trained=length, context=length)]


def part_of_head(c: Config, width: int, share: float, theta: float, length: int, layout: str) -> list[Config]:
    return [entry(width, plain(int(width * share), theta), layout, trained=length, context=length)]


def llama_3(c: Config, width: int, layout: str = "half") -> list[Config]:
    rope = c["rope_scaling"]
    speeds = llama3(width, c["rope_theta"], rope)
    trained, context = rope["original_max_position_embeddings"], c["max_position_embeddings"]
    return [entry(width, speeds, layout, scheme="llama3", trained=trained, context=context)]


def yarn_of(c: Config, width: int, layout: str, rope: Config, theta: float, magnitude: Any, scale: Any = 1) -> Config:
    trained = rope["original_max_position_embeddings"]
    context = max(c["max_position_embeddings"], int(trained * rope["factor"]))
    speeds = yarn(width, theta, rope)
    return entry(
        width,
        speeds,
        layout,
        scheme="yarn",
        magnitude=magnitude,
        logit_scale=scale,
        trained=trained,
        context=context,
    )


def latent(c: Config) -> list[Config]:
    """Return DeepSeek's: both magnitudes cancel in the rotation, and one is left squared for the logits."""
    rope = c["rope_scaling"]
    over, under = m(rope["factor"], rope["mscale"]), m(rope["factor"], rope["mscale_all_dim"])
    return [yarn_of(c, c["qk_rope_head_dim"], "interleaved", rope, c["rope_theta"], over / under, under**2)]


def ministral(c: Config) -> list[Config]:
    text = c["text_config"]
    rope = text["rope_parameters"]
    over, under = m(rope["factor"], rope["mscale"]), m(rope["factor"], rope["mscale_all_dim"])
    return [yarn_of(text, text["head_dim"], "half", rope, rope["rope_theta"], over / under)]


def phi_3(c: Config, width: int) -> list[Config]:
    rope, trained, context = c["rope_scaling"], c["original_max_position_embeddings"], c["max_position_embeddings"]
    by_length = sqrt(1 + log(mpf(context) / trained) / log(mpf(trained)))
    made = []
    for length, name in ((None, "short"), (trained, "short"), (trained + 1, "long"), (context, "long")):
        speeds = divided(width, c["rope_theta"], rope[f"{name}_factor"])
        magnitude = rope.get(f"{name}_mscale", by_length)
        call = {} if length is None else {"seq_len": length}
        made.append(
            entry(width, speeds, scheme="longrope", magnitude=magnitude, trained=trained, context=context, call=call)
        )
    return made


def internlm2(c: Config) -> list[Config]:
    width, trained, factor = 128, c["max_position_embeddings"], c["rope_scaling"]["factor"]
    made = []
    for length in (None, trained, 2 * trained):
        speeds = dynamic(width, c["rope_theta"], factor, trained, length or trained)
        call = {} if length is None else {"seq_len": length}
        made.append(entry(width, speeds, scheme="dynamic", trained=trained, context=int(factor * trained), call=call))
    return made


def gemma_3(c: Config) -> list[Config]:
    """Return both kinds of layers: the global ones have theta 1e6 and are slowed by 8, the local ones are plain."""
    slowed = [w / mpf(8) for w in plain(256, 1_000_000)]
    length = 131_072
    return [
        entry(256, slowed, scheme="linear", context=length, call={"layer_type": "full_attention"}),
        entry(256, plain(256, 10_000), trained=length, context=length, call={"layer_type": "sliding_attention"}),
    ]


def gemma_4(c: Config) -> list[Config]:
    text = c["text_config"]
    rope, length = text["rope_parameters"], text["max_position_embeddings"]
    full = proportional(text["global_head_dim"], rope["full_attention"]["rope_theta"], 0.25)
    local = plain(text["head_dim"], rope["sliding_attention"]["rope_theta"])
    return [
        entry(512, full, scheme="proportional", trained=length, context=length, call={"layer_type": "full_attention"}),
        entry(256, local, trained=length, context=length, call={"layer_type": "sliding_attention"}),
    ]


def olmo_3(c: Config) -> list[Config]:
    """Return both kinds of layers: only those of full attention are stretched."""
    rope, theta, length = c["rope_scaling"], c["rope_theta"], c["max_position_embeddings"]
    full = yarn_of(c, 128, "half", rope, theta, rope["attention_factor"])
    local = entry(128, plain(128, theta), trained=length, context=length)
    return [
        {**full, "call": {"layer_type": "full_attention"}},
        {**local, "call": {"layer_type": "sliding_attention"}},
    ]


def sections(c: Config, order: Callable[[list[int]], list[int]]) -> list[Config]:
    axes, width, length = order(c["rope_scaling"]["mrope_section"]), 128, c["max_position_embeddings"]
    speeds = plain(width, c["rope_theta"])
    return [entry(width, speeds, scheme="mrope", axes=axes, trained=length, context=length)]


RULES: dict[str, Callable[[Config], list[Config]]] = {
    "llama_2_7b": lambda c: whole_head({**c, "rope_theta": 10_000}),
    "llama_3_1_8b": lambda c: llama_3(c, 128),
    "llama_3_2_1b": lambda c: llama_3(c, 64),
    "llama_4_scout": lambda c: llama_3(c, 128, "interleaved"),
    "mistral_7b_v0_3": whole_head,
    "mistral_7b_v0_3_params": lambda c: [entry(128, plain(128, c["rope_theta"]), "interleaved")],
    "ministral_3_8b": ministral,
    "devstral_small_2": ministral,
    "qwen2_5_7b": whole_head,
    "qwen2_5_7b_yarn": lambda c: [yarn_of(c, 128, "half", c["rope_scaling"], c["rope_theta"], m(4, 1))],
    "qwen3_8b": whole_head,
    "qwen2_vl_7b": lambda c: sections(c, blocks),
    "qwen2_5_vl_7b": lambda c: sections(c, blocks),
    "qwen3_vl_8b": lambda c: sections(c["text_config"], in_turns),
    "deepseek_v2_lite": latent,
    "deepseek_v3": latent,
    "kimi_k2_0905": latent,
    "phi_3_mini_128k": lambda c: phi_3(c, 96),
    "phi_3_5_moe_shortened": lambda c: phi_3(c, 16),
    "gpt_oss_20b": lambda c: [yarn_of(c, 64, "half", c["rope_scaling"], c["rope_theta"], m(32, 1))],
    "gemma_2_2b": lambda c: [entry(256, plain(256, c["rope_theta"]), trained=8192, context=8192)],
    "gemma_3_4b": gemma_3,
    "gemma_4_text": gemma_4,
    "glm_4_9b_0414": lambda c: part_of_head(c, 128, 0.5, c["rope_theta"], 32_768, "interleaved"),
    "command_r_v01": lambda c: whole_head(c, "interleaved"),
    "gpt_j_6b": lambda c: part_of_head(c, 256, 0.25, 10_000, 2048, "interleaved"),
    "gpt_neox_20b": lambda c: part_of_head(c, 96, 0.25, 10_000, 2048, "half"),
    "stablelm_3b_4e1t": lambda c: part_of_head(c, 80, 0.25, 10_000, 4096, "half"),
    "internlm2_7b": internlm2,
    "smollm3_3b": whole_head,
    "olmo_3_1_32b": olmo_3,
    "exaone_4_32b": lambda c: llama_3(c, 128),
}


def main() -> None:
    """Write the file anew."""
    golden = {name: rule(json.loads((HERE / f"{name}.json").read_text())) for name, rule in RULES.items()}
    text = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(one) for one in entries) + "\n]" for name, entries in golden.items()
    )
    (HERE / "golden.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
