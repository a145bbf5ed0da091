"""The cosine or sine of a float64 angle in whole numbers, to any precision.

For the few entries that float64 leaves undecided, and for what is listed beforehand.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

__all__ = ["BITS", "floats", "pi", "rounded", "series"]

# Of a number after the point. No float64 comes nearer to a multiple of pi/2 than about 2**-62, relative to it, and
# results are wanted to about 2**-100.
BITS = 256


@functools.lru_cache(maxsize=16)  # equal frequencies ask for one entry one after another; it takes 50 us
def rounded(function: str, angle: float, factor: float, dtype: np.dtype[np.float32] | np.dtype[np.float64]) -> float:
    """Return factor * cos(angle) or factor * sin(angle), exact but for one rounding to a type, ties to even."""
    value = Fraction(factor) * _cos_or_sin(function, Fraction(angle))
    return _nearest_float32(value) if dtype == np.float32 else _nearest_float64(value)


def _cos_or_sin(function: str, angle: Fraction) -> Fraction:
    """Return the cosine or sine to BITS significant bits or more."""
    # A large angle loses as many bits as multiples of pi/2 are taken off; a small one's sine begins as late, and
    # differs from the angle three times as late.
    size = angle.numerator.bit_length() - angle.denominator.bit_length()
    work = BITS + 64 + max(size, -3 * size)
    scaled = (angle.numerator << work) // angle.denominator
    quarter = pi(work) >> 1
    turns, rest = divmod(scaled, quarter)
    turns += {"cos": 0, "sin": 3}[function]  # sin(x) = cos(x + 3 * pi/2)
    cosine, sine = series(rest, work)
    return Fraction((cosine, -sine, -cosine, sine)[turns % 4], 1 << work)


def series(angle: int, work: int) -> tuple[int, int]:
    """Return the cosine and sine of an angle below 2, all in units of 2**-work, by Taylor's series."""
    sums = [0, 0]
    term, number = 1 << work, 0
    while term:
        sums[number % 2] += -term if number & 2 else term
        number += 1
        term = ((term * angle) >> work) // number
    return sums[0], sums[1]


@functools.cache
def pi(work: int) -> int:
    """Return pi in units of 2**-work, by Machin's formula 16 * atan(1/5) - 4 * atan(1/239)."""
    guard = work + 32

    def arctangent_of_inverse(denominator: int) -> int:
        power = (1 << guard) // denominator
        total, number = 0, 1
        while power:
            total += (-1) ** (number // 2) * (power // number)
            power //= denominator * denominator
            number += 2
        return total

    return (16 * arctangent_of_inverse(5) - 4 * arctangent_of_inverse(239)) >> 32


def floats(value: int, *widths: int) -> list[float]:
    """Cut a number in units of 2**-BITS into floats that add up to it: of so many bits each, and a last one of 53."""
    cut = []
    for width in widths:
        shift = max(value.bit_length() - width, 0)
        upper = value >> shift
        cut.append(math.ldexp(upper, shift - BITS))
        value -= upper << shift
    return [*cut, math.ldexp(value, -BITS)]


def _nearest_float32(value: Fraction) -> float:
    """Return the float32 nearest to a number, ties to even, as a float."""
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    nearest = round(magnitude / unit) * unit  # round() of a Fraction breaks ties to even
    sign = -1.0 if value < 0 else 1.0
    return sign * (float(nearest) if nearest < Fraction(2) ** 128 else float("inf"))


def _nearest_float64(value: Fraction) -> float:
    """Return the float64 nearest to a number, ties to even."""
    try:
        return float(value)  # Python divides whole numbers with one rounding
    except OverflowError:
        return float("-inf") if value < 0 else float("inf")
