"""A GGUF file, opened: its architecture, the other parts that it may have, and what in it is not understood."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...literals import Layout
from ...numbers import counted
from ...texts import shown
from ...wording import argument
from ..architectures import ARCHITECTURES, DIALECTS, REFUSED, UNKNOWN, UNROTATED
from ..keys import MORE_CONFLICTS, MOST_CONFLICTS
from ..local import shown_path
from .file import GGUFFile, read_file
from .metadata import Metadata
from .source import FACTORS, FREQS, LONG, SHORT, Source

__all__ = ["opened"]

KNOWN = {
    *(f"rope.{name}" for name in ("dimension_count", "dimension_sections", "freq_base", "scale_linear")),
    *(f"rope.scaling.{name}" for name in ("type", "factor", "attn_factor", "original_context_length", "finetuned")),
    *(
        f"rope.scaling.yarn_{name}"
        for name in ("log_multiplier", "ext_factor", "attn_factor", "beta_fast", "beta_slow")
    ),
}
KNOWN_OF_WINDOWS = {"rope.dimension_count_swa", "rope.freq_base_swa"}
KNOWN_OF_ALPHA = {"rope.scaling.alpha"}


MOST_PARTS = 1024  # of a model; the largest have some hundred


Doubt = tuple[str, str]  # what is so, and what was expected


def opened(path: str | os.PathLike[str], strict: bool, layout: Layout | None) -> tuple[Source, list[str]]:
    """Return what a file holds, and sentences on what in it is in doubt; raise if nothing rotates, and if strict.

    With a layout, an unknown architecture is in doubt, but no error.
    """
    file, doubts = _with_parts(read_file(path, FACTORS))
    name = file.values.get("general.architecture")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,64}", name, re.ASCII):
        what = "missing" if name is None else shown(name)
        raise ValueError(f"general.architecture is {what}; expected the name of an architecture")
    if name in UNROTATED:
        raise ValueError(f"general.architecture is {name!r}, which has {UNROTATED[name]}; expected one with rotation")
    if name in REFUSED:
        raise ValueError(
            f"general.architecture is {name!r}: {REFUSED[name]}; expected ready-made frequencies, "
            f"{argument('rope_numba.Frequencies(inv_freq=...)')}"
        )
    source = Source(file, Metadata(file.values, name), name, ARCHITECTURES.get(name, UNKNOWN))
    _must_not_be_a_dialect(source)
    _must_rotate(source)
    told: list[str] = []
    if name not in ARCHITECTURES and layout is None:
        guess = f"which is not known, so that layout {UNKNOWN.layout!r} is a guess"
        doubts += [(f"general.architecture is {name!r}, {guess}", f"a known one, or {argument('layout=')}")]
    elif name not in ARCHITECTURES:
        told += [f"general.architecture is {name!r}, which is not known: all layers were taken to rotate alike."]
    if "rope.freq_base" not in source.keys:
        doubts += _without_base(source)
    if file.missing:
        cut = f"which is cut off, {counted(file.missing, 'byte')} or more before its end"
        doubts += [(f"{argument('path')} is {shown_path(file.path)}, {cut}", "a whole file")]
    doubts += islice(_not_understood(source), MOST_CONFLICTS + 1)
    if strict and doubts:
        raise ValueError(f"{doubts[0][0]}; expected {doubts[0][1]}, or {argument('strict=False')}")
    told += [f"{what}." for what, _ in doubts[:MOST_CONFLICTS]]
    return source, told + [MORE_CONFLICTS] * (len(doubts) > MOST_CONFLICTS)


def _with_parts(file: GGUFFile) -> tuple[GGUFFile, list[Doubt]]:
    """Return a file with the frequency factors that lie in the model's other parts, and doubts if those are missing."""
    count, number = (file.values.get(key) for key in ("split.count", "split.no"))
    if not isinstance(count, int) or count < 2:
        return file, []
    if number != 0:
        what = f"part {number + 1} of {count}" if isinstance(number, int) else f"one part of {count}"
        raise ValueError(
            f"{argument('path')} is {shown_path(file.path)}, {what}; expected the first part, which holds the keys"
        )
    if count > MOST_PARTS:
        raise ValueError(f"split.count is {shown(count)}; expected {MOST_PARTS} at most")
    if FREQS in file.floats or {LONG, SHORT} <= set(file.floats):
        return file, []
    path = Path(file.path)
    stem = re.fullmatch(r"(.*-)00001(-of-\d{5}\.gguf)", path.name, re.DOTALL)
    others = [path.with_name(f"{stem[1]}{part:05}{stem[2]}") for part in range(2, count + 1)] if stem else []
    there = [part for part in others if part.is_file()]
    floats = dict(file.floats)
    for part in there:
        floats |= read_file(part, FACTORS).floats
    lacking = count - 1 - len(there)
    others_lack = "1 other part is" if lacking == 1 else f"{lacking} other parts are"
    first = f"{argument('path')} is {shown_path(file.path)}, part 1 of {count}"
    what = f"{first}, and {others_lack} not beside it"
    return replace(file, floats=floats), [(what, "all, as they may hold frequency factors")] if lacking else []


