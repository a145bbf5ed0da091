"""Multi-axis positions, as configurations of models that see images state them."""

from __future__ import annotations

from ...frequencies import Frequencies, mrope
from ...numbers import shown
from ..keys import Found, Notes, listed
from .config import Config
from .layers import Part
from .named import SECTIONS, TURNS

__all__ = ["with_axes"]


def with_axes(found: Config, part: Part, frequencies: Frequencies, notes: Notes) -> Frequencies:
    """Return frequencies whose pairs follow time, height and width, if the configuration says so."""
    model = found.known.model if found.known else None
    sections = part.rope.get(SECTIONS) or found.keys.get(SECTIONS)
    if sections is None:
        if model is None or not model.sections:
            return frequencies
        if sum(model.sections) != frequencies.pairs:
            key = SECTIONS if part.rope.label else part.rope.source(SECTIONS)
            raise ValueError(
                f"{key} is missing; expected 3 numbers of pairs, whose sum is {frequencies.pairs}, as the usual "
                f"{list(model.sections)} does not fit"
            )
        sections = Found(list(model.sections), found.default)
    counts = listed(sections, (int,), "3 numbers of pairs, for time, height and width")
    while len(counts) > 3 and counts[-1] == 0:  # a fourth axis that nothing follows
        counts.pop()
    in_turns = _in_turns(found, part, notes)
    try:
        made = mrope(frequencies, sections=counts, interleaved=in_turns.value)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("sections", sections.source, 1)) from None
    notes.fact("sections", counts, sections.source)
    notes.fact("sections_order", "in turns" if in_turns.value else "in blocks", in_turns.source)
    notes.duty(
        "Tokens of images and videos have three positions (time, height, width): give positions of shape (3, batch, "
        "tokens). Tokens of text have the same one three times, so (tokens,) will do."
    )
    return made


def _in_turns(found: Config, part: Part, notes: Notes) -> Found:
    model = found.known.model if found.known else None
    flag = part.rope.get("mrope_interleaved", TURNS) or found.keys.get("mrope_interleaved")
    stated = None if flag is None else flag.flag()
    if model is None or not model.sections:
        if flag is None:
            found.guess(notes, f"No key says whether the sections of {SECTIONS} take turns: blocks were assumed.")
        return Found(bool(stated), "assumed" if flag is None else flag.source)
    if flag is not None and stated != model.in_turns:
        notes.conflict(
            f"{flag.source} is {shown(flag.value)}, which models of type {shown(found.model_type)} do not look at."
        )
    return Found(model.in_turns, f"model_type {shown(found.model_type)}")
