"""The public functions, and what a `Header` holds besides the frequencies."""

from __future__ import annotations

import os
from dataclasses import replace

from ...hints import warn_caller
from ...literals import Layout
from ...numbers import shown, whole
from ...texts import choice
from ...wording import argument
from ..architectures import ALL, FULL, SLIDING
from ..header import Header, LayerHeaders
from ..keys import Notes
from .duties import note_duties
from .layers import layer_types
from .opening import opened
from .scaling import frequencies_of
from .sections import sections_of
from .source import Source
from .widths import widths

__all__ = ["read_gguf", "read_gguf_layers"]


def read_gguf(
    path: str | os.PathLike[str],
    *,
    layer_type: str | None = None,
    seq_len: int | None = None,
    layout: Layout | None = None,
    strict: bool = True,
) -> Header:
    """Return what the header of a GGUF file says of the rotation.

    No tensor is read but the frequency factors, and no other package is needed.

    Parameters
    ----------
    path : str or os.PathLike
        The file; of a model in several parts the first, with the others beside it.
    layer_type : str, optional
        "full_attention" or "sliding_attention", where layers of these types rotate differently.
    seq_len : int, optional
        The longest context that will be reached, in positions, for models that have other frequencies for long ones
        (Phi-3). Those for short ones are read by default.
    layout : "interleaved" or "half", optional
        The layout of the weights, for an architecture that is not known: it goes before what is known of one, too.
    strict : bool
        Whether to raise for an architecture (without `layout`) or a key that is not known, for a base that is missing
        where models have several, and for a file that is cut off; otherwise it is noted in the header's `conflicts`,
        and warned of.

    Returns
    -------
    Header

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the file is no GGUF file, is damaged, holds an impossible value or no rotation, or if `layer_type` is not one
        of its types, or is needed.
    OSError
        If the file cannot be opened.

    Warns
    -----
    UserWarning
        Of what is not known, if not strict, and of what was guessed.

    References
    ----------
    The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The keys: llama.cpp, `src/llama-arch.cpp`,
    and `load_hparams` in `src/llama-model.cpp`.

    Examples
    --------
    >>> import os, struct, tempfile
    >>> from rope_numba.models.gguf import read_gguf
    >>> def text(value):
    ...     return struct.pack("<Q", len(value)) + value.encode()
    >>> width = text("llama.attention.key_length") + struct.pack("<II", 4, 128)
    >>> base = text("llama.rope.freq_base") + struct.pack("<If", 6, 500_000.0)
    >>> architecture = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "tiny.gguf")
    ...     with open(path, "wb") as file:
    ...         size = file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + architecture + width + base)
    ...     header = read_gguf(path)
    >>> header.model, header.head_dim, header.layout, header.scheme
    ('llama', 128, 'interleaved', 'default')
    """
    headers, _ = _read(path, seq_len, layout, strict)
    first = next(iter(headers.values()))
    if layer_type is not None and (not isinstance(layer_type, str) or layer_type not in headers):
        nothing = f"{argument('None')} if all rotate alike"
        raise ValueError(f"{argument('layer_type')} is {shown(layer_type)}; expected {choice(headers)}, or {nothing}")
    if _alike(headers):
        return replace(first, layer_type=None)
    if layer_type is None:
        raise ValueError(f"layer_type is None; expected {choice(headers)}, as layers of {first.model!r} differ")
    return headers[layer_type]


