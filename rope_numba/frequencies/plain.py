"""The frequencies of plain RoPE, which all other schemes start from."""

from __future__ import annotations

import math

from ..numbers import even_width, positive
from .base import Frequencies

__all__ = ["default"]

WIDEST = 1 << 20  # more channels than any head has: what stops a spoilt header from asking for all memory


def default(rotary_dim: int, theta: float = 10_000.0) -> Frequencies:
    """Return the frequencies of plain RoPE: theta ** (-2 * i / rotary_dim) for pair i.

    Parameters
    ----------
    rotary_dim : int
        Channels that are rotated, an even number.
    theta : float
        The base, from the model's header: finite, above 0 and not 1.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Su et al., RoFormer, https://arxiv.org/abs/2104.09864, section 3.2.2.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.default(8, theta=10_000.0).inv_freq
    array([1.   , 0.1  , 0.01 , 0.001])
    """
    rotary_dim = even_width("rotary_dim", rotary_dim)
    if rotary_dim > WIDEST:
        raise ValueError(f"rotary_dim is {rotary_dim}; expected at most {WIDEST} channels")
    theta = positive("theta", theta)
    if theta == 1.0:
        raise ValueError("theta is 1.0; expected another number above 0, as all pairs would turn alike")
    try:
        # math.pow and not np.power, whose last bits differ between processors.
        return Frequencies([math.pow(theta, -2.0 * pair / rotary_dim) for pair in range(rotary_dim // 2)])
    except OverflowError:
        raise ValueError(f"theta is {theta}; expected a larger number, as frequencies would be infinite") from None
