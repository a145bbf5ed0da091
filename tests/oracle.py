"""The rotation written from the paper (Su et al., arXiv 2104.09864, equation 34), apart from the code under test.

Scalar Python in float64, one pair at a time: slow, and plain to read.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray


def inv_freq(rotary_dim: int, theta: float) -> list[float]:
    """Return the angular frequency of each pair: the float64 nearest to the exact power."""
    with mpmath.workdps(60):
        return [float(mpmath.mpf(theta) ** (-mpmath.mpf(2 * i) / rotary_dim)) for i in range(rotary_dim // 2)]


def channels_of_pair(pair: int, rotary_dim: int, rotary_offset: int, layout: str) -> tuple[int, int]:
    """Return the two channels of a pair."""
    if layout == "interleaved":
        return rotary_offset + 2 * pair, rotary_offset + 2 * pair + 1
    return rotary_offset + pair, rotary_offset + pair + rotary_dim // 2


def rotate(
    x: NDArray[Any],
    positions: list[int],
    frequencies: list[float],
    *,
    layout: str,
    rotary_offset: int = 0,
    attention_factor: float = 1.0,
    direction: int = 1,
) -> NDArray[np.float64]:
    """Return x of shape (tokens, heads, head_dim) rotated, in float64."""
    result = x.astype(np.float64)
    rotary_dim = 2 * len(frequencies)
    for token, position in enumerate(positions):
        for pair, frequency in enumerate(frequencies):
            low, high = channels_of_pair(pair, rotary_dim, rotary_offset, layout)
            angle = direction * position * frequency
            cos, sin = attention_factor * math.cos(angle), attention_factor * math.sin(angle)
            for head in range(x.shape[1]):
                a, b = float(x[token, head, low]), float(x[token, head, high])
                result[token, head, low] = a * cos - b * sin
                result[token, head, high] = a * sin + b * cos
    return result
