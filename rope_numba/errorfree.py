"""Sums and products of float64 together with what their rounding loses, which is a float64 too.

Each operation is a NumPy call of its own, which nothing contracts: the bits are the same on every processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_bits", "two_sum"]

Vector = NDArray[np.float64]


def two_sum(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """Return the float64 nearest to a + b, and what it lacks (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def first_bits(x: Vector) -> Vector:
    """Return x rounded to 26 bits, so that the product of two such numbers is exact (Veltkamp)."""
    upper = x * (2.0**27 + 1)
    return upper - (upper - x)
