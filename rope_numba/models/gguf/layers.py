"""Which layers of a GGUF file rotate, and which of them are of one type."""

from __future__ import annotations

import re

from ...numbers import counted
from ..architectures import FULL, SLIDING
from .source import Source

__all__ = ["PATTERN", "layer_types", "unread_key"]

MOST_LAYERS = 4096  # llama.cpp: 512
PATTERN = "attention.sliding_window_pattern"
RECURRENT = "attention.recurrent_layers"
INTERVAL = "full_attention_interval"
RECURRENCE = re.compile(r"(ssm|wkv|shortconv|kda|gdn)\.")  # keys of models of which some layers are recurrent
# Keys that may say which layers rotate, and names like theirs that say something else.
HINT = re.compile(
    "(attention|attn|rope|nope|recurrent|linear|hybrid|mamba|conv|full).*"
    "(layers?|pattern|interval|period|offset|indices|idx|types)$"
)
NO_HINT = re.compile("norm|shared|indexer|moe|expert|^rope\\.scaling")
READ = (PATTERN, "attention.rope_pattern", RECURRENT, INTERVAL)


def layer_types(source: Source) -> tuple[str | None, ...]:
    """Return for each layer its type, or None for one without rotation; nothing if the file does not count them."""
    keys, architecture = source.keys, source.architecture
    blocks = keys.whole("block_count", 1, MOST_LAYERS)
    if blocks is None:
        if architecture.windows or architecture.unrotated:
            raise ValueError(f"{keys.path('block_count')} is missing; expected it, as layers of {source.name!r} differ")
        return ()
    if not source.known and (unread_key(source) is not None or _lacks_pattern(source)):
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


def unread_key(source: Source) -> str | None:
    """Return a key of an unknown architecture that may say which layers rotate, if none that is read says it."""
    keys = source.keys
    heads = keys.wholes("attention.head_count_kv")
    told = INTERVAL in keys or RECURRENT in keys or (isinstance(heads, list) and 0 in heads)
    for name in keys.below(""):
        if RECURRENCE.match(name) and not told:
            return keys.path(name)
        if HINT.search(name) and not NO_HINT.search(name) and name not in READ:
            return keys.path(name)
    return None


def _lacks_pattern(source: Source) -> bool:
    return source.architecture.windows is not None and PATTERN not in source.keys


def _windows(source: Source, layers: int) -> list[bool]:
    """Return for each layer whether it sees a sliding window; an empty list where no layer can."""
    keys, windows, name = source.keys, source.architecture.windows, PATTERN
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
    recurrent = keys.wholes(RECURRENT)
    if isinstance(recurrent, list):
        return [not layer for layer in _each(source, RECURRENT, recurrent, layers)]
    interval = source.architecture.attention_interval
    if interval or not source.known:
        interval = keys.whole(INTERVAL, 1) or interval or 1
        rotates = [one and layer % interval == interval - 1 for layer, one in enumerate(rotates)]
    return rotates


def _each(source: Source, name: str, values: list[int], layers: int) -> list[bool]:
    """Return a list with an entry for each layer as bools; those of layers that only draft may follow."""
    if len(values) < layers:
        raise source.keys.wrong(name, f"a value for each of {counted(layers, 'layer')}")
    return [bool(value) for value in values[:layers]]
