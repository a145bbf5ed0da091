"""Sums and products of float64 together with what their rounding loses, which is a float64 too.

Each operation is a NumPy call of its own, which nothing contracts: the bits are the same on every processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_bits", "two_product", "two_sum"]

Vector = NDArray[np.float64]


def two_sum(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """Return the float64 nearest to a + b, and what it lacks (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: float, b: Vector) -> tuple[Vector, Vector]:
    """Return the float64 nearest to a * b, and what it lacks (Dekker)."""
    product = a * b
    a_upper, b_upper = first_bits(np.array(a)), first_bits(b)
    a_lower, b_lower = a - a_upper, b - b_upper
    return product, ((a_upper * b_upper - product) + a_upper * b_lower + a_lower * b_upper) + a_lower * b_lower


def first_bits(x: Vector) -> Vector:
    """Return x rounded to 26 bits, so that the product of two such numbers is exact (Veltkamp)."""
    upper = x * (2.0**27 + 1)
    return upper - (upper - x)