def _must_rotate(source: Source) -> None:
    """Raise where a key switches off the rotation of an architecture."""
    keys, architecture = source.keys, source.architecture
    if architecture.switch and keys.flag("rope.scaling.finetuned") is False:
        path = keys.path("rope.scaling.finetuned")
        raise ValueError(f"{path} is False, which switches off the rotation of {source.name!r}; expected True")
    if architecture.alibi_layers and keys.whole("block_count") == architecture.alibi_layers:
        path, layers = keys.path("block_count"), architecture.alibi_layers
        raise ValueError(f"{path} is {layers}, with which {source.name!r} has ALiBi; expected a model with rotation")


def _known(source: Source) -> set[str]:
    """Return the keys of rotation that an architecture has."""
    known = KNOWN | (KNOWN_OF_WINDOWS if source.architecture.windows else set())
    return known | (KNOWN_OF_ALPHA if source.architecture.alpha else set())


def _must_not_be_a_dialect(source: Source) -> None:
    """Raise for files whose keys mean what another program makes of them: to leave them out would give a wrong Rope."""
    keys = source.keys
    if source.name in DIALECTS:
        said = ", ".join(keys.path(name) for name in keys.below("rope.")) or "no keys of RoPE"
        what = f"general.architecture is {source.name!r}, Ollama's name for {DIALECTS[source.name]!r}, with {said}"
        raise ValueError(f"{what}; expected a file of llama.cpp's converter, as Ollama's code holds the rest")
    known = _known(source)
    for name in keys.below("rope."):
        if name not in known and re.search("base|scal|factor|theta|dimension|beta|yarn", name):
            what = f"{shown(keys.path(name))} is a key that llama.cpp does not read for {source.name!r}"
            raise ValueError(f"{what}; expected none that changes the rotation")
    if source.architecture is UNKNOWN and "rope.scaling.factor" in keys and "rope.scaling.type" not in keys:
        path = keys.path("rope.scaling.type")
        raise ValueError(f"{path} is missing; expected it beside {keys.path('rope.scaling.factor')}, as for known ones")


def _without_base(source: Source) -> Iterator[Doubt]:
    """Yield the doubt about a base that is missing, or raise where layers have several and no base is theirs."""
    path, architecture = source.keys.path("rope.freq_base"), source.architecture
    if architecture.theta is not None:
        return
    windows = architecture.windows
    if windows is not None and windows.theta is not None:
        raise ValueError(f"{path} is missing; expected it, as layers of {source.name!r} have several bases")
    models = "models" if source.architecture is UNKNOWN else f"models of {source.name!r}"
    yield f"{path} is missing, and {models} have several bases: 10000 is a guess", "it"


def _not_understood(source: Source) -> Iterator[Doubt]:
    """Yield doubts about keys and tensors of rotation that are not known."""
    keys, architecture, known = source.keys, source.architecture, _known(source)
    for name in keys.below("rope."):
        if name not in known:
            yield f"{shown(keys.path(name))} is a key that is not known for {source.name!r}", "known ones"
    path, sections = keys.path("rope.dimension_sections"), keys.wholes("rope.dimension_sections")
    if isinstance(sections, list) and any(sections) and not (architecture.sections or architecture.sections_scheme):
        yield f"{path} is {shown(sections)}, but tokens of {source.name!r} have one position", "no sections"
    unknown = {name for name in source.file.tensors if "rope_freqs" in name or "rope_factors" in name} - set(FACTORS)
    for tensor in sorted(unknown):
        yield f"tensor {shown(tensor)} is not known", "factors named " + " or ".join(FACTORS)
