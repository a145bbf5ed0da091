"""What goes with a rotation but is not its business: the scale of logits, and of queries by their position."""

from __future__ import annotations

from ...frequencies import Frequencies, yarn_logit_scale
from ...texts import shown
from ..keys import Found, Notes, indexer_duty
from .config import Config
from .layers import Part
from .schemes import Resolved
from .widths import Widths

__all__ = ["magnitude_source", "note_temperature", "temperature", "with_logit_scale"]


def magnitude_source(resolved: Resolved) -> str:
    """Return how the magnitude was made, where no key gives it."""
    taken = resolved.arguments.found
    if resolved.scheme == "yarn":
        over, under = taken("mscale"), taken("mscale_all_dim")
        both = over is not None and under is not None and over.value and under.value
        return "m(mscale) / m(mscale_all_dim), m(x) = 0.1 * x * log(factor) + 1" if both else "0.1 * log(factor) + 1"
    if resolved.scheme == "longrope":
        own = taken("short_mscale") or taken("long_mscale")
        return own.source if own else "sqrt(1 + log(factor) / log(original_max_position_embeddings))"
    return f"scheme {resolved.scheme!r} has no magnitude"


def with_logit_scale(
    found: Config, part: Part, widths: Widths, resolved: Resolved, frequencies: Frequencies, notes: Notes
) -> Frequencies:
    """Return frequencies with the scale that latent attention puts on its logits; say where their channels lie."""
    if not widths.latent:
        return frequencies
    width = 2 * frequencies.pairs
    others = found.keys.get("qk_nope_head_dim")
    query = shown(others.value + width) if others is not None and isinstance(others.value, int) else "all"
    notes.duty(
        f"Rotate only the rotary parts of queries and keys, as arrays of their own with {width} channels: the last "
        f"{width} of {query} channels of each query head, and the one part of a key that all heads share."
    )
    model = found.known.model if found.known else None
    if model is not None and model.indexer is not None:
        notes.duty(indexer_duty(*model.indexer))
    weight, factor = part.rope.get("mscale_all_dim"), resolved.arguments.found("factor")
    if weight is None or weight.value == 0 or factor is None:
        return frequencies
    scale = yarn_logit_scale(factor.positive(), weight.positive())
    if model is None:
        found.guess(notes, f"{weight.source} is taken to scale logits, as in known models with latent attention.")
    assumed = "" if model is not None else ", as in known models with latent attention"
    notes.fact("attention_logit_scale", scale, f"{weight.source} and {factor.source}{assumed}")
    notes.duty(
        f"Multiply attention logits by {scale:.9g}, beside 1 / sqrt(width of a query head): this model has part of "
        "YaRN's magnitude there, and not in cosines and sines."
    )
    return frequencies.replaced(attention_logit_scale=scale)


def note_temperature(found: Config, part: Part, trained: Found | None, notes: Notes) -> None:
    """Note that queries are scaled by their position, in models of Llama 4's kind."""
    beta = part.rope.get("llama_4_scaling_beta")
    if beta is not None and beta.value != 0:
        stated = part.rope.get("original_max_position_embeddings") or trained
        length = "original_max_position_embeddings" if stated is None else shown(stated.value)
        notes.duty(temperature(beta.positive(), length))
    tuned = found.keys.get("attn_temperature_tuning")
    if found.known is None or not found.known.model.temperature or (tuned is not None and not tuned.value):
        return
    floor = found.keys.get("floor_scale") or Found(8192, found.default)
    scale = found.keys.get("attn_scale") or Found(0.1, found.default)
    notes.duty(
        "In layers that are not rotated, multiply each query by 1 + "
        f"{scale.positive():g} * log(1 + floor((position + 1) / {floor.positive():g}))."
    )


def temperature(beta: float, length: object) -> str:
    """Return what the caller has to do for queries that are scaled by their position."""
    return f"Multiply each query by 1 + {beta:g} * log(1 + floor(position / {length})), after the rotation."
