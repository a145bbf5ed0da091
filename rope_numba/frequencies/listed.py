"""Schemes whose header lists a number for each pair: divisors of the plain frequencies, or the frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..hints import hinted, warn_caller
from ..numbers import positive, shown
from .arguments import divisors_of, length, one_or_more
from .base import Frequencies
from .plain import default
from .powers import nearest_log

__all__ = ["divided", "given", "longrope"]

NEVER = 1e30  # ggml's divisor for pairs that do not turn


@hinted
def longrope(
    rotary_dim: int,
    theta: float = 10_000.0,
    *,
    short_factor: ArrayLike | Sequence[float],
    long_factor: ArrayLike | Sequence[float],
    original_max_position_embeddings: int,
    factor: float | None = None,
    max_position_embeddings: int | None = None,
    attention_factor: float | None = None,
    short_mscale: float | None = None,
    long_mscale: float | None = None,
    seq_len: int | None = None,
    variant: Literal["auto", "short", "long"] = "auto",
) -> Frequencies:
    """Return the frequencies and the magnitude of LongRoPE (`su`), in its short or its long variant.

    The two variants turn keys differently: all keys and queries that meet must be rotated by the same one. Choose it
    once, from the longest context that will be reached.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base: finite, above 0 and not 1.
    short_factor, long_factor : sequence of float, length rotary_dim / 2
        Divisors of the frequencies, above 0.
    original_max_position_embeddings : int
        The trained length, in positions: the last one of the short variant.
    factor : float, optional
        How many times longer the context becomes, 1 or more; max_position_embeddings /
        original_max_position_embeddings by default. Only the magnitude follows from it.
    max_position_embeddings : int, optional
        The length that the model is offered for, in positions.
    attention_factor : float, optional
        The magnitude, above 0, if the header gives it; else sqrt(1 + log(factor) / log(trained length)).
    short_mscale, long_mscale : float, optional
        The magnitude of each variant, above 0, if the header gives them (Phi-3.5-MoE). They go before the rest.
    seq_len : int, optional
        The length of context to rotate for: the last position + 1. The trained length by default.
    variant : "auto", "short" or "long"
        "auto" is the long variant where seq_len is above the trained length, and the short one otherwise.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range, or the magnitude does not follow from those given.

    References
    ----------
    Ding et al., LongRoPE, https://arxiv.org/abs/2402.13753; transformers, `_compute_longrope_parameters`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> two = {"short_factor": [1.0, 1.0], "long_factor": [1.0, 8.0], "original_max_position_embeddings": 4096}
    >>> rn.frequencies.longrope(4, 10_000.0, **two, factor=32.0, seq_len=4096)
    Frequencies(inv_freq=array([1.  , 0.01]), attention_factor=1.1902380714238083, attention_logit_scale=1.0)
    >>> rn.frequencies.longrope(4, 10_000.0, **two, factor=32.0, seq_len=4097).inv_freq
    array([1.     , 0.00125])
    """
    plain = default(rotary_dim, theta)
    short = divisors_of("short_factor", short_factor, plain.pairs)
    long = divisors_of("long_factor", long_factor, plain.pairs)
    trained = length("original_max_position_embeddings", original_max_position_embeddings)
    longest = trained if seq_len is None else length("seq_len", seq_len)
    if not isinstance(variant, str) or variant not in ("auto", "short", "long"):
        raise ValueError(f"variant is {shown(variant)}; expected 'auto', 'short' or 'long'")
    is_long = variant == "long" or (variant == "auto" and longest > trained)
    mscales = [
        None if mscale is None else positive(name, mscale)
        for name, mscale in (("short_mscale", short_mscale), ("long_mscale", long_mscale))
    ]
    general = _magnitude(factor, max_position_embeddings, trained, attention_factor)
    magnitude = mscales[is_long] or general
    if magnitude is None:
        raise ValueError(
            "factor is missing; expected factor, max_position_embeddings, attention_factor or "
            f"{'long' if is_long else 'short'}_mscale, from which the magnitude follows"
        )
    divisors = long if is_long else short
    speeds = [speed / by for speed, by in zip(plain.inv_freq.tolist(), divisors, strict=True)]
    return Frequencies(speeds, magnitude, depends_on_length=True, theta=plain.theta)


def _magnitude(
    factor: float | None, max_position_embeddings: int | None, trained: int, attention_factor: float | None
) -> float | None:
    """Return the magnitude of both variants, or None if it does not follow from what is given."""
    if factor is not None:
        factor = one_or_more("factor", factor)
    if max_position_embeddings is not None:
        offered = length("max_position_embeddings", max_position_embeddings)
        factor = offered / trained if factor is None else factor
    if attention_factor is not None:
        return positive("attention_factor", attention_factor)
    if factor is None or factor <= 1.0:
        return None if factor is None else 1.0
    if trained == 1:
        raise ValueError("original_max_position_embeddings is 1; expected 2 positions or more")
    return math.sqrt(1.0 + nearest_log(factor) / nearest_log(trained))


@hinted
def divided(
    rotary_dim: int,
    theta: float = 10_000.0,
    *,
    divisors: ArrayLike | Sequence[float],
    attention_factor: float = 1.0,
) -> Frequencies:
    """Return frequencies divided by a list of divisors: ggml's `freq_factors`, `rope_freqs.weight` in a GGUF file.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base: finite, above 0 and not 1.
    divisors : sequence of float, length rotary_dim / 2
        Above 0. From 1e30 on, which is how ggml writes that a pair does not turn, the frequency is 0.
    attention_factor : float
        The magnitude, above 0.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    ggml, `ggml_rope_ext`, parameter `c` (freq_factors).

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.divided(8, 10_000.0, divisors=[1.0, 1.0, 2.0, 1e30]).inv_freq
    array([1.   , 0.1  , 0.005, 0.   ])
    """
    plain = default(rotary_dim, theta)
    by = divisors_of("divisors", divisors, plain.pairs)
    speeds = [0.0 if d >= NEVER else speed / d for speed, d in zip(plain.inv_freq.tolist(), by, strict=True)]
    return Frequencies(speeds, attention_factor, theta=plain.theta)


@hinted
def given(inv_freq: ArrayLike | Sequence[float], *, attention_factor: float = 1.0) -> Frequencies:
    """Return ready-made frequencies, and warn if they look like periods, which some software lists instead.

    Parameters
    ----------
    inv_freq : sequence of float, length rotary_dim / 2
        Radians that each pair turns from one position to the next.
    attention_factor : float
        The magnitude, above 0.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    Warns
    -----
    UserWarning
        If the first pair turns by more than 1, or pairs turn faster and faster. `rope_numba.Frequencies` takes the
        same list without a look.

    References
    ----------
    MLX, `mx.fast.rope`, whose `freqs` are periods: 1 / inv_freq.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.given([1.0, 0.1, 0.01, 0.001]) == rn.frequencies.default(8, 10_000.0)
    True
    """
    frequencies = Frequencies(inv_freq, attention_factor)
    speeds = np.abs(frequencies.inv_freq)
    if speeds[0] > 1.0 or ((np.diff(speeds) >= 0.0).all() and speeds[-1] > speeds[0]):
        warn_caller(
            f"inv_freq goes from {speeds[0]:g} to {speeds[-1]:g}, as periods do; expected frequencies, which begin at "
            "1 or less and fall (frequency = 1 / period)"
        )
    return frequencies
