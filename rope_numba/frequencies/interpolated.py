"""Schemes that slow all pairs down by one rule: divided positions, or a larger base."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..hints import hinted
from .arguments import growing_base, length, one_or_more, rotary_width
from .base import Frequencies
from .plain import default
from .powers import nearest_log, powers

__all__ = ["dynamic", "linear", "ntk"]

LOG_OF_LARGEST = 709.782712893384  # of the largest float64


@hinted
def linear(rotary_dim: int, theta: float = 10_000.0, *, factor: float) -> Frequencies:
    """Return frequencies divided by a factor: position interpolation, as if all positions were divided.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base: finite, above 0 and not 1.
    factor : float
        How many times longer the context becomes, 1 or more.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Chen et al., Extending Context Window of Large Language Models via Position Interpolation,
    https://arxiv.org/abs/2306.15595.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.linear(8, 10_000.0, factor=4.0).inv_freq
    array([0.25   , 0.025  , 0.0025 , 0.00025])
    """
    plain = default(rotary_dim, theta)
    factor = one_or_more("factor", factor)
    return Frequencies([speed / factor for speed in plain.inv_freq.tolist()], theta=plain.theta)


@hinted
def ntk(rotary_dim: int, theta: float = 10_000.0, *, alpha: float) -> Frequencies:
    """Return frequencies of a base so enlarged that the slowest pair is alpha times slower: static NTK-aware scaling.

    The fastest pair keeps its speed. Each frequency is the float64 nearest to the exact power of the exact base.
    Configurations that hold `alpha` mean this scheme, also where their type says
    dynamic (HunYuan); vLLM's type `ntk` is another rule.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number, 4 or more.
    theta : float
        The base before it is enlarged, above 1.
    alpha : float
        How many times slower the slowest pair becomes, 1 or more.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Peng et al., YaRN, https://arxiv.org/abs/2309.00071, section 3.1, with alpha for its scale.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.ntk(8, 10_000.0, alpha=8.0).inv_freq
    array([1.00e+00, 5.00e-02, 2.50e-03, 1.25e-04])
    """
    rotary_dim, theta = _width_and_base(rotary_dim, theta)
    alpha = one_or_more("alpha", alpha)
    return Frequencies(_slowed(rotary_dim, theta, Fraction(alpha), f"alpha is {alpha}"), theta=theta)


@hinted
def dynamic(
    rotary_dim: int,
    theta: float = 10_000.0,
    *,
    factor: float,
    original_max_position_embeddings: int,
    seq_len: int | None = None,
) -> Frequencies:
    """Return the frequencies of dynamic NTK scaling for one length of context.

    Up to the trained length they are those of plain RoPE; beyond, the base grows with the length. All keys and queries
    that meet must be rotated for the same length: choose the longest that will be reached.
    Each frequency is the float64 nearest to the exact power of the exact base.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number, 4 or more.
    theta : float
        The base, above 1.
    factor : float
        How steeply the base grows, 1 or more.
    original_max_position_embeddings : int
        The trained length, in positions.
    seq_len : int, optional
        The length of context to rotate for: the last position + 1. The trained length by default.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Peng et al., YaRN, https://arxiv.org/abs/2309.00071, section 3.3; transformers, `_compute_dynamic_ntk_parameters`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.dynamic(8, 10_000.0, factor=2.0, original_max_position_embeddings=4096, seq_len=16384).inv_freq
    array([1.00000000e+00, 5.22757959e-02, 2.73275883e-03, 1.42857143e-04])
    """
    rotary_dim, theta = _width_and_base(rotary_dim, theta)
    factor = one_or_more("factor", factor)
    trained = length("original_max_position_embeddings", original_max_position_embeddings)
    longest = max(trained, trained if seq_len is None else length("seq_len", seq_len))
    slower = Fraction(factor) * longest / trained - (Fraction(factor) - 1)
    return Frequencies(_slowed(rotary_dim, theta, slower, f"factor is {factor}"), depends_on_length=True, theta=theta)


def _width_and_base(rotary_dim: int, theta: float) -> tuple[int, float]:
    rotary_dim = rotary_width("rotary_dim", rotary_dim)
    if rotary_dim == 2:
        raise ValueError("rotary_dim is 2; expected 4 or more, as a single pair cannot be slowed by its base")
    return rotary_dim, growing_base(theta)


def _slowed(rotary_dim: int, theta: float, slower: Fraction, blamed: str) -> NDArray[np.float64]:
    """Return the frequencies whose last pair is so many times slower, or raise if their base is infinite."""
    try:
        base = nearest_log(theta) + nearest_log(float(slower)) * (rotary_dim / (rotary_dim - 2))
    except OverflowError:
        base = math.inf
    if base >= LOG_OF_LARGEST:
        raise ValueError(f"{blamed}; expected a smaller number, as the base would be infinite")
    return powers(theta, rotary_dim // 2, slower)
