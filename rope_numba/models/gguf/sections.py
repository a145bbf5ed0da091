"""Pairs that follow one of several positions of a token, as GGUF files and architectures say."""

from __future__ import annotations

from ... import frequencies as schemes
from ...frequencies import Frequencies
from ..keys import Notes
from .source import Source, named

__all__ = ["sections_of"]

NAME = "rope.dimension_sections"


def sections_of(source: Source, frequencies: Frequencies, notes: Notes) -> tuple[Frequencies, str]:
    """Return the same frequencies, shared out between positions if the header says so, and the layout then."""
    keys, architecture, path = source.keys, source.architecture, source.keys.path(NAME)
    sections = keys.wholes(NAME)
    if isinstance(sections, int) or (sections is not None and not all(pairs >= 0 for pairs in sections)):
        raise keys.wrong(NAME, "a list of numbers of pairs, 0 or more")
    if not sections or not any(sections):
        if architecture.sections and not architecture.sections_layout:
            raise ValueError(f"{path} is missing; expected pairs of time, height and width for {source.name!r}")
        return frequencies, architecture.layout
    if architecture.sections_scheme:
        schemes.refuse(architecture.sections_scheme)
    if not architecture.sections:
        return frequencies, architecture.layout
    while not sections[-1]:
        sections = sections[:-1]
    turns = architecture.sections == "turns"
    shared = named({"sections": path}, schemes.mrope, frequencies, sections=sections, interleaved=turns)
    notes.fact("sections", tuple(sections), path)
    notes.fact("sections_order", "turns" if turns else "blocks", source.default)
    streams = shared.streams.tolist()
    left = [pair for pair in range(shared.pairs) if streams[pair] == 0 and (pair % 3 or pair >= 3 * sections[0])]
    if turns and left:
        which, them = (f"Pair {left[0]} follows", "it") if len(left) == 1 else (f"Pairs {left} follow", "them")
        notes.conflict(f"{which} time here, as in transformers; llama.cpp does not turn {them} for text.")
    return shared, architecture.sections_layout or architecture.layout
