"""The frequencies of plain RoPE, which all other schemes start from."""

from __future__ import annotations

from ..hints import hinted
from ..numbers import positive
from .arguments import rotary_width
from .base import FASTEST, Frequencies
from .powers import powers

__all__ = ["default"]


@hinted
def default(rotary_dim: int, theta: float = 10_000.0) -> Frequencies:
    """Return the frequencies of plain RoPE: theta ** (-2 * i / rotary_dim) for pair i.

    Each one is the float64 nearest to the exact power, on every processor.

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
    rotary_dim = rotary_width("rotary_dim", rotary_dim)
    theta = positive("theta", theta)
    if theta == 1.0:
        raise ValueError("theta is 1.0; expected another number above 0, as all pairs would turn alike")
    speeds = powers(theta, rotary_dim // 2)
    if speeds.max() > FASTEST:
        raise ValueError(f"theta is {theta}; expected a larger number, as frequencies would be above 2**900")
    return Frequencies(speeds, theta=theta)
