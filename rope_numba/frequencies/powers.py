"""Powers of a base, each the float64 nearest to the exact power, with the same bits on every processor.

An exponential is 2**e * 2**(j / STEPS) * exp(d), where d is so small that a few terms of Taylor's series are enough.
The sum of two float64 numbers holds it to less than 2**-70 of itself. Where that error could change the rounding
(1 power in 32,000), the standard library's `decimal` decides. Everything else is made of sums, products and roundings
of float64, whose bits IEEE 754 fixes, and each is a NumPy call of its own, which nothing contracts. The last bit of
`math.pow` depends on whether the C library may use fused multiply-add.
"""

from __future__ import annotations

import decimal
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..errorfree import first_bits, two_sum
from ..exact import BITS, floats

__all__ = ["nearest_log", "powers"]

Vector = NDArray[np.float64]

STEPS = 256  # listed powers of 2 from 1 to 2
ERROR = 2.0**-70  # relative: what the sum of two float64 may be off
LEAST = -1022  # the exponent of the least float64 that has all its bits
MOST_KEPT = 4096  # pairs: 32 KiB an answer

ONE = Fraction(1)


def powers(base: float, pairs: int, slower: Fraction = ONE) -> Vector:
    """Return base ** (-i / pairs) * slower ** (-i / (pairs - 1)) for each pair i, each rounded once to float64.

    Parameters
    ----------
    base : float
        Finite and above 0.
    pairs : int
        Number of powers; 2 or more if `slower` is given.
    slower : Fraction
        By how much the last pair is slowed down, above 0.

    Returns
    -------
    read-only array of float64, shape (pairs,)
        Infinite where no float64 is large enough.
    """
    return (_kept if pairs <= MOST_KEPT else _computed)(base, pairs, slower)


def nearest_log(x: float) -> float:
    """Return the float64 nearest to the natural logarithm of a number above 0."""
    # No float64 has a logarithm within 10**-40 of the middle between two float64 but 1, whose logarithm is 0.
    return float(_context(50).ln(decimal.Decimal(x)))


def _computed(base: float, pairs: int, slower: Fraction) -> Vector:
    value, rest, exponent = _two_float64(_step(base, pairs, slower), pairs)
    error = value * ERROR
    with np.errstate(over="ignore", under="ignore"):
        low, high = (np.ldexp(value + (rest + off), exponent) for off in (-error, error))
    undecided = np.flatnonzero((low != high) | (exponent <= LEAST))
    if undecided.size:
        low[undecided] = _by_decimal(base, pairs, slower, undecided.tolist())
    return np.frombuffer(low.tobytes())  # of bytes, which cannot be made writeable


_kept = functools.lru_cache(maxsize=256)(_computed)


def _two_float64(step: int, pairs: int) -> tuple[Vector, Vector, NDArray[np.int64]]:
    """Return exp(-i * step) for each pair i as (value + rest) * 2**exponent; step is in units of 2**-BITS."""
    i = np.arange(pairs, dtype=np.float64) * (1.0 if step < 0 else -1.0)
    # Parts so short that their products with i and k, of up to 20 bits, are exact.
    of_step, of_two = floats(abs(step), 32, 32), _log_of_two()
    k = np.rint(i * (abs(step) / (1 << BITS)) * (STEPS / _LOG_2))
    d = i * of_step[0] - k * of_two[0]
    d, low = two_sum(d, k * -of_two[1])
    d, low_too = two_sum(d, i * of_step[1])
    low += low_too + (i * of_step[2] - k * of_two[2])
    square = d * d
    upper = first_bits(d)  # whose products with the first bits of the list are exact
    lower = (d - upper) + low
    # exp(d + low) - 1 - d
    more = square * (0.5 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720))))) + d * low
    place = k.astype(np.int64)
    a, a_low, a_whole = (part.take(place % STEPS) for part in _listed())
    product = a * upper
    first = a + product
    rest = product - (first - a) + (a_low + (a_whole * more + (a * lower + a_low * d)))
    value = first + rest
    return value, rest - (value - first), place // STEPS


