"""Schemes that keep the fast pairs, divide the slow ones by a factor, and mix the two in between."""

from __future__ import annotations

import math

from ..hints import hinted
from ..numbers import positive
from .arguments import flag, growing_base, length, one_or_more, zero_or_more
from .base import Frequencies
from .plain import default
from .powers import nearest_log

__all__ = ["llama3", "yarn", "yarn_logit_scale"]


@hinted
def yarn(
    rotary_dim: int,
    theta: float = 10_000.0,
    *,
    factor: float,
    original_max_position_embeddings: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
) -> Frequencies:
    """Return the frequencies and the magnitude of YaRN.

    Pairs that turn more than `beta_fast` times within the trained length keep their speed, those that turn less than
    `beta_slow` times are divided by `factor`, and a straight ramp over the pairs between leads from one to the other.
    Before that, each frequency is the float64 nearest to the exact power; each later operation is rounded to float64.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base, above 1.
    factor : float
        How many times longer the context becomes, 1 or more.
    original_max_position_embeddings : int
        The trained length, in positions.
    beta_fast, beta_slow : float
        Turns within the trained length at which the ramp begins and ends; beta_fast at least beta_slow, above 0.
    truncate : bool
        Widen the ramp to whole pairs (gpt-oss does not).
    attention_factor : float, optional
        The magnitude, above 0, if the header gives it. It goes before `mscale` and `mscale_all_dim`.
    mscale, mscale_all_dim : float, optional
        Weights of the logarithm of `factor` in the magnitude m(mscale) / m(mscale_all_dim), where m(weight) is
        0.1 * weight * log(factor) + 1. If one of them is None or 0, the magnitude is m(1).

    Returns
    -------
    Frequencies
        Its `attention_logit_scale` is 1; models with latent attention also need `yarn_logit_scale`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Peng et al., YaRN, https://arxiv.org/abs/2309.00071; transformers, `_compute_yarn_parameters`, for `truncate`,
    `mscale` and the ramp's bounds.

    Examples
    --------
    >>> import rope_numba as rn
    >>> scaled = rn.frequencies.yarn(8, 10_000.0, factor=4.0, original_max_position_embeddings=4096)
    >>> scaled.inv_freq
    array([1.00e+00, 1.00e-01, 6.25e-03, 2.50e-04])
    >>> scaled.attention_factor
    1.138629436111989
    """
    theta = growing_base(theta)
    plain = default(rotary_dim, theta)
    factor = one_or_more("factor", factor)
    trained = length("original_max_position_embeddings", original_max_position_embeddings)
    fast, slow = positive("beta_fast", beta_fast), positive("beta_slow", beta_slow)
    if fast < slow:  # they are equal, 1.0, in Kimi K2
        raise ValueError(f"beta_fast is {fast}; expected beta_slow, {slow}, or more")
    low, high = _ramp(2 * plain.pairs, theta, trained, fast, slow, flag("truncate", truncate))
    speeds = []
    for pair, speed in enumerate(plain.inv_freq.tolist()):
        kept = 1.0 - min(max((pair - low) / (high - low), 0.0), 1.0)
        speeds.append(speed / _divisor(factor, kept))
    magnitude = _magnitude(factor, attention_factor, mscale, mscale_all_dim)
    return Frequencies(speeds, magnitude, theta=theta)


def _divisor(factor: float, kept: float) -> float:
    """Return what a pair is divided by that keeps a share of its speed and has the rest divided by factor.

    It is 1 / (kept + (1 - kept) / factor), so written that it is exactly 1 or factor where nothing is mixed.
    """
    return factor / ((1.0 - kept) + kept * factor)


