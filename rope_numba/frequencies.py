"""Frequency schemes: what a model's header says about the speed at which each pair turns.

Each scheme is one pure function that returns a `Frequencies`; no scheme is known to anything behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Frequencies", "default"]

FASTEST = 2.0**900


@dataclass(frozen=True, eq=False)
class Frequencies:
    """The angular frequency of each pair, and the magnitude that goes with them.

    Parameters
    ----------
    inv_freq : array of float64, shape (pairs,)
        Radians that a pair turns from one position to the next. Kept as a read-only copy.
    attention_factor : float
        Magnitude of the rotation, above 0: cosines and sines are multiplied by it, so that rotated channels of q and
        of k both carry it.

    Raises
    ------
    TypeError
        If a value is not a real number.
    ValueError
        If `inv_freq` is not a non-empty list of finite numbers, or `attention_factor` is not finite and above 0.

    Notes
    -----
    Two are equal if they have the same bytes, wherever they came from.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.Frequencies([1.0, 0.1, 0.01], attention_factor=1.2).inv_freq
    array([1.  , 0.1 , 0.01])
    """

    inv_freq: NDArray[np.float64]
    attention_factor: float = 1.0
    key: tuple[bytes, float] = field(init=False, repr=False)
    smallest: float = field(init=False, repr=False)

    def __init__(self, inv_freq: ArrayLike, attention_factor: float = 1.0) -> None:
        try:
            given = np.asarray(inv_freq)
        except ValueError:
            raise ValueError("inv_freq has rows of unequal length; expected one number for each pair") from None
        if isinstance(inv_freq, np.ma.MaskedArray):
            raise TypeError("inv_freq is a masked array; expected real numbers without a mask")
        if given.dtype.kind not in "iuf":
            raise TypeError(f"inv_freq has dtype {given.dtype}; expected real numbers")
        values = np.array(given, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"inv_freq has shape {values.shape}; expected one number for each pair")
        if not np.isfinite(values).all():
            raise ValueError(f"inv_freq holds {values[~np.isfinite(values)][0]}; expected finite numbers")
        if np.abs(values).max() > FASTEST:
            raise ValueError(
                f"inv_freq holds {np.abs(values).max()}; expected at most 2**900, so that angles are finite"
            )
        raw = values.tobytes()
        values = np.frombuffer(raw)  # of bytes, which nobody can make writeable
        factor = positive("attention_factor", attention_factor)
        if not math.isfinite(1.0 / factor):
            raise ValueError(f"attention_factor is {factor}; expected a number whose inverse is finite")
        object.__setattr__(self, "inv_freq", values)
        object.__setattr__(self, "attention_factor", factor)
        object.__setattr__(self, "key", (raw, factor))
        turning = np.abs(values[values != 0.0])
        object.__setattr__(self, "smallest", float(turning.min(initial=1.0)) * min(factor, 1.0))

    @property
    def pairs(self) -> int:
        """Number of pairs: half the rotary width."""
        return int(self.inv_freq.size)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Frequencies) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[type[Frequencies], tuple[NDArray[np.float64], float]]:
        return Frequencies, (self.inv_freq, self.attention_factor)


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
    theta = positive("theta", theta)
    if theta == 1.0:
        raise ValueError("theta is 1.0; expected another number above 0, as all pairs would turn alike")
    try:
        # math.pow and not np.power, whose last bits differ between processors.
        return Frequencies([math.pow(theta, -2.0 * pair / rotary_dim) for pair in range(rotary_dim // 2)])
    except OverflowError:
        raise ValueError(f"theta is {theta}; expected a larger number, as frequencies would be infinite") from None


def even_width(name: str, value: int) -> int:
    """Return a width as an int, or raise if it is not an even number above 0."""
    width = whole(name, value)
    if width < 2 or width % 2:
        raise ValueError(f"{name} is {width}; expected an even number of channels, 2 or more")
    return width


def whole(name: str, value: int) -> int:
    """Return a number as an int, or raise if it is not a whole number (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {shown(value)}; expected an int")
    return int(value)


def positive(name: str, value: float) -> float:
    """Return a number as a float, or raise if it is not finite and above 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {shown(value)}; expected a number above 0")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} is {number}; expected a finite number above 0")
    return number


def shown(value: object) -> str:
    """Return a value as an error text shows it: on one line, and not for long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"of type {type(value).__name__}"
