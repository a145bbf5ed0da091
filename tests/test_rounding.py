"""Rounding to 16 bits where it is hardest: results exactly between two neighbours, and NaNs with every bit set."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits
from numpy.typing import NDArray

import rope_numba as rn

ROTATE = {
    ("interleaved", "float16"): rn.rotate_interleaved_f16,
    ("interleaved", "bfloat16"): rn.rotate_interleaved_bf16,
    ("half", "float16"): rn.rotate_half_split_f16,
    ("half", "bfloat16"): rn.rotate_half_split_bf16,
}
# Bits of float32 below the last kept one.
DROPPED = {"float16": 13, "bfloat16": 16}


def expected_of(layout: str, x: NDArray[np.float32], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> NDArray:
    """Return the rotation in float32, by the paper's formula."""
    low, high = (x[..., 0::2], x[..., 1::2]) if layout == "interleaved" else np.split(x, 2, axis=-1)
    c, s = cos[:, None], sin[:, None]
    new = (low * c - high * s, low * s + high * c)
    return np.stack(new, axis=-1).reshape(x.shape) if layout == "interleaved" else np.concatenate(new, axis=-1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pairs", [1, 7, 8, 16, 64, 131])
def test_ties_go_to_the_even_neighbour(layout: str, dtype: str, pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    x = (rng.integers(-255, 256, (64, 5, 2 * pairs)) * 2.0 ** rng.integers(-9, 3)).astype(DTYPES[dtype])
    # Few bits each, so that products have just one bit too many about as often as not.
    cos = rng.choice([1.0, 1.5, 1.25, 1.00390625, 1.0009765625, 1.01171875], (64, pairs)).astype(np.float32)
    sin = rng.choice([0.0, 0.5, 0.0078125], (64, pairs)).astype(np.float32)
    wide = expected_of(layout, x.astype(np.float32), cos, sin)
    half_a_unit = 1 << DROPPED[dtype] - 1
    ties = (wide.view(np.uint32) & (2 * half_a_unit - 1)) == half_a_unit
    assert ties.mean() > 0.01
    rotated = x.copy()
    ROTATE[layout, dtype](rotated.view(np.uint16), cos, sin)
    assert_same_bits(rotated, wide.astype(DTYPES[dtype]))


@pytest.mark.parametrize(("layout", "dtype"), ROTATE)
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC0FFFF])
def test_a_nan_in_the_tables_stays_a_nan(layout: str, dtype: str, bits: int) -> None:
    x = np.ones((1, 2, 96), DTYPES[dtype])
    cos, sin = np.full((1, 48), 0.6, np.float32), np.full((1, 48), 0.8, np.float32)
    cos.view(np.uint32)[0, ::5] = bits
    ROTATE[layout, dtype](x.view(np.uint16), cos, sin)
    is_nan = np.isnan(x.astype(np.float32))
    is_nan = is_nan.reshape(2, 48, 2) if layout == "interleaved" else is_nan.reshape(2, 2, 48).transpose(0, 2, 1)
    assert is_nan[:, ::5].all()
    assert is_nan.sum() == is_nan[:, ::5].size
