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
from ..architectures import ARCHITECTURES, DIALECTS, REFUSED, UNKNOWN, UNROTATED, Architecture, Windows
from ..keys import MORE_CONFLICTS, MOST_CONFLICTS
from ..local import shown_path
from .file import GGUFFile, read_file
from .layers import PATTERN, layer_types, unread_key
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
# Keys that say of an unknown architecture what the name of a known one says.
LATENT, LOGITS = "attention.kv_lora_rank", "rope.scaling.yarn_log_multiplier"
ALIBI = "attention.max_alibi_bias"
BY_HAND = "rope_numba.Frequencies(inv_freq=...)"


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
            f"general.architecture is {name!r}: {REFUSED[name]}; expected ready-made frequencies, {argument(BY_HAND)}"
        )
    keys = Metadata(file.values, name)
    source = Source(file, keys, name, ARCHITECTURES[name] if name in ARCHITECTURES else _row_of(keys))
    _must_not_be_a_dialect(source)
    _must_rotate(source)
    told: list[str] = []
    if not source.known:
        told += _told_of_unknown(source)
    if not source.known and layout is None:
        guess = f"which is not known, so that layout {UNKNOWN.layout!r} is a guess"
        doubts += [(f"general.architecture is {name!r}, {guess}", f"a known one, or {argument('layout=')}")]
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


def _row_of(keys: Metadata) -> Architecture:
    """Return the row of an architecture that is not known, as far as keys say it that llama.cpp has for others."""
    windows = any(name in keys for name in (*sorted(KNOWN_OF_WINDOWS), "attention.key_length_swa"))
    latent = bool(keys.whole(LATENT))
    return replace(UNKNOWN, windows=Windows(always=True) if windows else None, latent=latent, logit_scale=latent)


def _told_of_unknown(source: Source) -> Iterator[str]:
    """Yield what is taken for granted of an architecture that is not known."""
    keys, unread, windows = source.keys, unread_key(source), source.architecture.windows
    what = f"general.architecture is {source.name!r}, which is not known"
    if unread is not None:
        yield f"{what}, and {shown(unread)} may say which layers rotate: layers are not known."
    elif windows and PATTERN not in keys:
        yield f"{what}, and {keys.path(PATTERN)} is missing: which layer is of which type is not known."
    else:
        alike = "all layers" if None not in layer_types(source) else "layers that rotate by its keys"
        yield f"{what}: {alike if not windows else 'layers of each type'} were taken to rotate alike."
    if windows and (source.file.floats or any("scal" in name for name in keys.below("rope."))):
        yield f"{what}: layers with a sliding window were taken to be scaled as the others are."
    if source.architecture.latent and LOGITS in keys:
        yield f"{keys.path(LOGITS)} is taken to scale logits, as in known architectures with latent attention."


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
            if not source.known:
                what = f"{shown(keys.path(name))} is a key that is not known"
            raise ValueError(
                f"{what}; expected none that changes the rotation, or ready-made frequencies, {argument(BY_HAND)}"
            )
    if not source.known and "rope.scaling.factor" in keys and "rope.scaling.type" not in keys:
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
    models = "models" if not source.known else f"models of {source.name!r}"
    yield f"{path} is missing, and {models} have several bases: 10000 is a guess", "it"


def _not_scaled(source: Source) -> Iterator[Doubt]:
    """Yield the doubt about a magnitude of a context that was stretched, where nothing in the file stretches it."""
    keys = source.keys
    original, context = (keys.whole(name, 1) for name in ("rope.scaling.original_context_length", "context_length"))
    if original is None or context is None or original >= context or source.architecture.ignores_keys:
        return
    factors = [keys.number(name) for name in ("rope.scaling.factor", "rope.scale_linear", "rope.scaling.alpha")]
    if source.file.floats or any(factors) or keys.text("rope.scaling.type") in ("none", "yarn"):
        return
    magnitude, name = keys.number("rope.scaling.attn_factor"), keys.path("rope.scaling.attn_factor")
    if magnitude in (None, 1.0):
        return
    what = f"{name} is {magnitude:g}, for {context} positions after {original} of the training"
    yield f"{what}, but no key or tensor scales the frequencies", f"tensors {SHORT} and {LONG}"


def _not_understood(source: Source) -> Iterator[Doubt]:
    """Yield doubts about keys and tensors of rotation that are not known."""
    keys, architecture, known = source.keys, source.architecture, _known(source)
    if not source.known and keys.number(ALIBI):
        yield f"{keys.path(ALIBI)} is {keys.number(ALIBI):g}, which means biases by distance (ALiBi)", "0"
    yield from _not_scaled(source)
    for name in keys.below("rope."):
        if name not in known:
            yield f"{shown(keys.path(name))} is a key that is not known for {source.name!r}", "known ones"
    path, sections = keys.path("rope.dimension_sections"), keys.wholes("rope.dimension_sections")
    if isinstance(sections, list) and any(sections) and not (architecture.sections or architecture.sections_scheme):
        yield f"{path} is {shown(sections)}, but tokens of {source.name!r} have one position", "no sections"
    unknown = {name for name in source.file.tensors if "rope_freqs" in name or "rope_factors" in name} - set(FACTORS)
    for tensor in sorted(unknown):
        yield f"tensor {shown(tensor)} is not known", "factors named " + " or ".join(FACTORS)
