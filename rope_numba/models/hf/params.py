"""Mistral's own params.json as if it were a config.json, with sources and errors that name the keys it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...literals import Layout
from ...numbers import shown
from ..keys import Keys, Notes
from .config import Config, checked_options
from .defaults import Known
from .kinds import layer_key
from .magnitude import temperature
from .types import MODELS

__all__ = ["is_params", "read_params"]

NAME = "mistral (params.json)"
# Keys that Mistral's own models do not have, and whose they are.
ELSEWHERE = {
    "qk_rope_head_dim": "latent attention",
    "use_scaled_rope": "Meta's models",
    "nope_layer_interval": "Meta's models",
}
# Mistral's names of YaRN's arguments.
YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "original_max_position_embeddings",
    "beta": "beta_fast",
    "alpha": "beta_slow",
}


def is_params(values: dict[str, Any]) -> bool:
    """Return whether a dict is a params.json and not a config.json."""
    return "dim" in values and "n_heads" in values and "model_type" not in values and "architectures" not in values


def read_params(params: dict[str, Any], origin: str, strict: bool, layout: Layout | None) -> Config:
    """Return a params.json as if it were a config.json, with errors and sources that name the keys it has."""
    checked_options(strict, layout)
    keys = Keys(params)
    for name, why in ELSEWHERE.items():
        other = keys.get(name)
        if other is not None and other.value is not False:
            raise ValueError(f"{name} is {shown(other.value)}; expected the config.json instead, for {why}")
    unread = layer_key(keys)
    if unread is not None:
        raise ValueError(f"{unread} may say which layers rotate; expected the config.json instead")
    if keys.get("rope_theta") is None:
        raise ValueError("rope_theta is missing; expected it, as programs take different ones for granted")
    model = replace(MODELS["mistral"], layout="interleaved", context=None)
    found = Config(origin, keys, NAME, "the form of the file", Known(NAME, model), strict, layout, Notes())
    yarn = keys.inner("yarn")
    if yarn is not None:
        found.keys = Keys({**params, "rope_parameters": _yarn(found, yarn)})
    tuned = keys.inner("llama_4_scaling")
    if tuned is not None:
        beta, length = tuned.get("beta"), tuned.get("original_max_position_embeddings")
        if beta is None or length is None:
            raise ValueError(
                f"{tuned.path} is {shown(tuned.values)}; expected beta and original_max_position_embeddings"
            )
        found.notes.duty(temperature(beta.positive(), length.whole(1, 2**53, "positions")))
    return found


def _yarn(found: Config, yarn: Keys) -> Keys:
    """Return YaRN's arguments under the names of config.json."""
    values: dict[str, Any] = {"rope_type": "yarn"}
    origins = {"rope_type": yarn.path}
    for name, value in yarn.values.items():
        if name in YARN:
            values[YARN[name]], origins[YARN[name]] = value, yarn.source(name)
        elif name != "apply_scale" and value is not None:
            found.relax(found.notes, f"{yarn.source(name)} is not a known key of scheme 'yarn'")
    scale = yarn.get("apply_scale")
    if scale is not None and not scale.flag():
        values["attention_factor"], origins["attention_factor"] = 1.0, scale.source
    return Keys(values, yarn.path, None, origins)
