"""A config.json as the readers see it: its text part, its model type, and the dict that speaks of RoPE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...hints import warn_caller
from ...literals import Layout
from ...numbers import shown
from ...wording import argument
from ..keys import MORE_CONFLICTS, MOST_CONFLICTS, Keys, Notes
from .defaults import Known

__all__ = ["DICTS", "TEXT_PART_OF", "UNNAMED", "Config", "checked_options", "rope_dict"]

DICTS = ("rope_parameters", "rope_scaling")

UNNAMED = "no key model_type"  # the source of the model type where no key names one
TEXT_PART_OF = "the text part of "  # the source begins so where only the dict around the text part names a type
LAYOUTS = ("interleaved", "half")


@dataclass
class Config:
    """The language model's part of a configuration."""

    origin: str
    keys: Keys
    model_type: str
    named: str  # where the model type stands
    known: Known | None
    strict: bool
    layout: Layout | None  # the caller's own
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
            warn_caller(f"{message}: it was left out, and the rotation may be wrong without it")
            notes.conflict(f"{message}: it was left out.")
        else:
            notes.conflict(MORE_CONFLICTS)

    def guess(self, notes: Notes, sentence: str) -> None:
        """Warn of what was guessed, and note it, once."""
        if sentence not in notes.conflicts:
            notes.conflict(sentence)
            warn_caller(sentence.removesuffix("."))


def checked_options(strict: bool, layout: Layout | None) -> None:
    """Raise if strict is no bool, or layout no layout."""
    if not isinstance(strict, bool):
        raise TypeError(f"strict is {shown(strict)}; expected True or False")
    if layout is not None and not (isinstance(layout, str) and layout in LAYOUTS):
        raise ValueError(f"{argument('layout')} is {shown(layout)}; expected 'interleaved', 'half' or None")


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
