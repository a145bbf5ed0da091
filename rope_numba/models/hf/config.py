"""A config.json as the readers see it: its text part, its model type, and the dict that speaks of RoPE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...hints import warn_caller
from ...numbers import shown
from ...wording import argument
from ..keys import MORE_CONFLICTS, MOST_CONFLICTS, SHARES, THETAS, Found, Keys, Notes
from .defaults import NO_ROTATION, REFUSED_MODELS, SWITCHES, TEXT_PARTS, Known, known

__all__ = ["UNNAMED", "Config", "checked_strict", "read_config", "rope_dict"]

# Where multimodal files keep their language model.
TEXT_KEYS = ("text_config", "thinker_config", "llm_config", "language_config")
DEEPEST = 4  # Qwen2.5-Omni has its language model two dicts down
DICTS = ("rope_parameters", "rope_scaling")
ROPE_KEYS = (*DICTS, *THETAS, *SHARES, "rotary_dim", "qk_rope_head_dim")
# Keys beside those that begin like RoPE's and are known, read here or not; any other may be a misspelt one of them.
OTHER_KEYS = (
    *("rope_interleave", "rope_interleaved", "rope_traditional", "rope_type", "rotary", "rotary_embedding"),
    *("rope_local_base_freq", "rope_local_theta", "rope_theta_local", "rotary_ndims", "partial_rotary_factors"),
)
UNNAMED = "no key model_type"  # the source of the model type where no key names one
BEGINNINGS = ("rope", "rotary", "partial_rot")
OTHER_POSITIONS = ("absolute", "alibi", "learned", "learned_absolute", "nope", "none", "relative", "relative_key")


@dataclass
class Config:
    """The language model's part of a configuration."""

    origin: str
    keys: Keys
    model_type: str
    named: str  # where the model type stands
    known: Known | None
    strict: bool
    notes: Notes

    @property
    def default(self) -> str:
        """Return the source of what this model type takes for granted."""
        return f"default of model_type {shown(self.known.name if self.known else self.model_type)}"

    @property
    def name(self) -> str:
        """Return the model type as a sentence names it."""
        return "this model" if self.named == UNNAMED else shown(self.model_type)

    def relax(self, notes: Notes, message: str) -> None:
        """Raise under strict; otherwise warn, and note it, of the first few of many."""
        if self.strict:
            raise ValueError(f"{message} ({argument('strict=False')} reads on without it)")
        if len(notes.conflicts) < MOST_CONFLICTS:
            warn_caller(message)
            notes.conflict(f"{message}: it was left out.")
        else:
            notes.conflict(MORE_CONFLICTS)


def checked_strict(strict: bool) -> None:
    """Raise if strict is no bool."""
    if not isinstance(strict, bool):
        raise TypeError(f"strict is {shown(strict)}; expected True or False")


def read_config(values: dict[str, Any], origin: str, strict: bool) -> Config:
    """Find the language model of a configuration, and refuse types that do not rotate or not like this."""
    checked_strict(strict)
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
    model_type = name.value
    found = Config(origin, keys, model_type, name.source, known(model_type), strict, notes)
    _refuse(found)
    if found.known is None and not any(keys.values.get(name) for name in ROPE_KEYS):
        type_is = "missing" if found.named == UNNAMED else f"{shown(model_type)}, which is unknown"
        source = "model_type" if found.named == UNNAMED else found.named
        message = f"{source} is {type_is}, and no key speaks of RoPE; expected rope_theta"
        if strict:
            raise ValueError(f"{message}, rope_parameters or rope_scaling")
        notes.conflict("No key speaks of RoPE: everything about it is assumed.")
    known_keys = {*ROPE_KEYS, *OTHER_KEYS}
    unknown = [key for key in keys.values if isinstance(key, str) and key.startswith(BEGINNINGS)]
    unknown = [key for key in unknown if key not in known_keys and keys.values[key] is not None]
    for key in unknown[: MOST_CONFLICTS + 1]:
        found.relax(notes, f"{keys.source(key)} is {shown(keys.values[key])}, which is not a known key of RoPE")
    return found


def _model_type(keys: Keys, around: Found | None) -> Found:
    """Return the type that a dict names; else that of the text part of the type around it, or an architecture."""
    found = keys.get("model_type")
    if found is None and around is not None:
        return Found(TEXT_PARTS.get(around.value, around.value), f"the text part of {around.source}")
    if found is None:
        classes = keys.get("architectures")
        names = classes.value if classes is not None and isinstance(classes.value, list) else []
        found = Found(names[0], "architectures[0]") if names else Found("unknown", UNNAMED)
    if not isinstance(found.value, str):
        raise TypeError(f"{found.source} is {shown(found.value)}; expected a name")
    return found


def _compare(outer: Keys, inner: Keys, notes: Notes) -> None:
    """Note what a multimodal file says twice about RoPE, with two values."""
    for name in ROPE_KEYS:
        without, within = outer.get(name), inner.get(name)
        if without is not None and within is not None and without.value != within.value:
            notes.conflict(f"{outer.source(name)} and {inner.source(name)} differ: the second was taken.")


def _refuse(found: Config) -> None:
    keys, kind = found.keys, found.model_type
    if kind in NO_ROTATION:
        raise ValueError(f"model_type is {shown(kind)}, which has no rotary position embeddings: {NO_ROTATION[kind]}")
    name = TEXT_PARTS.get(kind, kind)
    if name in REFUSED_MODELS:
        raise ValueError(
            f"model_type is {shown(kind)}, which rotates in a way of its own ({REFUSED_MODELS[name]}); expected "
            f"another model, or {argument('rope_numba.Frequencies(inv_freq=...)')} made by hand"
        )
    if name in SWITCHES:
        key, wanted = SWITCHES[name]
        if keys.values.get(key) != wanted:
            given = keys.values.get(key)
            raise ValueError(f"{keys.source(key)} is {shown(given)}; expected {wanted!r}, as RoPE is used only then")
    if keys.values.get("alibi") is True:
        raise ValueError(f"{keys.source('alibi')} is True, so the model has no rotary position embeddings")
    positions = keys.get("position_embedding_type")
    if found.known is None and positions is not None and positions.value in OTHER_POSITIONS:
        raise ValueError(f"{positions.source} is {positions.value!r}, so the model has no rotary position embeddings")
    if found.known is not None and found.known.model.needs_theta and _theta_free(keys):
        raise ValueError(f"rope_theta is missing; expected it, as models of type {kind!r} use RoPE only with it")


def _theta_free(keys: Keys) -> bool:
    dicts = [keys.inner(name) for name in DICTS]
    return keys.get(*THETAS) is None and all(inner is None or inner.get("rope_theta") is None for inner in dicts)


def rope_dict(found: Config) -> Keys | None:
    """Return the dict that speaks of RoPE, today's `rope_parameters` or yesterday's `rope_scaling`, or None."""
    new, old = (found.keys.inner(name) for name in DICTS)
    if new is None or old is None or not new.values or not old.values:
        given = new if new is not None and new.values else old
        return given if given is not None and given.values else None
    values: dict[str, Any] = dict(new.values)
    origins: dict[str, str] = {}
    for name, value in old.values.items():
        if value is None or value == values.get(name):
            continue
        if values.get(name) is not None:
            found.relax(
                found.notes,
                f"{old.source(name)} is {shown(value)}, but {new.source(name)} is {shown(values[name])}; expected the "
                "same",
            )
            continue
        values[name] = value
        origins[name] = old.source(name)
    return Keys(values, new.path, None, origins)
