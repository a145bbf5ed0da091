"""The layers of a model: how many there are, of which type each is, and which of them rotate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ...numbers import counted, shown
from ..keys import LAYERS, Found, Keys, listed
from .config import DICTS, Config
from .defaults import ATTENTION_FREE, ATTENTION_TYPES

__all__ = ["MOST_LAYERS", "Layers", "keys_of_type", "layer_key", "read_layers", "unread_key"]

MOST_LAYERS = 10_000
NAMES = {"G": "full_attention", "L": "sliding_attention", "R": "linear_attention", "C": "conv"}
RECURRENT, FULL = NAMES["R"], NAMES["G"]
INTERVALS = ("full_attention_interval", "layer_group_size")  # of each so many layers, the last has attention
ATTENTION_LAYERS = ("attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids")  # numbers of layers with attention
# Keys of layers, and the known types that have them: others do not look at them. An unknown type may have any.
KEYS_OF: dict[str, tuple[str, ...]] = {
    "block_types": ("recurrent_gemma",),
    "attn_type_list": ("minimax", "minimax_m1", "minimax_m2", "minimax_text_01"),
    "hybrid_layer_pattern": ("mimo_v2_flash",),
    "attn_layer_indices": ("bamba",),
    "full_attn_idxs": ("lfm2", "lfm2_moe"),
    "hybrid_layer_ids": (),  # Zamba2's, which is in no table
    "full_attention_interval": ("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp_text"),
    "layer_group_size": ("bailing_hybrid",),
    "cross_attention_layers": ("mllama_text_model",),
    "no_rope_layers": ("llama4_text", "smollm3"),
    "layer_rope_theta": ("granite_swa", "granitemoe_swa"),
}
# Other keys of layers that are read, or that do not say which layers rotate.
READ = (
    *("layer_types", "layers_block_type", "mlp_layer_types", *LAYERS),
    *("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers"),
)
# Names of keys that may say which layers rotate: a kind of layer, and what is counted or listed of it.
HINT = re.compile(
    r"(attn|attention|hybrid|mamba|rwkv|recurren|linear|delta_?net|lightning|retention|conv|nope|rope|mixer|full|global"
    r"|local|(?<![a-z])(ssm|s4|gdn|kda|gla)).*"
    r"(layers?|blocks|pattern|interval|period|offset|every|freq|per|idxs?|indices|ids|types|type_list)(_|\b)"
    r"|(^layers|mixers?)$|\b(layers?|blocks?)_?(block_)?(pattern|types?|kinds|list|order)\b"
)
UNROTATED_HINT = re.compile(r"(nope|rope|rotary).*(layers?|pattern|interval|period|every|idxs?|indices)(_|\b)")
NO_HINT = re.compile(
    "norm|scale|drop|bias|moe|expert|mlp|ffn|lora|quant|vision|visual|image|audio|speech|encoder|init|eps"
)


@dataclass(frozen=True)
class Layers:
    """What is known of a model's layers before its frequencies are looked at."""

    count: int | None
    types: tuple[str, ...] | None  # one for each layer; None if neither the file nor the model type says it
    still_types: tuple[str, ...]  # types that are not rotated
    rotates: tuple[bool, ...] | None  # one for each layer, where single layers are left out
    source: str  # the key that says most of this

    def unknown(self, parts: Iterable[str]) -> str | None:
        """Return the first type of a layer of which it is not known whether it rotates, or None.

        `parts` are types that have values of RoPE of their own.
        """
        known = {*ATTENTION_TYPES, *ATTENTION_FREE, *self.still_types, *parts}
        return next((kind for kind in self.types or () if kind not in known), None)

    def turns(self, index: int) -> bool:
        """Return whether a layer rotates, as far as it depends on its type and number."""
        kind = self.types[index] if self.types else None
        if kind in ATTENTION_FREE or kind in self.still_types:
            return False
        return self.rotates is None or index >= len(self.rotates) or self.rotates[index]


