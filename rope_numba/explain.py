"""What a `Rope` does and why, in words: `Rope.explain()` and `python -m rope_numba inspect`."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np

from .models.header import Fact, Header
from .numbers import counted

__all__ = ["as_dict", "explain"]

LAYOUTS = {
    "interleaved": "pairs are channels (2i, 2i + 1)",
    "half": "pairs are channels (i, i + rotary_dim / 2)",
}
MOST_LISTED = 6  # numbers of a value that are shown one by one
ORDERS = {"thd": "arrays are (tokens, heads, head_dim)", "htd": "arrays are (heads, tokens, head_dim)"}


def explain(rope: Any) -> str:
    """Return what a Rope does and where each value came from, as lines of text."""
    header: Header | None = rope._header
    facts = facts_of(rope)
    if header is None:
        scheme = "default" if rope._base is not None else "ready-made"
        lines = [f"Rope made from arguments: {scheme} frequencies, {rope.layout} layout"]
    else:
        where = f", {header.layer_type} layers" if header.layer_type else ""
        model = "a model of no stated type" if header.model == "unknown" else header.model
        lines = [f"Rope of {model}{where}, from {header.origin}: {header.scheme} frequencies, {rope.layout} layout"]
    lines += ["", *_table(facts), "", *wavelengths(rope)]
    for title, sentences in (
        ("Conflicts in the header:", header.conflicts if header else ()),
        ("Left to the caller:", _duties(rope)),
    ):
        if sentences:
            lines += ["", title, *(f"  - {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def as_dict(rope: Any) -> dict[str, Any]:
    """Return the same as values that JSON can hold."""
    header: Header | None = rope._header
    frequencies = rope.frequencies
    return {
        "model": header.model if header else None,
        "origin": header.origin if header else "arguments",
        "layer_type": header.layer_type if header else None,
        "scheme": header.scheme if header else None,
        "head_dim": rope.head_dim,
        "rotary_dim": rope.rotary_dim,
        "rotary_offset": rope.rotary_offset,
        "layout": rope.layout,
        "theta": rope.theta,
        "attention_factor": frequencies.attention_factor,
        "attention_logit_scale": frequencies.attention_logit_scale,
        "trained_length": header.trained_length if header else None,
        "context_length": header.context_length if header else None,
        "inv_freq": frequencies.inv_freq.tolist(),
        "streams": frequencies.streams.tolist(),
        "facts": [vars(fact) for fact in facts_of(rope)],
        "conflicts": list(header.conflicts) if header else [],
        "duties": _duties(rope),
    }


def facts_of(rope: Any) -> list[Fact]:
    """Return every value with its source: the header's, or the arguments'."""
    if rope._header is not None:
        return list(rope._header.facts)
    frequencies = rope.frequencies
    given = "argument, or its default"
    facts = [
        Fact("head_dim", rope.head_dim, "argument", "channels of one head"),
        Fact("rotary_dim", rope.rotary_dim, given, "channels that are rotated"),
        Fact("rotary_offset", rope.rotary_offset, given, "first rotated channel"),
        Fact("layout", rope.layout, given, LAYOUTS[rope.layout]),
        Fact("order", rope.order, given, ORDERS[rope.order]),
    ]
    if rope.layout_out != rope.layout:
        facts.insert(
            -1, Fact("layout_out", rope.layout_out, given, f"the layout that is written: {LAYOUTS[rope.layout_out]}")
        )
    if rope.theta is not None:
        source = "frequencies" if rope._base is None else given
        facts.append(
            Fact("theta", rope.theta, source, "base of the frequencies, theta ** (-2i / rotary_dim) before any scaling")
        )
    facts.append(
        Fact("attention_factor", frequencies.attention_factor, "frequencies", "cosines and sines are multiplied by it")
    )
    if rope.max_position is not None:
        facts.append(Fact("max_position", rope.max_position, "argument", "the first position that is refused"))
    return facts


def wavelengths(rope: Any) -> list[str]:
    """Say how far the pairs turn, beside the context that the model was trained for."""
    frequencies = rope.frequencies
    turning = np.abs(frequencies.inv_freq[frequencies.inv_freq != 0.0])
    if turning.size == 0:
        nothing = "nothing" if frequencies.attention_factor == 1.0 else "nothing but the magnitude"
        return [f"No pair turns: the rotation changes {nothing}."]
    shortest, longest = (f"{2 * math.pi / speed:,.4g}" for speed in (turning.max(), turning.min()))
    which = "the pair turns" if frequencies.pairs == 1 else "pairs turn"
    text = f"Wavelengths: {which} once in {shortest if shortest == longest else f'{shortest} to {longest}'} positions"
    still = frequencies.pairs - turning.size
    never = f"; {still} of {frequencies.pairs} pairs never {'turns' if still == 1 else 'turn'}"
    lines = [f"{text}{never if still else ''}."]
    header: Header | None = rope._header
    if header is None:
        return lines
    if header.trained_length:
        slow = int((2 * math.pi / turning > header.trained_length).sum())
        length = counted(header.trained_length, "position", ",")
        pairs = f"{_slow(slow, turning.size, bool(still))} within the {length} that the model was trained for."
        lines.append(f"  {pairs}")
    if header.context_length and header.context_length != header.trained_length:
        scaled = "The model is" if header.scheme in ("default", "mrope") else "With this scaling it is"
        lines.append(f"  {scaled} offered for {counted(header.context_length, 'position', ',')}.")
    return lines


def _slow(slow: int, turning: int, others: bool) -> str:
    """Return how many of the pairs that turn, if there are others, do not do so once."""
    if slow == 0:
        return "Each pair that turns does so at least once" if others else "Each pair turns at least once"
    if slow == turning:
        return "No pair turns once"
    those = "pairs that turn" if others else "pairs"
    return f"{slow} of {turning} {those} {'does' if slow == 1 else 'do'} not turn once"


LENGTH = (
    "Frequencies depend on the length in use (can_shift is False): shift cached keys only while queries are rotated "
    "for the same length; rotate the keys anew for another."
)


def _duties(rope: Any) -> list[str]:
    if rope._header is not None:
        duties = list(rope._header.duties)
    else:
        scale = rope.frequencies.attention_logit_scale
        duties = [] if scale == 1.0 else [f"multiply attention logits by {scale!r}, on top of 1 / sqrt(head_dim)."]
    return duties if rope.can_shift else [*duties, LENGTH]


def _table(facts: list[Fact]) -> list[str]:
    """Return a line for each fact, and under it what it means, within the width of a terminal."""
    names = max(len(fact.name) for fact in facts) + 2
    values = max(len(_shown(fact.value)) for fact in facts) + 2
    lines = []
    for fact in facts:
        lines.append(f"  {fact.name:<{names}}{_shown(fact.value):<{values}}{fact.source}")
        lines += textwrap.wrap(fact.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (list, tuple)):
        if len(value) > MOST_LISTED:
            return f"{len(value)} numbers, {min(value):g} to {max(value):g}"
        return ", ".join(map(_shown, value))
    return str(value)
