"""Channels of a head, and those of them that are rotated."""

from __future__ import annotations

from ..architectures import SLIDING
from ..keys import Notes
from .source import GGUF_DEFAULT, Source

__all__ = ["widths"]

WIDEST = 2**16


def widths(source: Source, layer_type: str, notes: Notes) -> tuple[int, int]:
    """Return head_dim and rotary_dim."""
    architecture = source.architecture
    head, head_source = _head(source, layer_type)
    rotary, rotary_source = _rotary(source, layer_type)
    if architecture.latent:
        if rotary is None:
            raise ValueError(f"{rotary_source} is missing; expected the width of what is rotated of a head")
        head, head_source = rotary, f"{rotary_source}: the rotated part of a head is taken as an array of its own"
    if rotary is None or architecture.ignores_keys:
        rotary, rotary_source = head, f"{GGUF_DEFAULT}: the whole head"
        if rotary % 2:
            raise ValueError(f"{head_source} is {head}; expected an even number of channels")
    if rotary % 2 or not 2 <= rotary <= head:
        raise ValueError(f"{rotary_source} is {rotary}; expected an even number of channels from 2 to {head}")
    if architecture.whole_head and rotary != head:
        raise ValueError(f"{rotary_source} is {rotary}; expected {head}, as {source.name!r} rotates whole heads")
    notes.fact("head_dim", head, head_source)
    notes.fact("rotary_dim", rotary, rotary_source)
    return head, rotary


def _head(source: Source, layer_type: str) -> tuple[int, str]:
    """Return the channels of a head, and where they are from."""
    keys = source.keys
    for name in ("attention.key_length_swa", "attention.key_length")[layer_type != SLIDING :]:
        width = keys.whole(name, 2, WIDEST)
        if width is not None:
            return width, keys.path(name)
    channels, heads = keys.whole("embedding_length", 1), keys.wholes("attention.head_count")
    if channels is None or heads is None:
        missing = keys.path("embedding_length" if channels is None else "attention.head_count")
        raise ValueError(f"{missing} is missing, and {keys.path('attention.key_length')} too; expected one of them")
    count = heads if isinstance(heads, int) else next(filter(None, heads), 0)  # 0: a layer without attention
    if count < 1 or not 2 <= channels // count <= WIDEST:
        raise keys.wrong("attention.head_count", f"heads of 2 to {WIDEST} channels, {channels} together")
    return channels // count, f"{keys.path('embedding_length')} / {keys.path('attention.head_count')}"


def _rotary(source: Source, layer_type: str) -> tuple[int | None, str]:
    """Return the channels that are rotated, if the file says, and the key that says so."""
    keys, halved = source.keys, source.architecture.full_width_halved and layer_type != SLIDING
    for name in ("rope.dimension_count_swa", "rope.dimension_count")[layer_type != SLIDING :]:
        width = keys.whole(name, 0, WIDEST)
        if width is not None:
            return (width // 2, f"{keys.path(name)} / 2") if halved else (width, keys.path(name))
    return None, keys.path("rope.dimension_count")
