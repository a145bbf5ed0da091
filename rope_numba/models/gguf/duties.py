"""What the caller must do besides the rotation, in sentences."""

from __future__ import annotations

from ...frequencies import Frequencies
from ..keys import Notes, indexer_duty, unrotated
from .source import Source

__all__ = ["note_duties"]


def note_duties(
    source: Source, layers: tuple[str | None, ...], frequencies: Frequencies, width: int, notes: Notes
) -> None:
    """Note what the keys of a file and the name of its architecture leave to the caller."""
    keys, architecture = source.keys, source.architecture
    without = unrotated(layers)
    if without is not None:
        notes.duty(without)
    if frequencies.stream_count > 1:
        notes.duty(
            "Tokens of images and videos have three positions (time, height, width): give positions of shape (3, "
            "batch, tokens). Tokens of text have the same one three times, so (tokens,) will do."
        )
    query = keys.whole("attention.key_length_mla") or keys.whole("attention.key_length") or "the"
    if architecture.latent:
        notes.duty(
            f"Rotate only the rotary parts of queries and keys, as arrays of their own with {width} channels: the last "
            f"{width} of {query} channels of each query head, and the one part of a key that all heads share."
        )
    scale = frequencies.attention_logit_scale
    if scale != 1.0:
        notes.fact("attention_logit_scale", scale, keys.path("rope.scaling.yarn_log_multiplier"))
        notes.duty(
            f"Multiply attention logits by {scale:.9g}, beside 1 / sqrt(width of a query head): this model has part of "
            "YaRN's magnitude there, and not in cosines and sines."
        )
    slope, length = keys.number("attention.temperature_scale"), keys.whole("attention.temperature_length", 1)
    length = length or keys.whole("rope.scaling.original_context_length", 1) or keys.whole("context_length", 1)
    if slope and length:
        notes.duty(f"Multiply each query by 1 + {slope:g} * log(1 + floor(position / {length})), after the rotation.")
    if architecture.indexer is not None:
        notes.duty(indexer_duty(*architecture.indexer))
    if architecture.duty:
        notes.duty(architecture.duty)