def read_layers(found: Config) -> Layers:
    """Return what a configuration says of its layers."""
    keys = found.keys
    if found.known is not None and found.known.model.window_needed and _no_window(found):
        raise ValueError(
            f"{keys.source('sliding_window')} is null; expected a number of positions, as layers of type "
            f"{shown(found.known.name)} without a window do not rotate"
        )
    number = keys.get(*LAYERS)
    count = None if number is None else number.whole(1, MOST_LAYERS, "layers")
    given = keys.get("layer_types", "layers_block_type")
    if given is None:
        given, types = _told_types(keys, count)
        if types is None:
            types = _pattern_types(found, count)
    else:
        names = listed(given, (str,), "a list of names, one for each layer")
        if not names or len(names) > MOST_LAYERS or (count is not None and len(names) < count):
            raise ValueError(f"{given.source} has {counted(len(names), 'name')}; expected {count or 'at least 1'}")
        types = _ending_full(found, given.source, names[:count])  # those beyond the count are for drafting tokens
        count = len(types)
    rotates = _with_cross_attention(found, _rotates(found, count), count)
    if count is None and rotates is not None:
        count = len(rotates)
    flags = keys.get("no_rope_layers", "layer_rope_theta")
    source = flags.source if flags else given.source if given else f"model_type {shown(found.model_type)}"
    return Layers(count, types, _still_types(found), rotates, source)


def _ending_full(found: Config, source: str, types: list[str]) -> tuple[str, ...]:
    """Return layer types, of which the last has full attention in Gemma 4, whatever the file says."""
    model = found.known.model if found.known else None
    forced = model is not None and model.ends_full and model.global_head_dim is not None
    if forced and types[-1] != "full_attention":
        found.notes.conflict(f"{source} ends with {shown(types[-1])}, where this model type has 'full_attention'.")
        types[-1] = "full_attention"
    return tuple(types)


def _pattern_types(found: Config, count: int | None) -> tuple[str, ...] | None:
    """Return the layer types that a model type has by default."""
    if found.known is None or not found.known.model.pattern or count is None:
        return None
    model = found.known.model
    if _windowless(found):
        return (FULL,) * count
    stated = _stated_pattern(found.keys, model.pattern)
    pattern = stated or model.pattern
    letters = [pattern[index % len(pattern)] for index in range(count)]
    if stated is None:
        letters[: len(model.first)] = model.first[:count]
    if model.ends_full:
        letters[-1] = "G"
    return tuple(NAMES[letter] for letter in letters)


def keys_of_type(found: Config) -> Keys:
    """Return the keys without those of layers that the model type does not look at; note those."""
    if found.known is None:
        return found.keys
    others = {name for name, types in KEYS_OF.items() if found.known.name not in types}
    for one in found.keys.all(sorted(others)):
        if one.value != []:
            found.notes.conflict(f"{one.source}: models of type {shown(found.known.name)} do not look at this key.")
    return replace(found.keys, values={name: value for name, value in found.keys.values.items() if name not in others})


def _told_types(keys: Keys, count: int | None) -> tuple[Found | None, tuple[str, ...] | None]:
    """Return the layer types that older files tell in other ways than by a list of names, and the key that does."""
    kinds = keys.get("block_types")
    if kinds is not None:
        names = listed(kinds, (str,), "a list of names, which is repeated")
        if not names:
            raise ValueError(f"{kinds.source} has no names; expected one or more")
        return (kinds, tuple(names[index % len(names)] for index in range(count))) if count else (None, None)
    for key, meanings in (("attn_type_list", (RECURRENT, FULL)), ("hybrid_layer_pattern", (FULL, NAMES["L"]))):
        flags = keys.get(key)
        if flags is not None:
            values = _cut(flags.source, listed(flags, (int,), "a list of 0 and 1, one for each layer"), count)
            if set(values) - {0, 1}:
                raise ValueError(f"{flags.source} is {shown(flags.value)}; expected only 0 and 1")
            return flags, tuple(meanings[int(value)] for value in values)
    numbers = keys.get(*ATTENTION_LAYERS)
    if numbers is not None and count is not None:
        with_attention = _indices(numbers, count)
        return numbers, tuple(FULL if index in with_attention else RECURRENT for index in range(count))
    interval = keys.get(*INTERVALS)
    if interval is not None and count is not None:
        every = interval.whole(1, MOST_LAYERS, "layers")
        return interval, tuple(FULL if (index + 1) % every == 0 else RECURRENT for index in range(count))
    return None, None


def unread_key(found: Config, layers: Layers) -> str | None:
    """Return a key of an unknown model type that may say which layers rotate, but is not read.

    Where types of layers are listed, only a key that speaks of rotation may say more.
    """
    if found.known is not None or layers.rotates is not None:
        return None
    return layer_key(found.keys, HINT if layers.types is None else UNROTATED_HINT)


