"""Cosines and sines of many float64 angles at once, each correctly rounded, with the same bits on every processor.

An angle loses k times pi/2 (Cody and Waite: pi/2 in parts so short that their products with k are exact), then j/512,
whose cosine and sine are listed. Of what is left, at most 1/1024, a few terms of Taylor's series are enough.

For float64 a result is the sum of two float64 numbers, off by less than 2**-69 of itself; for float32 one float64 will
do. Where that error could change the rounding (1 float32 in 17 million) two float64 decide for float32 too, and where
theirs could (1 float64 in 50,000), whole numbers do.
Everything is made of sums, products and roundings of float64, whose bits IEEE 754 fixes, and each is a NumPy call of
its own, which nothing contracts. NumPy's own cosines have other last bits on another processor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errorfree import first_bits, two_sum
from .exact import BITS, floats, pi, rounded, series
from .extremes import FAR, SMALL, round_once, small_cosines_and_sines, without_turns

__all__ = ["write_cosines_and_sines"]

Vector = NDArray[np.float64]

# Magnitudes outside of these are taken apart, so that no step leaves the range of float64.
FACTORS = 2.0**-64, 2.0**64

STEPS = 512  # listed angles to a radian
ERROR_OF_ONE, ERROR_OF_TWO = 2.0**-49, 2.0**-69  # relative: what a result in one float64 or in two may be off

_PI = pi(BITS)
QUARTER = floats(_PI >> 1, 22, 22, 22)  # pi/2, for k of 31 bits


def write_cosines_and_sines(angles: Vector, factor: float, out: NDArray[Any]) -> None:
    """Write factor * cos(angles) and factor * sin(angles), each rounded once, to out[0] and out[1].

    The type of out, float32 or float64, is what is rounded to.
    """
    _write(angles, factor, out, in_two=out.dtype != np.float32)


def _write(angles: Vector, factor: float, out: NDArray[Any], *, in_two: bool) -> None:
    """Write what one or two float64 numbers decide, and leave the rest to two, or to whole numbers."""
    size = np.abs(angles)
    least, most = float(size.min(initial=1.0)), float(size.max(initial=1.0))
    scaled, exponent = (factor, 0) if FACTORS[0] <= factor <= FACTORS[1] else math.frexp(factor)
    formula = _two_float64 if in_two else _one_float64
    plain = exponent == 0 and (not in_two or out.dtype != np.float32)  # a sum of two float64 is rounded to them first
    results = formula(*_reduced(angles, most >= FAR), _listed(scaled))
    small = (size < SMALL) & (size > 0.0) if least < SMALL else None
    of_small = None if small is None else small_cosines_and_sines(angles[small], scaled)
    for row, (value, rest, error) in enumerate(results):
        out[row], high = (
            (value + (rest + off)).astype(out.dtype, copy=False)
            if plain
            else round_once(value, rest + off, exponent, out.dtype)
            for off in (-error, error)
        )
        undecided = out[row] != high
        if small is not None and of_small is not None:
            low, high = (round_once(end, left, more + exponent, out.dtype) for end, left, more in of_small[row])
            out[row][small], undecided[small] = low, low != high
        if least == 0.0:
            np.copyto(out[row], (factor, angles)[row], where=size == 0.0, casting="same_kind")  # sin(-0.0) is -0.0
            undecided &= size > 0.0
        if not undecided.any():
            continue
        if in_two:
            for entry in zip(*np.nonzero(undecided), strict=True):
                out[row][entry] = rounded(("cos", "sin")[row], float(angles[entry]), factor, out.dtype)
        else:  # as many as there are: all angles near 2**-12 may be
            again = np.empty((2, np.count_nonzero(undecided)), out.dtype)
            _write(angles[undecided], factor, again, in_two=True)
            out[row][undecided] = again[row]


class Reduced(NamedTuple):
    """Angles as that at a place of the list, plus d + low, which may be off by error."""

    place: NDArray[np.int64]
    d: Vector
    low: Vector
    error: Vector


def _reduced(angles: Vector, far: bool) -> Reduced:
    """Take off multiples of pi/2 and of 1 / STEPS."""
    if far:
        angles, middle, low = without_turns(angles)
    k = np.rint(angles * (2.0 / np.pi))
    error = np.abs(k) * 2.0**-104
    d = angles - k * QUARTER[0]
    d, lost = two_sum(d, k * -QUARTER[1])
    d, lost_too = two_sum(d, k * -QUARTER[2])
    lost = (lost + lost_too) - k * QUARTER[3]
    if far:
        d, lost_too = two_sum(d, middle)
        lost += lost_too + low
        error += 2.0**-87
    j = np.rint(d * STEPS)
    place = (k * (2 * STEPS) + (j + STEPS)).astype(np.int64) & (8 * STEPS - 1)
    return Reduced(place, d - j * (1.0 / STEPS), lost, error)


@functools.lru_cache(maxsize=16)
def _listed(factor: float) -> NDArray[np.float64]:
    """Return factor times the cosines and the sines of k * pi/2 + j / STEPS, for each k modulo 4 and each j.

    The axes: cosine or sine; its first 26 bits, the rest, or both in one float64; its place.
    """
    numerator, denominator = factor.as_integer_ratio()
    shift = denominator.bit_length() - 1
    upper, lower = np.array([floats(value * numerator >> shift, 26) for value in _whole()]).T
    above = np.array([upper, lower, upper + lower]).reshape(3, -1, 2).transpose(2, 0, 1)  # of j from 0 on
    below = above[:, :, :0:-1] * np.array([1.0, -1.0]).reshape(2, 1, 1)
    table = np.zeros((2, 3, 4, 2 * STEPS))
    table[:, :, 0, STEPS : STEPS + above.shape[2]] = above
    table[:, :, 0, STEPS - below.shape[2] : STEPS] = below
    for quarter in range(1, 4):
        table[0, :, quarter], table[1, :, quarter] = -table[1, :, quarter - 1], table[0, :, quarter - 1]
    return table.reshape(2, 3, -1)


@functools.cache
def _whole() -> list[int]:
    """Return the cosine and the sine of 0, of 1 / STEPS and so on to a little beyond pi/4, in units of 2**-BITS."""
    cos, sin = series((1 << BITS) // STEPS, BITS)
    values = [1 << BITS, 0]
    for _ in range(STEPS * 4 // 5):
        before, beside = values[-2:]
        values += [(before * cos - beside * sin) >> BITS, (beside * cos + before * sin) >> BITS]
    return values


# The cosines, then the sines: value + rest, and how far that may be off.
Results = Iterator[tuple[Vector, Vector | float, Vector]]


def _one_float64(place: NDArray[np.int64], d: Vector, low: Vector, error: Vector, listed: Vector) -> Results:
    """Yield results in one float64, from which float32 is rounded."""
    d = d + low
    square = d * d
    sine = d - d * square * (1 / 6 - square * (1 / 120))
    versine = square * (0.5 - square * (1 / 24))  # 1 - cos(d)
    c, s = listed[0, 2].take(place), listed[1, 2].take(place)
    for value in (c - (c * versine + s * sine), s + (c * sine - s * versine)):
        yield value, 0.0, np.abs(value) * ERROR_OF_ONE + error


def _two_float64(place: NDArray[np.int64], d: Vector, low: Vector, error: Vector, listed: Vector) -> Results:
    """Yield results in two float64, from which float64 is rounded."""
    d, low = two_sum(d, low)
    square = d * d
    upper = first_bits(d)  # whose products with the first bits of the list are exact
    lower = low - d * square * (1 / 6 - square * (1 / 120)) + (d - upper)
    sine = upper + lower
    versine = square * (0.5 - square * (1 / 24 - square * (1 / 720)))  # 1 - cos(d)
    c, s = ([part.take(place) for part in parts] for parts in listed)
    for (a, a_low, a_whole), (b, b_low, _) in ((c, [-part for part in s]), (s, c)):  # a * cos(d) + b * sin(d)
        product = b * upper
        first = a + product
        rest = product - (first - a) + ((a_low - a_whole * versine) + (b * lower + b_low * sine))
        value = first + rest
        yield value, rest - (value - first), np.abs(value) * ERROR_OF_TWO + error