def _ramp(
    rotary_dim: int, theta: float, trained: int, beta_fast: float, beta_slow: float, truncate: bool
) -> tuple[float, float]:
    """Return the pairs, as real numbers, between which frequencies go from kept to divided."""
    low, high = (
        rotary_dim * nearest_log(trained / (2.0 * math.pi * turns)) / (2.0 * nearest_log(theta))
        for turns in (beta_fast, beta_slow)
    )
    low, high = max(low, 0.0), min(high, rotary_dim - 1.0)  # not pairs - 1, which is keras-hub's former mistake
    if truncate and math.isfinite(low) and math.isfinite(high):
        low, high = float(math.floor(low)), float(math.ceil(high))
    if low > high:
        raise ValueError(
            f"original_max_position_embeddings is {trained}; expected a length for which the ramp does not run "
            f"backwards, here from pair {low:g} to {high:g}"
        )
    return low, high + 0.001 if low == high else high


def _magnitude(
    factor: float, attention_factor: float | None, mscale: float | None, mscale_all_dim: float | None
) -> float:
    over = 0.0 if mscale is None else zero_or_more("mscale", mscale)
    under = 0.0 if mscale_all_dim is None else zero_or_more("mscale_all_dim", mscale_all_dim)
    if attention_factor is not None:
        return positive("attention_factor", attention_factor)
    if over and under:
        return _mscale(factor, over) / _mscale(factor, under)
    return _mscale(factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * weight * nearest_log(factor) + 1.0


@hinted
def yarn_logit_scale(factor: float, mscale_all_dim: float) -> float:
    """Return what models with latent attention (DeepSeek) multiply their logits by, beside YaRN's magnitude.

    It is m(mscale_all_dim) squared, with the m of `yarn`, on top of 1 / sqrt(width of a query head). No rotation uses
    it; a reader puts it into `Frequencies.attention_logit_scale`.

    Parameters
    ----------
    factor : float
        How many times longer the context becomes, 1 or more.
    mscale_all_dim : float
        Weight of the logarithm of `factor`, 0 or more.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    transformers, `models/deepseek_v3/modeling_deepseek_v3.py`, `DeepseekV3Attention`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.yarn_logit_scale(40.0, 1.0)
    1.8738542070926265
    """
    scale = _mscale(one_or_more("factor", factor), zero_or_more("mscale_all_dim", mscale_all_dim))
    return scale * scale


@hinted
def llama3(
    rotary_dim: int,
    theta: float = 10_000.0,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> Frequencies:
    """Return the frequencies of Llama 3.1 and later.

    Pairs that turn more than `high_freq_factor` times within the trained length keep their speed, those that turn less
    than `low_freq_factor` times are divided by `factor`, and those between are mixed by how often they turn.
    Before that, each frequency is the float64 nearest to the exact power; each later operation is rounded to float64.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base: finite, above 0 and not 1.
    factor : float
        What the slow pairs are divided by, 1 or more.
    low_freq_factor, high_freq_factor : float
        Turns within the trained length, high_freq_factor above low_freq_factor above 0.
    original_max_position_embeddings : int
        The trained length, in positions.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    transformers, `_compute_llama3_parameters`, whose three cases are one clamp here, as in FlashInfer.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.llama3(
    ...     8, 10_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=1024
    ... ).inv_freq
    array([1.00000000e+00, 1.00000000e-01, 3.08676097e-03, 1.25000000e-04])
    """
    plain = default(rotary_dim, theta)
    factor = one_or_more("factor", factor)
    low, high = positive("low_freq_factor", low_freq_factor), positive("high_freq_factor", high_freq_factor)
    if high < low:  # they are equal, 1.0, in configurations of Llama 4 Scout: a step, and no ramp
        raise ValueError(f"high_freq_factor is {high}; expected low_freq_factor, {low}, or more")
    trained = length("original_max_position_embeddings", original_max_position_embeddings)
    speeds = []
    for speed in plain.inv_freq.tolist():
        turns = trained * speed / (2.0 * math.pi)
        kept = float(turns > low) if high == low else min(max((turns - low) / (high - low), 0.0), 1.0)
        speeds.append(speed / _divisor(factor, kept))
    return Frequencies(speeds, theta=plain.theta)
