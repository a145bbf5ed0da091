"""Angles far above and far below the usual ones, and numbers that leave the range of their type: at the same pace.

Large angles lose their full turns (Payne and Hanek: what is left of powers of two is listed). For small ones a product
of two float64 numbers is known exactly, and what a cosine or sine lacks of it is known to be above 0, however little it
is, so that no tie between two numbers of a type is left undecided.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errorfree import two_product, two_sum
from .exact import BITS, floats, pi

__all__ = ["FAR", "SMALL", "Ends", "round_once", "small_cosines_and_sines", "without_turns"]

Vector = NDArray[np.float64]

FAR = 2.0**31  # angles from here on lose their full turns
SMALL = 2.0**-20  # angles below it: two terms of Taylor's series give what is lost to 2**-49 of itself

LEAST_POWER, MOST_POWER = 31 - 53, 1024 - 26  # of those that make up an angle from FAR on

# value and rest, whose sum is to be multiplied by 2**exponent, for either end of where a result lies.
Ends = list[tuple[Vector, Vector, NDArray[np.int64]]]


def without_turns(angles: Vector) -> tuple[Vector, Vector, Vector]:
    """Return angles in three parts, below 2**30 and off by less than 2**-87; those below FAR stay as they are."""
    mantissa, exponent = np.frexp(angles)
    near = exponent <= LEAST_POWER + 53
    upper = np.rint(mantissa * 2.0**26)
    lower = (mantissa * 2.0**26 - upper) * 2.0**27
    # An angle is upper * 2**(exponent - 26) + lower * 2**(exponent - 53).
    place = np.where(near, 0, exponent - 53 - LEAST_POWER)
    table = _powers_without_turns()
    a, b = ([part.take(place + offset) for part in table] for offset in (27, 0))
    total, rest = two_sum(upper * a[0], lower * b[0])
    more, low = two_sum(upper * a[1], lower * b[1])
    total, rest_too = two_sum(total, more)
    middle, low_too = two_sum(rest, rest_too)
    low += low_too
    more, low_too = two_sum(upper * a[2], lower * b[2])
    low += low_too
    middle, low_too = two_sum(middle, more)
    low += low_too + (upper * a[3] + lower * b[3])
    return np.where(near, angles, total), np.where(near, 0.0, middle), np.where(near, 0.0, low)


@functools.cache
def _powers_without_turns() -> NDArray[np.float64]:
    """Return what is left of 2**p without full turns, in four parts, of 26 bits but for the last; each p in turn."""
    spare = MOST_POWER + 64
    turn, rest = 2 * pi(BITS + spare), 1 << (BITS + spare + LEAST_POWER)
    rows = []
    for _ in range(LEAST_POWER, MOST_POWER + 1):
        rows.append(floats(rest >> spare, 26, 26, 26))
        rest = 2 * rest % turn
    return np.array(rows).T.copy()


def small_cosines_and_sines(angles: Vector, factor: float) -> tuple[Ends, Ends]:
    """Return between which two numbers factor * cos and factor * sin lie, for angles below SMALL other than 0."""
    size = np.abs(angles)
    mantissa, exponent = np.frexp(size)  # so that no product loses bits below the range of float64
    square = size * size
    none = np.zeros_like(exponent)
    whole = np.full_like(size, factor)
    cosine = _below(whole, np.zeros_like(size), square * (1 / 2 - square * (1 / 24)))
    product, rest = two_product(factor, mantissa)
    sign = np.copysign(1.0, angles)
    sine = _below(product, rest, square * (1 / 6 - square * (1 / 120)))
    return [(whole, end, none) for end in cosine], [(sign * product, sign * end, exponent) for end in sine]


def _below(value: Vector, rest: Vector, share: Vector) -> tuple[Vector, Vector]:
    """Return the ends of where rest lies when (value + rest) has lost a share of itself, which is above 0."""
    lost = value * share
    error = lost * 2.0**-49 + np.abs(rest) * 2.0**-51
    most = np.nextafter(rest, -np.inf)
    return np.minimum((rest - lost) - error, most), np.minimum((rest - lost) + error, most)


def round_once(value: Vector, rest: Vector, exponent: int | NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the number of a type that is nearest to (value + rest) * 2**exponent, ties to even, in its whole range."""
    limits = np.finfo(dtype)
    total, low = two_sum(value, rest)
    unit = np.maximum(np.frexp(total)[1] + exponent - 1, int(limits.minexp)) - int(limits.nmant)
    steps = np.ldexp(total, exponent - unit)
    whole = np.rint(steps)
    beyond = steps - whole
    # A tie that low takes to one side.
    whole += np.where((np.abs(beyond) == 0.5) & (np.sign(low) == np.sign(beyond)), 2.0 * beyond, 0.0)
    nearest: NDArray[Any] = np.ldexp(whole, unit).astype(dtype)
    return nearest
