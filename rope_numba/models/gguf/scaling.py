"""From the keys and the frequency factors of a GGUF file to the frequencies of its layers of one type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ... import frequencies as schemes
from ...frequencies import Frequencies
from ...numbers import counted
from ...wording import argument
from ..architectures import SLIDING, Windows
from ..header import Fact
from ..keys import Notes
from .source import FREQS, GGUF_DEFAULT, LONG, SHORT, Source, named
from .yarn import yarn_of

__all__ = ["Scaled", "frequencies_of"]

KINDS = ("none", "linear", "yarn", "longrope")
NEVER = 1e30  # as a divisor: the pair does not turn


@dataclass(frozen=True)
class Scaled:
    """The frequencies of layers of one type."""

    scheme: str
    source: str  # of the scheme
    frequencies: Frequencies
    plain: Frequencies  # what the scheme started from
    trained: int | None  # positions that the model was trained for before any scaling, if the file says
    magnitude: str = "the scheme"  # where the magnitude is from


def frequencies_of(source: Source, layer_type: str, width: int, seq_len: int | None, notes: Notes) -> Scaled:
    """Return the frequencies of layers of one type, as keys and tensors say; the rotary width is known to be right."""
    keys, architecture = source.keys, source.architecture
    windows = (architecture.windows if layer_type == SLIDING else None) or Windows()
    theta, path = _theta(source, windows, layer_type, notes)
    names = {"theta": path, "factor": keys.path("rope.scaling.factor")}
    plain = named(names, schemes.default, width, theta)
    context, original = (keys.whole(name, 1) for name in ("context_length", "rope.scaling.original_context_length"))
    if architecture.ignores_keys or not windows.scaled:
        original = None
    length = keys.path("context_length" if original is None else "rope.scaling.original_context_length")
    if architecture.ignores_keys or not (windows.scaled or windows.factors):
        _note_length(context, length, notes)
        return Scaled("default", source.default, plain, plain, context)
    kind, factor = _scaling(source, notes) if windows.scaled else ("none", 1.0)
    alpha = (keys.number("rope.scaling.alpha") or 0.0) if windows.scaled and architecture.alpha else 0.0
    tensors = source.file.floats if windows.factors else {}
    scheme, scheme_source = _scheme(source, kind, factor, alpha, tensors)
    trained = context if original is None else original
    names["original_max_position_embeddings"] = length
    if scheme in ("yarn", "longrope"):
        if trained is None:
            raise ValueError(f"{length} is missing; expected the trained length")
        if scheme == "yarn":
            scaled = yarn_of(source, width, theta, factor, trained, names, notes)
        else:
            scaled = _longrope(source, width, theta, trained, seq_len, names, notes)
    elif scheme == "divided":
        divisors = tensors[FREQS][: width // 2] if architecture.full_width_halved else tensors[FREQS]
        scaled = named(names | {"divisors": FREQS}, schemes.divided, width, theta, divisors=divisors * factor)
        if _slower(divisors, notes) or factor != 1.0:
            trained = original
    elif scheme == "ntk":
        scaled = named(names | {"alpha": scheme_source}, schemes.ntk, width, theta, alpha=alpha)
        notes.fact("alpha", alpha, scheme_source)
    elif scheme == "linear":
        scaled, trained = named(names, schemes.linear, width, theta, factor=factor), original
    else:
        scaled = plain
    _note_length(trained, length, notes)
    magnitude = keys.positive("rope.scaling.attn_factor") if windows.scaled else None
    if magnitude is None:
        return Scaled(scheme, scheme_source, scaled, plain, trained)
    total = scaled.attention_factor * magnitude
    scaled = scaled.replaced(attention_factor=total)
    return Scaled(scheme, scheme_source, scaled, plain, trained, keys.path("rope.scaling.attn_factor"))


def _note_length(trained: int | None, source: str, notes: Notes) -> None:
    if trained is not None:
        notes.fact("trained_length", trained, source)


def _theta(source: Source, windows: Windows, layer_type: str, notes: Notes) -> tuple[float, str]:
    """Return the base, and the key that it is from or would be from."""
    keys, name = source.keys, "rope.freq_base"
    theta, origin = keys.number(name), GGUF_DEFAULT
    if layer_type == SLIDING and "rope.freq_base_swa" in keys:
        name = "rope.freq_base_swa"
        theta = keys.number(name)
    elif layer_type == SLIDING and windows.theta is not None:
        theta, origin = None, source.default
    if theta is None:
        theta = windows.theta or 10_000.0
    else:
        origin = keys.path(name)
    notes.fact("theta", theta, origin)
    return theta, keys.path(name)


def _scaling(source: Source, notes: Notes) -> tuple[str, float]:
    """Return the type of scaling, and its factor, which is 1.0 where none applies."""
    keys, path = source.keys, source.keys.path("rope.scaling.type")
    kind = keys.text("rope.scaling.type")
    if kind not in (None, *KINDS):
        raise keys.wrong("rope.scaling.type", f"one of {', '.join(KINDS)}")
    name = "rope.scaling.factor" if "rope.scaling.factor" in keys else "rope.scale_linear"
    factor, old = keys.number(name) or 1.0, keys.number("rope.scale_linear") or 1.0  # 0 means unset
    if factor < 1.0:
        raise keys.wrong(name, "1 or more, or 0, which means none")
    if old not in (1.0, factor):
        notes.conflict(
            f"{keys.path('rope.scale_linear')} is {old}, but {keys.path(name)} is {factor}: the latter counts."
        )
    if kind == "none" and factor != 1.0:
        notes.conflict(f"{keys.path(name)} is {factor}, but {path} is 'none': it has no effect.")
        factor = 1.0
    if factor != 1.0:
        notes.fact("factor", factor, keys.path(name))
    return kind or "linear", factor  # llama.cpp's default, which scales by a factor if there is one


def _scheme(
    source: Source, kind: str, factor: float, alpha: float, tensors: dict[str, NDArray[np.float64]]
) -> tuple[str, str]:
    """Return the name of the scheme and where it is from, or raise for combinations that no known model has."""
    keys, pair = source.keys, [name for name in (SHORT, LONG) if name in tensors]
    path = keys.path("rope.scaling.type")
    if kind == "yarn":
        if tensors:
            raise ValueError(f"{path} is 'yarn'; expected no tensor {next(iter(tensors))} beside it")
        return "yarn", path
    if FREQS in tensors:
        return "divided", f"tensor {FREQS}"  # which wins over the pair, as in llama.cpp
    if kind == "longrope" or pair:
        if len(pair) < 2:
            raise ValueError(f"tensor {LONG if SHORT in pair else SHORT} is missing; expected both lists of longrope")
        if factor != 1.0:
            raise keys.wrong("rope.scaling.factor", f"none beside tensor {LONG}")
        return "longrope", f"tensors {SHORT}, {LONG}"
    if alpha:
        return "ntk", keys.path("rope.scaling.alpha")
    if factor != 1.0:
        return "linear", path if path in keys.values else GGUF_DEFAULT
    return "default", "no key or tensor says otherwise"


def _slower(divisors: NDArray[np.float64], notes: Notes) -> bool:
    """Note a list of divisors; return whether one of them slows a pair down, and does not merely stop it."""
    turning = divisors[divisors < NEVER]
    stopped = divisors.size - turning.size
    value = f"{turning.min():g} to {turning.max():g}" if turning.size else "of all pairs infinite"
    if turning.size and stopped:
        value += f"; {counted(stopped, 'pair')} {'does' if stopped == 1 else 'do'} not turn"
    notes.facts.append(Fact("divisors", value, f"tensor {FREQS}", "what the frequency of each pair is divided by"))
    return bool((turning != 1.0).any())


def _longrope(
    source: Source,
    width: int,
    theta: float,
    trained: int,
    seq_len: int | None,
    names: dict[str, str],
    notes: Notes,
) -> Frequencies:
    """Return the frequencies and the magnitude, which the file should hold, and which is multiplied in afterwards."""
    keys, floats = source.keys, source.file.floats
    context = keys.whole("context_length", 1)
    stated = "rope.scaling.attn_factor" in keys
    scaled = named(
        names
        | {"short_factor": SHORT, "long_factor": LONG, "max_position_embeddings": keys.path("context_length")}
        | {"seq_len": argument("seq_len")},
        schemes.longrope,
        width,
        theta,
        short_factor=floats[SHORT],
        long_factor=floats[LONG],
        original_max_position_embeddings=trained,
        max_position_embeddings=context,
        attention_factor=1.0 if stated or context is None else None,
        seq_len=seq_len,
    )
    if source.architecture.longrope:
        notes.conflict(source.architecture.longrope)
    if scaled.attention_factor != 1.0:
        notes.conflict(
            f"{keys.path('rope.scaling.attn_factor')} is missing: the magnitude is made from the two lengths, where "
            "llama.cpp has 1."
        )
    long = seq_len is not None and seq_len > trained
    notes.fact(
        "variant",
        "long" if long else "short",
        f"argument {argument('seq_len')}" if seq_len else "default of this package",
    )
    if seq_len is None:
        notes.duty(
            f"The short factors are in use, as {argument('seq_len')} was not given. They hold for contexts of up to "
            f"{trained} positions; for a longer one, give its length as {argument('seq_len=')}, for all queries and "
            "keys that meet."
        )
    return scaled