def layer_key(keys: Keys, hint: re.Pattern[str] = HINT) -> str | None:
    """Return a key, of a dict or of a dict in it, that may say which layers rotate, but is not read."""
    number = keys.get(*LAYERS)
    count = None if number is None or hint is not HINT else number.value
    for name, value in keys.values.items():
        if not isinstance(name, str) or name in {*READ, *KEYS_OF, *DICTS}:
            continue
        within = value if isinstance(value, dict) else {}
        for inner, said in within.items() or [(None, value)]:
            path = (name if inner is None else f"{name}.{inner}").lower()
            by_layer = _is_flags(said) and ("rope" in path or len(said) == count)
            if said and (hint.search(path) or by_layer) and not NO_HINT.search(path):
                return keys.source(name) if inner is None else Keys(within, keys.source(name)).source(inner)
    return None


def _is_flags(value: Any) -> bool:
    """Return whether a value is a list of names or of flags."""
    return isinstance(value, (list, tuple)) and all(isinstance(entry, str) or entry in (0, 1) for entry in value)


def _indices(found: Found, count: int) -> set[int]:
    """Return a list of numbers of layers as a set, or raise for what is no layer."""
    numbers = listed(found, (int,), "a list of numbers of layers, from 0")
    for place, number in enumerate(numbers):
        if not 0 <= number < count:
            raise ValueError(f"{found.source}[{place}] is {number}; expected 0 to {count - 1}")
    return set(numbers)


def _with_cross_attention(
    found: Config, rotates: tuple[bool, ...] | None, count: int | None
) -> tuple[bool, ...] | None:
    """Return which layers rotate without those that attend to an image instead."""
    given = found.keys.get("cross_attention_layers")
    usual = found.known.model.cross_attention if found.known else ()
    if count is None or (given is None and not usual):
        return rotates
    crossing = set(usual) if given is None else _indices(given, count)
    return tuple(one and index not in crossing for index, one in enumerate(rotates or (True,) * count))


def _stated_pattern(keys: Keys, usual: str) -> str | None:
    """Return the order of layers that a file states, as a word of G (full attention) and L (sliding window)."""
    given = keys.get("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
    if given is None or len(usual) == 1 or set(usual) - set("GL"):
        return None
    if isinstance(given.value, str):
        if not given.value or set(given.value) - set("GL") or len(given.value) > MOST_LAYERS:
            raise ValueError(f"{given.source} is {shown(given.value)}; expected a word of the letters L and G")
        return given.value
    every = given.whole(1, MOST_LAYERS, "layers")
    return "G" + "L" * (every - 1) if usual[0] == "G" else "L" * (every - 1) + "G"


def _still_types(found: Config) -> tuple[str, ...]:
    return () if found.known is None or _windowless(found) else found.known.model.still


def _windowless(found: Config) -> bool:
    """Return whether a model has no sliding window, and is of a type in which all layers rotate then."""
    return found.known is not None and found.known.model.windowless and _no_window(found)


def _no_window(found: Config) -> bool:
    """Return whether the file says that there is no sliding window."""
    return "sliding_window" in found.keys.values and found.keys.values["sliding_window"] is None


def _rotates(found: Config, count: int | None) -> tuple[bool, ...] | None:
    """Return for each layer whether it rotates, where the file lists layers one by one."""
    given = found.keys.get("no_rope_layers")
    if given is not None and given.value != []:
        flags = listed(given, (int,), "a list of 1 for layers that rotate and 0 for those that do not")
        if set(flags) - {0, 1}:
            raise ValueError(f"{given.source} is {shown(given.value)}; expected only 1 (rotates) and 0 (does not)")
        return tuple(bool(flag) for flag in _cut(given.source, flags, count))
    thetas = found.keys.get("layer_rope_theta")
    if thetas is not None:
        values = listed(thetas, (int, float), "a list of numbers, one for each layer")
        return tuple(value != 0 for value in _cut(thetas.source, values, count))
    if found.known is None or found.known.model.no_rope_interval is None or count is None:
        return None
    every = found.keys.get("no_rope_layer_interval")
    step = found.known.model.no_rope_interval if every is None else every.whole(1, MOST_LAYERS, "layers")
    return tuple((index + 1) % step != 0 for index in range(count))


def _cut(source: str, values: list[float], count: int | None) -> list[float]:
    """Return one value for each layer, or raise if there are too few."""
    if not (count or 1) <= len(values) <= MOST_LAYERS:
        raise ValueError(
            f"{source} has {counted(len(values), 'entry')}; expected {count or 'at least 1'}, one for each layer"
        )
    return values[:count]
