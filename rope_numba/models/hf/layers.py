"""In which ways the layers of a model rotate: each way is a `Part`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...numbers import counted, shown
from ...texts import choice
from ..keys import SHARES, THETAS, Found, Keys, listed, unrotated
from .config import Config, rope_dict
from .kinds import MOST_LAYERS, Layers, read_layers, unread_key

__all__ = ["ALL", "Part", "Plan", "plan"]

ALL = "all"  # the one part of a model whose layers are alike
LOCAL_THETAS = ("rope_local_base_freq", "local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta")
MOST_TYPES = 64  # of layers; each has frequencies of its own, and real models have four
BESIDE = ("partial_rotary_factor", "rope_theta", "rope_type", "type")  # of no use beside dicts of layer types


@dataclass(frozen=True)
class Part:
    """The layers of one type, and what a configuration holds for them alone."""

    layer_type: str
    rope: Keys  # their dict; or what stands for a missing one
    usual: Keys  # what their model type takes for granted of theta
    theta: Found | None = None  # if it stands outside their dict
    share: Found | None = None  # the same for the partial rotation
    nested: bool = False  # whether the dict is one of several
    indexes: tuple[int, ...] = ()  # the layers themselves, where the file tells


@dataclass(frozen=True)
class Plan:
    """All parts of a model, and what becomes of each layer."""

    parts: dict[str, Part]
    layers: tuple[str | None, ...]  # a key of parts, or None for a layer without rotation; empty if not known
    turning: tuple[str, ...]  # layer types that rotate, where types are known
    still: tuple[str, ...]  # layer types that do not


def plan(found: Config) -> Plan:
    """Return the ways in which the layers of a model rotate."""
    layers = read_layers(found)
    parts, silent = _parts(found, rope_dict(found), layers)
    parts = {kind: part for kind, part in parts.items() if kind not in layers.still_types}
    _check_types(layers.source, len(parts))
    labels = _labels(found, layers, parts, silent)
    if labels:
        used = dict.fromkeys(label for label in labels if label is not None)
        places = {label: tuple(index for index, one in enumerate(labels) if one == label) for label in used}
        parts = {label: replace(parts[label], indexes=places[label]) for label in used}
    if not parts:
        raise ValueError(f"{layers.source} leaves no layer that rotates; expected a model with rotary embeddings")
    _tell(found, layers, labels)
    kinds = list(zip(layers.types or (), labels, strict=False))
    turning = [kind for kind, label in kinds if label is not None] + [label for label in parts if label != ALL]
    still = dict.fromkeys([*layers.still_types, *silent, *(kind for kind, label in kinds if label is None)])
    seen = dict.fromkeys(turning)
    return Plan(parts, labels, tuple(seen), tuple(kind for kind in still if kind not in seen))


def _check_types(source: str, count: int) -> None:
    if count > MOST_TYPES:
        raise ValueError(f"{source} makes {count} types of layers; expected {MOST_TYPES} at most")


def _labels(found: Config, layers: Layers, parts: dict[str, Part], silent: set[str]) -> tuple[str | None, ...]:
    """Return for each layer the part that it belongs to; nothing, if that is not known."""
    if layers.count is None or (layers.types is None and list(parts) != [ALL]):
        if list(parts) != [ALL]:
            why = "num_hidden_layers and layer_types are" if layers.count is None else "layer_types is"
            found.notes.conflict(f"Which layer is of which type is not known, as {why} missing.")
        return ()
    if layers.types is None and found.known is not None and found.known.model.hybrid:
        found.notes.conflict("Which layers have attention, and so rotate, is not known: no key that is read says it.")
        return ()
    strange = layers.unknown(parts) if list(parts) == [ALL] else None
    if strange is not None:
        found.guess(
            found.notes,
            f"{layers.source} names {shown(strange)}, of which nothing says whether it rotates: layers are not known.",
        )
        return ()
    unread = unread_key(found, layers)
    if unread is not None:
        found.guess(found.notes, f"{unread} may say which layers rotate, and is not read: layers are not known.")
        return ()
    labels: list[str | None] = []
    for index in range(layers.count):
        kind = ALL if ALL in parts or layers.types is None else layers.types[index]
        if not layers.turns(index) or kind in silent:
            labels.append(None)
        elif kind in parts:
            labels.append(kind)
        else:
            wanted = choice(parts, ", ")
            raise ValueError(f"{layers.source} names {shown(kind)}; expected one of {wanted}, which have values")
    return tuple(labels)


def _parts(found: Config, rope: Keys | None, layers: Layers) -> tuple[dict[str, Part], set[str]]:
    """Return the parts by layer type, and the layer types that are said not to rotate."""
    usual = (found.known.model.rope if found.known else None) or {}
    layered = usual if all(value is None or isinstance(value, dict) for value in usual.values()) else {}
    if rope is not None and any(isinstance(value, dict) for value in rope.values.values()):
        return _nested(found, rope, layered)
    lists = _per_layer(found, layers.count)
    if lists is not None:
        return _listed(found, rope, layers, lists), set()
    if not layered and not found.keys.all(LOCAL_THETAS):
        default = Keys(usual, label=found.default)
        theta = found.notes.agreed(found.keys.all(THETAS), "the first was taken")
        return {ALL: Part(ALL, default if rope is None else rope, default, theta)}, set()
    return _flat(found, rope, layered), {kind for kind, value in layered.items() if value is None}


def _nested(found: Config, rope: Keys, layered: dict[str, Any]) -> tuple[dict[str, Part], set[str]]:
    """Return the parts of a dict of dicts."""
    _check_types(rope.path, sum(isinstance(value, dict) for value in rope.values.values()))
    parts, silent = {}, set()
    for kind, value in rope.values.items():
        if not isinstance(kind, str):
            raise TypeError(f"{rope.path} has the key {shown(kind)}; expected names of layer types")
        if isinstance(value, dict):
            parts[kind] = replace(_part(found, kind, rope.inner(kind), layered.get(kind) or {}), nested=True)
        elif value is None:
            silent.add(kind)
        elif kind in BESIDE:
            found.notes.conflict(f"{rope.source(kind)} stands beside dicts for layer types, and was not used.")
        else:
            found.relax(
                found.notes,
                f"{rope.source(kind)} is {shown(value)}; expected only dicts for layer types beside each other",
            )
    for kind, value in layered.items():
        if kind not in rope.values and value is not None:  # what Gemma 3's configuration takes for granted
            parts[kind] = _part(found, kind, None, value)
    return parts, silent


def _flat(found: Config, rope: Keys | None, layered: dict[str, Any]) -> dict[str, Part]:
    """Return the parts of a model whose layers differ, of which one dict or none speaks."""
    flat = found.known.model.flat if found.known else ()
    if rope is not None and not flat:
        scheme = rope.get("rope_type", "type")
        if layered or (scheme is not None and scheme.value != "default"):
            raise ValueError(f"{rope.path} is one dict, but layers differ; expected a dict for each layer type")
    parts = {}
    for kind, value in (layered or {"full_attention": {}, "sliding_attention": {}}).items():
        if value is not None:
            own = kind in flat or (not flat and not _is_local(kind))
            parts[kind] = _part(found, kind, rope if own else None, value)
    return parts


def _is_local(kind: str) -> bool:
    return "sliding" in kind or "local" in kind


def _part(found: Config, kind: str, rope: Keys | None, usual: dict[str, Any]) -> Part:
    """Return the part of one layer type, whose theta may stand outside its dict."""
    defaults = Keys(usual, label=f"{found.default} for layers of type {shown(kind)}")
    thetas = found.keys.all(LOCAL_THETAS) if _is_local(kind) else []
    if not thetas and not (_is_local(kind) and "rope_theta" in usual):
        thetas = found.keys.all(THETAS)
    theta = found.notes.agreed(thetas, f"the first was taken for layers of type {shown(kind)}")
    return Part(kind, defaults if rope is None else rope, defaults, theta)


def _per_layer(found: Config, count: int | None) -> tuple[list[Found], list[Found]] | None:
    """Return theta and the partial rotation of each layer, if one of them is a list; None if neither is."""
    columns = []
    for names in (("layer_rope_theta", *THETAS), ("partial_rotary_factors", *SHARES)):
        given = next((one for one in found.keys.all(names) if isinstance(one.value, (list, tuple))), None)
        values = [] if given is None else listed(given, (int, float), "a list of numbers, one for each layer")
        if given is not None and not (count or 1) <= len(values) <= MOST_LAYERS:
            raise ValueError(f"{given.source} has {counted(len(values), 'number')}; expected {count or 'at least 1'}")
        columns.append([Found(value, f"{given.source}[{i}]") for i, value in enumerate(values)] if given else [])
    return None if not any(columns) else (columns[0], columns[1])


def _listed(
    found: Config, rope: Keys | None, layers: Layers, lists: tuple[list[Found], list[Found]]
) -> dict[str, Part]:
    """Return one part for each layer type; layers of one type must be alike."""
    flat = found.known.model.flat if found.known else ()
    nothing = Keys({}, label=found.default)
    count = layers.count or max(map(len, lists))
    parts: dict[str, Part] = {}
    for index in range(count):
        kind = layers.types[index] if layers.types else ALL
        if (layers.types or layers.rotates) and not layers.turns(index):
            continue
        theta, share = (column[index] if index < len(column) else None for column in lists)
        if kind not in parts:
            own = rope if rope is not None and (kind in flat or not flat) else nothing
            if found.keys.get("layer_rope_theta") is not None:  # which goes before the dict's one theta
                own = replace(own, values={name: value for name, value in own.values.items() if name != "rope_theta"})
            parts[kind] = Part(kind, own, nothing, theta, share)
        for one, first in ((theta, parts[kind].theta), (share, parts[kind].share)):
            if one is not None and first is not None and one.value != first.value:
                raise ValueError(
                    f"{one.source} is {shown(one.value)}, but {first.source} is {shown(first.value)}; expected layers "
                    f"of type {shown(kind)} to be alike"
                )
    return parts


def _tell(found: Config, layers: Layers, labels: tuple[str | None, ...]) -> None:
    """Note which layers must not be rotated."""
    without = unrotated(labels)
    if without is not None:
        found.notes.duty(without)
    elif layers.still_types and not labels:
        found.notes.duty(f"Layers of type {', '.join(map(repr, layers.still_types))} are not rotated.")