def read_gguf_layers(
    path: str | os.PathLike[str], *, seq_len: int | None = None, layout: Layout | None = None, strict: bool = True
) -> LayerHeaders:
    """Return the headers of all types of layers of a GGUF file, and which layer is of which.

    Parameters
    ----------
    path, seq_len, layout, strict
        As for `read_gguf`.

    Returns
    -------
    LayerHeaders
        With the one entry "all" where all layers that rotate do it alike. Layers that only draft tokens are not
        counted, and `layers` is empty if the file does not say how many there are.

    Raises
    ------
    TypeError, ValueError, OSError
        As `read_gguf`.

    Examples
    --------
    >>> from rope_numba.models.gguf import read_gguf_layers
    >>> read_gguf_layers("/dev/null")
    Traceback (most recent call last):
    ValueError: path is '/dev/null', which is no regular file; expected a GGUF file
    """
    headers, layers = _read(path, seq_len, layout, strict)
    if _alike(headers):
        headers = {ALL: replace(next(iter(headers.values())), layer_type=None)}
        layers = tuple(None if layer is None else ALL for layer in layers)
    return LayerHeaders(headers, layers)


def _read(
    path: str | os.PathLike[str], seq_len: int | None, layout: Layout | None, strict: bool
) -> tuple[dict[str, Header], tuple[str | None, ...]]:
    """Return a header for each type of layer that rotates, and the type of each layer, if layers are counted."""
    if not isinstance(strict, bool):
        raise TypeError(f"strict is {shown(strict)}; expected True or False")
    if layout is not None and not (isinstance(layout, str) and layout in ("interleaved", "half")):
        raise ValueError(f"{argument('layout')} is {shown(layout)}; expected 'interleaved', 'half' or None")
    if seq_len is not None and whole(argument("seq_len"), seq_len) < 1:
        raise ValueError(f"{argument('seq_len')} is {seq_len}; expected 1 position or more")
    source, doubts = opened(path, strict, layout)
    for doubt in doubts:
        warn_caller(doubt)
    layers = layer_types(source)
    every = (FULL, SLIDING) if source.architecture.windows else (FULL,)
    types = dict.fromkeys(filter(None, layers or every))
    if not types:
        raise ValueError(f"no layer of {source.name!r} rotates, by the keys of this file; expected one that does")
    notes = {kind: Notes(conflicts=list(doubts)) for kind in types}
    return {kind: _header(source, layers, kind, seq_len, layout, notes[kind]) for kind in types}, layers


def _header(
    source: Source,
    layers: tuple[str | None, ...],
    layer_type: str,
    seq_len: int | None,
    wanted: Layout | None,
    notes: Notes,
) -> Header:
    """Return the header of layers of one type."""
    keys = source.keys
    notes.fact("model", source.name, "general.architecture")
    head_dim, rotary_dim = widths(source, layer_type, notes)
    scaled = frequencies_of(source, layer_type, rotary_dim, seq_len, notes)
    frequencies, layout = sections_of(source, scaled.frequencies, notes)
    scheme = "mrope" if scaled.scheme == "default" and frequencies.stream_count > 1 else scaled.scheme
    context = keys.whole("context_length", 1)
    notes.fact("scheme", scheme, scaled.source)
    if wanted is not None:
        if layout != wanted and source.known:
            notes.conflict(
                f"{argument('layout')} is {wanted!r}, where {source.name!r} has {layout!r}: it was followed."
            )
        layout = wanted
    notes.fact("layout", layout, source.default if wanted is None else f"argument {argument('layout')}")
    notes.fact("attention_factor", frequencies.attention_factor, scaled.magnitude)
    if context is not None:
        notes.fact("context_length", context, keys.path("context_length"))
    note_duties(source, layers, frequencies, rotary_dim, notes)
    return Header(
        origin=source.file.path,
        model=source.name,
        scheme=scheme,
        head_dim=head_dim,
        rotary_offset=0,
        layout=layout,
        frequencies=frequencies,
        trained_length=scaled.trained,
        context_length=context,
        layer_type=layer_type,
        unscaled=scaled.plain,
        facts=tuple(notes.facts),
        conflicts=tuple(notes.conflicts),
        duties=tuple(notes.duties),
    )


def _alike(headers: dict[str, Header]) -> bool:
    return len({(header.head_dim, header.layout, header.frequencies) for header in headers.values()}) == 1
