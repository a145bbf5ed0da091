"""YaRN as GGUF files write it: some values have no key and must be known, and one is stored as a tenth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import frequencies as schemes
from ...frequencies import Frequencies
from ..keys import Notes
from .source import GGUF_DEFAULT, Source, named

__all__ = ["yarn_of"]


def yarn_of(
    source: Source, width: int, theta: float, factor: float, trained: int, names: dict[str, str], notes: Notes
) -> Frequencies:
    """Return the frequencies, the magnitude and the scale of the logits."""
    keys, architecture = source.keys, source.architecture
    if architecture.yarn != "yarn":
        schemes.refuse(architecture.yarn)
    extrapolation = keys.number("rope.scaling.yarn_ext_factor")
    if extrapolation is not None and extrapolation >= 0.0 and extrapolation != 1.0:
        raise keys.wrong("rope.scaling.yarn_ext_factor", "1, or a negative number, which means unset")
    options: dict[str, Any] = {"factor": factor, "original_max_position_embeddings": trained}
    for argument, default in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        name = f"rope.scaling.yarn_{argument}"
        stated = keys.number(name)
        options[argument] = default if stated is None else stated
        names = {**names, argument: keys.path(name)}
        notes.fact(argument, options[argument], GGUF_DEFAULT if stated is None else keys.path(name))
    options["truncate"] = architecture.truncate
    if not architecture.truncate:
        notes.fact("truncate", False, source.default)
        notes.conflict(
            f"{source.name} was trained with a ramp that is not widened to whole pairs, which GGUF has no key for; "
            "llama.cpp widens it."
        )
    options["mscale"], options["mscale_all_dim"] = _weights(source, notes)
    ramped = named(names, schemes.yarn, width, theta, **options)
    magnitude = _magnitude(source, ramped.attention_factor, notes)
    scale = 1.0
    if architecture.logit_scale and options["mscale_all_dim"]:
        scale = schemes.yarn_logit_scale(factor, options["mscale_all_dim"])
    return ramped.replaced(attention_factor=magnitude, attention_logit_scale=scale)


def _weights(source: Source, notes: Notes) -> tuple[float, float]:
    """Return mscale and mscale_all_dim, 0.0 where they are not there."""
    keys, name = source.keys, "rope.scaling.yarn_log_multiplier"
    stated, path = keys.number(name), keys.path(name)
    if stated is not None and not 0.0 <= stated <= 100.0:
        raise keys.wrong(name, "0 to 100")
    if not source.architecture.logit_scale:
        if stated:
            notes.fact("mscale_all_dim", stated, path)
        return 1.0, stated or 0.0
    if not stated:
        notes.conflict(
            f"{path} is missing: logits are not scaled, as where mscale_all_dim is missing in a config.json."
        )
        return 0.0, 0.0
    # Files hold a tenth of it, once a mistake and now the rule. Divided in float32, so that 0.1 gives 1.0 again.
    weight = float(np.float32(stated) / np.float32(0.1))
    notes.fact("mscale_all_dim", weight, f"{path}, times 10")
    notes.fact("mscale", weight, "taken to equal mscale_all_dim, as GGUF has no key for it")
    return weight, weight


def _magnitude(source: Source, computed: float, notes: Notes) -> float:
    """Return the magnitude: that of the rule, unless the file holds another one."""
    name = "rope.scaling.yarn_attn_factor"
    stated, path = source.keys.positive(name), source.keys.path(name)
    if stated is None or abs(stated - computed) <= 1e-6 * computed:
        return computed
    if stated == 1.0:
        notes.conflict(
            f"{path} is 1.0, which can mean a magnitude of 1, or no change to the rule's, {computed}; the rule's is "
            "taken, as in llama.cpp."
        )
        return computed
    notes.conflict(f"{path} is {stated}, and taken as the magnitude; llama.cpp takes the rule's, {computed}.")
    return stated