@functools.cache
def _listed() -> tuple[Vector, Vector, Vector]:
    """Return 2**(j / STEPS) for each j: its first 26 bits, the rest, and both in one float64."""
    root, values = 2 << BITS, [1 << BITS]
    for _ in range(STEPS.bit_length() - 1):
        root = math.isqrt(root << BITS)
    for _ in range(STEPS - 1):
        values.append(values[-1] * root >> BITS)
    rest = BITS - 25  # below the first 26 bits
    upper = np.array([value >> rest for value in values], np.float64) * 2.0**-25
    lower = np.array([float(value & ((1 << rest) - 1)) for value in values]) * 2.0**-BITS
    return upper, lower, upper + lower


@functools.cache
def _log_of_two() -> list[float]:
    """Return log(2) / STEPS in parts."""
    return floats(_scaled(_log(decimal.Decimal(2), 90)) // STEPS, 32, 32)


_LOG_2 = 0.6931471805599453  # the float64 nearest to it


def _step(base: float, pairs: int, slower: Fraction) -> int:
    """Return the logarithm that a pair loses, in units of 2**-BITS."""
    return _scaled(_logarithm(base, pairs, slower, 90))


def _scaled(value: decimal.Decimal) -> int:
    return int(_context(200).multiply(value, decimal.Decimal(1 << BITS)))


def _by_decimal(base: float, pairs: int, slower: Fraction, undecided: list[int]) -> list[float]:
    """Return the powers of some pairs, exact but for one rounding.

    No power lies in the middle between two float64, so that digits enough decide. A power is the product of two that
    are listed: an exponential takes 110 us, and half of all powers may be undecided where a base is next to 1.
    """
    found: dict[int, float] = {}
    left, digits = undecided, 60
    while left:
        context = _context(digits)
        step = context.exp(context.minus(_logarithm(base, pairs, slower, digits)))
        width = math.isqrt(left[-1]) + 1
        ones = _successive(step, width, context)
        widths = _successive(context.multiply(ones[-1], step), left[-1] // width + 1, context)
        again = []
        for pair in left:
            value = context.multiply(widths[pair // width], ones[pair % width])
            # The step is off in its last digit, its power up to 2**19 times as far.
            error = context.scaleb(value, 10 - digits)
            found[pair] = float(context.subtract(value, error))
            if found[pair] != float(context.add(value, error)):
                again.append(pair)
        left, digits = again, 2 * digits
    return [found[pair] for pair in undecided]


def _successive(step: decimal.Decimal, count: int, context: decimal.Context) -> list[decimal.Decimal]:
    """Return step**0, step**1 and so on."""
    return list(itertools.accumulate(itertools.repeat(step, count - 1), context.multiply, initial=decimal.Decimal(1)))


def _logarithm(base: float, pairs: int, slower: Fraction, digits: int) -> decimal.Decimal:
    """Return the logarithm that a pair loses."""
    context = _context(digits)
    total = context.divide(_log(decimal.Decimal(base), digits), pairs)
    if slower != 1:
        over, under = (_log(decimal.Decimal(part), digits) for part in (slower.numerator, slower.denominator))
        total = context.add(total, context.divide(context.subtract(over, under), pairs - 1))
    return total


@functools.lru_cache(maxsize=16)
def _log(number: decimal.Decimal, digits: int) -> decimal.Decimal:
    return _context(digits).ln(number)


def _context(digits: int) -> decimal.Context:
    """Return the rules of decimal arithmetic with so many digits, whatever rules the program has set for itself."""
    return decimal.Context(
        prec=digits,
        rounding=decimal.ROUND_HALF_EVEN,
        Emin=-999_999,
        Emax=999_999,
        capitals=1,
        clamp=0,
        flags=[],
        traps=[decimal.InvalidOperation],
    )
