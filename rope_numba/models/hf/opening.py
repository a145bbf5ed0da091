"""A config.json, opened: its language model's part and its type, with what is refused or not known about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...literals import Layout
from ...numbers import shown
from ...wording import argument
from ..keys import MOST_CONFLICTS, SHARES, Found, Keys, Notes
from .config import TEXT_PART_OF, UNNAMED, Config, checked_options, rope_dict
from .defaults import NO_ROTATION, OTHERS_CODE, REFUSED_MODELS, ROTARY_VARIANTS, TEXT_PARTS, known
from .kinds import keys_of_type
from .refusals import ROPE_KEYS, class_of, classes_of, inner_rope, refuse, speaking
from .types import Model

__all__ = ["read_config"]

# Where multimodal files keep their language model.
TEXT_KEYS = ("text_config", "thinker_config", "llm_config", "language_config")
DEEPEST = 4  # Qwen2.5-Omni has its language model two dicts down
# Keys beside those that begin like RoPE's and are known, read here or not; any other may be a misspelt one of them.
OTHER_KEYS = (
    *("rope_interleave", "rope_interleaved", "rope_traditional", "rope_type", "rotary", "rotary_embedding"),
    *("rope_local_base_freq", "rope_local_theta", "rope_theta_local", "rotary_ndims", "partial_rotary_factors"),
    "rotary_emb_interleaved",
)
BEGINNINGS = ("rope", "rotary", "partial_rot")


def read_config(values: dict[str, Any], origin: str, strict: bool, layout: Layout | None) -> Config:
    """Find the language model of a configuration, and refuse types that do not rotate or not like this."""
    checked_options(strict, layout)
    notes = Notes()
    keys = Keys(values)
    name = _model_type(keys, None)
    for _ in range(DEEPEST):
        inner = next((key for key in TEXT_KEYS if isinstance(keys.values.get(key), dict)), None)
        if inner is None:
            break
        outer, keys = keys, Keys(keys.values[inner], keys.source(inner))
        name = _model_type(keys, name)
        _compare(outer, keys, notes)
    found = Config(origin, keys, name.value, name.source, known(name.value), strict, layout, notes)
    refuse(found)
    if found.known is None:
        _unknown(found)
    else:
        _class_agrees(found)
    known_keys = {*ROPE_KEYS, *OTHER_KEYS}
    unknown = [key for key in keys.values if isinstance(key, str) and key.startswith(BEGINNINGS)]
    unknown = [key for key in unknown if key not in known_keys and keys.values[key] is not None]
    for key in unknown[: MOST_CONFLICTS + 1]:
        found.relax(notes, f"{keys.source(key)} is {shown(keys.values[key])}, which is not a known key of RoPE")
    found.keys = keys_of_type(found)
    return found


def _model_type(keys: Keys, around: Found | None) -> Found:
    """Return the type that a dict names; else that of its class, or that of the text part of the type around it.

    A type that no table knows gives way to a class of `architectures` that one does.
    """
    found = keys.get("model_type")
    if found is not None and not isinstance(found.value, str):
        raise TypeError(f"{found.source} is {shown(found.value)}; expected a name")
    of_class = class_of(keys)
    if found is not None:
        if found.value in ROTARY_VARIANTS and keys.values.get("position_embedding_type") == "rotary":
            where = f"{found.source} {shown(found.value)} and position_embedding_type"
            return Found(ROTARY_VARIANTS[found.value], where)
        return found if of_class is None or _in_a_table(found.value) else of_class
    if of_class is not None:
        return of_class
    if around is not None:
        return Found(TEXT_PARTS.get(around.value, around.value), f"{TEXT_PART_OF}{around.source}")
    found = next(iter(classes_of(keys)), Found("unknown", UNNAMED))
    if not isinstance(found.value, str):
        raise TypeError(f"{found.source} is {shown(found.value)}; expected a name")
    return found


def _in_a_table(model_type: str) -> bool:
    return known(model_type) is not None or model_type in {*NO_ROTATION, *REFUSED_MODELS, *TEXT_PARTS}


def _unknown(found: Config) -> None:
    """Raise under strict for a type that no table knows, unless the caller states its layout."""
    unnamed = found.named == UNNAMED
    source = "model_type" if unnamed else found.named
    what = "missing" if unnamed else f"{shown(found.model_type)}, which is unknown"
    said = speaking(found.keys)
    if found.model_type in NO_ROTATION and said is not None:  # with a layout that the caller states
        what = (
            f"{shown(found.model_type)}, whose models have no RoPE in transformers, but {said.source} is {said.value!r}"
        )
    if said is None:
        inner = inner_rope(found.keys)
        if inner is not None:
            path = inner.source.rpartition(".")[0]
            raise ValueError(f"{source} is {what}, and only {path} speaks of RoPE ({inner.source}); expected that dict")
        message = f"{source} is {what}, and no key speaks of RoPE; expected rope_theta"
        if found.strict:
            also = "" if found.layout is not None else f", and {argument('layout=')}"
            raise ValueError(f"{message}, rope_parameters or rope_scaling{also}")
        found.guess(found.notes, "No key speaks of RoPE: everything about it is assumed.")
    if found.strict and found.layout is None:
        raise ValueError(
            f"{source} is {what}; expected a known type, or {argument('layout=')} ('half' or 'interleaved'), or "
            f"{argument('strict=False')}, which assumes 'half'"
        )


def _class_agrees(found: Config) -> None:
    """Raise under strict where `architectures` names a known class that rotates otherwise than the type."""
    of_class = class_of(found.keys)
    if of_class is None or found.known is None or OTHERS_CODE.get(found.known.name) == of_class.value:
        return
    other, own = known(of_class.value), found.known.model
    usual = None if other is None else other.model
    but = f"but {found.named} is {found.name}"
    if usual is None or (usual is not own and _rotation(usual, found) != _rotation(own, found)):
        what = f"{of_class.source} is a class that rotates otherwise or not at all, {but}"
        if found.strict:
            raise ValueError(f"{what}; expected one model, or {argument('strict=False')}")
        found.guess(found.notes, f"{what}: the second was taken.")
    elif usual.layout != own.layout and not (usual.flagged or own.flagged) and found.layout is None:
        what = f"{of_class.source} is a class of layout {usual.layout!r}, {but}"
        if found.strict:
            raise ValueError(f"{what}; expected one model, or {argument('layout=')} or {argument('strict=False')}")
        found.guess(found.notes, f"{what}: layout {own.layout!r} was taken.")


def _rotation(model: Model, found: Config) -> Model:
    """Return of a row what the code of a class brings with it, and the file does not state itself.

    Widths, bases and schemes are those of the type, whatever the class. Layouts are compared apart.
    """
    keys, rope = found.keys, rope_dict(replace(found, notes=Notes()))
    layered = model.rope is not None and all(value is None or isinstance(value, dict) for value in model.rope.values())
    by_layer = rope is not None and any(isinstance(value, dict) for value in rope.values.values())
    share = keys.get(*SHARES, "rotary_dim") is not None or (rope is not None and rope.get(SHARES[0]) is not None)
    listed = keys.get("layer_types", "layers_block_type") is not None
    ordered = not listed and (layered or model.hybrid or bool(model.still))
    return Model(
        *("half", None, None, None, None),
        partial=None if share or model.partial == 1.0 else model.partial,
        rope=model.rope if layered and not by_layer else None,
        rotary_dim=None if share else model.rotary_dim,
        latent=model.latent,
        sections=(1,) * bool(model.sections),
        in_turns=model.in_turns,
        pattern=model.pattern if ordered else "",
        first=model.first if ordered else "",
        ends_full=model.ends_full and ordered,
        still=model.still,
        windowless=model.windowless,
        window_needed=model.window_needed,
        cross_attention=model.cross_attention,
        global_head_dim=model.global_head_dim,
        no_rope_interval=model.no_rope_interval,
        backwards=model.backwards,
    )


def _compare(outer: Keys, inner: Keys, notes: Notes) -> None:
    """Note what a multimodal file says twice about RoPE, with two values."""
    for name in ROPE_KEYS:
        without, within = outer.get(name), inner.get(name)
        if without is not None and within is not None and without.value != within.value:
            notes.conflict(f"{outer.source(name)} and {inner.source(name)} differ: the second was taken.")
