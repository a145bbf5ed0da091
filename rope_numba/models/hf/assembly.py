"""From an opened configuration to headers: what the readers of config.json and params.json share."""

from __future__ import annotations

from dataclasses import replace

from ...frequencies import Frequencies
from ...numbers import counted, shown, whole
from ...texts import choice
from ...wording import argument
from ..header import Header, LayerHeaders
from ..keys import Notes
from .axes import with_axes
from .config import Config
from .layers import ALL, Part, Plan, plan
from .lengths import LONGEST, note_others, offered
from .magnitude import magnitude_source, note_temperature, with_logit_scale
from .named import TRAINED, scheme_of
from .schemes import resolve
from .widths import read_widths

__all__ = ["all_headers", "one_header"]

MOST_PAIRS = 2**17  # of the layers of all types together; each takes 4 us, and real models have some hundred


def one_header(found: Config, layer_type: str | None, seq_len: int | None) -> Header:
    """Return the header of the layers that are asked for, or of all, if they are alike."""
    length, layers = _checked(seq_len), plan(found)
    if layer_type is None:
        headers = _headers(found, layers, length)
        if _alike(headers):
            return _of_all(headers)
        raise ValueError(f"layer_type is None; expected {choice(headers)}, as layers of {found.name} differ")
    if not isinstance(layer_type, str):
        raise TypeError(f"layer_type is {shown(layer_type)}; expected a name or None")
    if layer_type in layers.turning:
        return _header(found, layers.parts.get(layer_type) or layers.parts[ALL], length)
    if layer_type in layers.still:
        raise ValueError(
            f"{argument('layer_type')} is {shown(layer_type)}; expected another, as those layers are not rotated"
        )
    wanted = " or ".join([*[choice(layers.turning)] * bool(layers.turning), f"{argument('None')}, if all rotate alike"])
    raise ValueError(f"{argument('layer_type')} is {shown(layer_type)}; expected {wanted}")


def all_headers(found: Config, seq_len: int | None) -> LayerHeaders:
    """Return the headers of all layers, one where they are alike."""
    length, layers = _checked(seq_len), plan(found)
    headers = _headers(found, layers, length)
    if not _alike(headers):
        return LayerHeaders(headers, layers.layers)
    return LayerHeaders({ALL: _of_all(headers)}, tuple(None if label is None else ALL for label in layers.layers))


def _checked(seq_len: int | None) -> int | None:
    if seq_len is None:
        return None
    length = whole(argument("seq_len"), seq_len)
    if not 1 <= length <= LONGEST:
        raise ValueError(f"{argument('seq_len')} is {length}; expected 1 to 2**53 positions")
    return length


def _headers(found: Config, layers: Plan, seq_len: int | None) -> dict[str, Header]:
    headers: dict[str, Header] = {}
    pairs = 0
    for label, part in layers.parts.items():
        headers[label] = _header(found, part, seq_len)
        pairs += headers[label].frequencies.pairs
        if pairs > MOST_PAIRS:
            many = counted(len(layers.parts), "type")
            raise ValueError(f"layers of {many} have more than {MOST_PAIRS} pairs together; expected narrower ones")
    return headers


def _alike(headers: dict[str, Header]) -> bool:
    """Return whether layers of all types are rotated alike."""
    ways = {
        (one.head_dim, one.rotary_offset, one.layout, one.frequencies, one.frequencies.attention_logit_scale)
        for one in headers.values()
    }
    return len(ways) == 1


def _of_all(headers: dict[str, Header]) -> Header:
    """Return the one header of layers that are alike."""
    header = next(iter(headers.values()))
    facts = tuple(fact for fact in header.facts if fact.name != "layer_type")
    return replace(header, layer_type=None, facts=facts)


def _header(found: Config, part: Part, seq_len: int | None) -> Header:
    """Return the header of one part."""
    notes = found.notes.copy()
    layer_type = None if part.layer_type == ALL else part.layer_type
    notes.fact("model", found.model_type, found.named)
    if layer_type is not None:
        notes.fact("layer_type", layer_type, "one of several that differ")
    scheme = scheme_of(found, part, notes)
    widths = read_widths(found, part, scheme, notes)
    resolved = resolve(found, part, scheme, widths, seq_len, notes)
    frequencies = with_axes(found, part, resolved.frequencies, notes)
    if scheme == "default" and frequencies.stream_count > 1:
        scheme = "mrope"
        notes.facts = [replace(fact, value=scheme) if fact.name == "scheme" else fact for fact in notes.facts]
    frequencies = with_logit_scale(found, part, widths, resolved, frequencies, notes)
    model = found.known.model if found.known else None
    if model is not None and model.backwards:
        frequencies = _backwards(found, frequencies, notes)
    if model is not None and model.duty:
        notes.duty(model.duty)
    if model is not None and model.conflict:
        notes.conflict(model.conflict)
    taken = resolved.arguments.found
    trained, context = offered(scheme, taken(TRAINED), taken("factor"), resolved.context, notes)
    note_temperature(found, part, trained, notes)
    note_others(found, context, seq_len, notes)
    notes.fact("head_dim", widths.head_dim.value, widths.head_dim.source)
    notes.fact("rotary_dim", 2 * frequencies.pairs, widths.rotary_dim.source)
    notes.fact("layout", widths.layout.value, widths.layout.source)
    if not any(fact.name == "attention_factor" for fact in notes.facts):
        notes.fact("attention_factor", frequencies.attention_factor, magnitude_source(resolved))
    for name, length in (("trained_length", trained), ("context_length", context)):
        if length is not None:
            notes.fact(name, length.value, length.source)
    if seq_len is not None and context is not None and seq_len > context.value:
        most = counted(context.value, "position")
        notes.conflict(f"{argument('seq_len')} is {seq_len}, but the model is offered for {most}.")
    return Header(
        origin=found.origin,
        model=found.model_type,
        scheme=scheme,
        head_dim=widths.head_dim.value,
        rotary_offset=0,
        layout=widths.layout.value,
        frequencies=frequencies,
        trained_length=None if trained is None else trained.value,
        context_length=None if context is None else context.value,
        layer_type=layer_type,
        unscaled=resolved.unscaled,
        facts=tuple(notes.facts),
        conflicts=tuple(notes.conflicts),
        duties=tuple(notes.duties),
    )


def _backwards(found: Config, frequencies: Frequencies, notes: Notes) -> Frequencies:
    """Return frequencies that turn the other way."""
    notes.fact("direction", -1, f"model_type {shown(found.model_type)}")
    return frequencies.replaced(inv_freq=-frequencies.inv_freq, theta=frequencies.theta)
