"""Which layers of a GGUF file rotate, and which of them are of one type."""

from __future__ import annotations

from ...numbers import counted
from ..architectures import FULL, SLIDING
from .source import Source

__all__ = ["layer_types"]

MOST_LAYERS = 4096  # llama.cpp: 512


def layer_types(source: Source) -> tuple[str | None, ...]:
    """Return for each layer its type, or None for one without rotation; nothing if the file does not count them."""
    keys, architecture = source.keys, source.architecture
    blocks = keys.whole("block_count", 1, MOST_LAYERS)
    if blocks is None:
        if architecture.windows or architecture.unrotated:
            raise ValueError(f"{keys.path('block_count')} is missing; expected it, as layers of {source.name!r} differ")
        return ()
    layers = blocks - (keys.whole("nextn_predict_layers", 0, blocks - 1) or 0)  # without those that only draft
    windows = _windows(source, layers)
    rotates = _rotates(source, layers)
    if architecture.unrotated and (windows or not architecture.windows):
        dense = keys.whole("leading_dense_block_count") or 0
        for layer, window in enumerate(windows or [False] * layers):
            rotates[layer] &= not architecture.unrotated(layer, window, dense)
    sliding = windows or [False] * layers
    return tuple((SLIDING if sliding[layer] else FULL) if rotates[layer] else None for layer in range(layers))


def _windows(source: Source, layers: int) -> list[bool]:
    """Return for each layer whether it sees a sliding window; an empty list where no layer can."""
    keys, windows, name = source.keys, source.architecture.windows, "attention.sliding_window_pattern"
    width = keys.whole("attention.sliding_window")
    if windows is None or (width == 0 if width is not None else not windows.always):
        return []
    stated = keys.wholes(name)
    if isinstance(stated, list):
        return _each(source, name, stated, layers)
    period = windows.period if stated is None else stated
    if period is None:
        raise ValueError(f"{keys.path(name)} is missing; expected true or false for each layer of {source.name!r}")
    if period < 0:
        raise keys.wrong(name, "0 or more")
    if period == 0:
        return [True] * layers
    full = 0 if windows.full_first else period - 1
    return [layer % period != full for layer in range(layers)]


def _rotates(source: Source, layers: int) -> list[bool]:
    """Return for each layer whether it has attention, and rotates there as far as its own keys say."""
    keys, rotates = source.keys, [True] * layers
    for name in ("attention.head_count", "attention.head_count_kv", "attention.rope_pattern"):
        stated = keys.wholes(name)
        if isinstance(stated, list):
            rotates = [one and other for one, other in zip(rotates, _each(source, name, stated, layers), strict=True)]
    recurrent = keys.wholes("attention.recurrent_layers")
    if isinstance(recurrent, list):
        return [not layer for layer in _each(source, "attention.recurrent_layers", recurrent, layers)]
    if source.architecture.attention_interval:
        interval = keys.whole("full_attention_interval", 1) or source.architecture.attention_interval
        rotates = [one and layer % interval == interval - 1 for layer, one in enumerate(rotates)]
    return rotates


def _each(source: Source, name: str, values: list[int], layers: int) -> list[bool]:
    """Return a list with an entry for each layer as bools; those of layers that only draft may follow."""
    if len(values) < layers:
        raise source.keys.wrong(name, f"a value for each of {counted(layers, 'layer')}")
    return [bool(value) for value in values[:layers]]
