"""What every rotation must satisfy, whatever its numbers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, ROUNDING, assert_same_bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st

import rope_numba as rn

POSITIONS = st.integers(-(10**6), 10**6)
FACTORS = st.sampled_from([1.0, 1.1386294361119891, 0.5])


@settings(max_examples=60)
@given(p=POSITIONS, r=POSITIONS, distance=st.integers(-1000, 1000))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_depend_on_the_difference_of_positions_only(layout: str, p: int, r: int, distance: int) -> None:
    rope = rn.Rope(64, layout=layout)
    scores = []
    for place in (p, r):
        q, k = normal((1, 1, 64), "float64"), normal((1, 1, 64), "float64", seed=1)
        rope(q, offset=place)
        rope(k, offset=place + distance)
        scores.append(float((q * k).sum()))
    # Angles are off by |position| * 2**-52 at most, and a score is a sum of 64 products of size about 1.
    assert abs(scores[0] - scores[1]) < 64 * (10**6 + 1000) * 2.0**-51


@settings(max_examples=60)
@given(position=POSITIONS, factor=FACTORS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_pairs_are_kept_times_the_magnitude(dtype: str, layout: str, position: int, factor: float) -> None:
    q = normal((1, 3, 32), dtype)
    before = q.astype(np.float64)
    frequencies = rn.Frequencies(rn.frequencies.default(32).inv_freq, factor)
    rn.Rope(32, layout=layout, frequencies=frequencies)(q, offset=position)
    after = q.astype(np.float64)
    if layout == "interleaved":
        low, high = slice(0, None, 2), slice(1, None, 2)
    else:
        low, high = slice(0, 16), slice(16, None)
    norms = [np.hypot(x[..., low], x[..., high]) for x in (before, after)]
    # Each member is off by one rounding to the type and by the float32 arithmetic before it.
    relative = 2 * ROUNDING[dtype] + (8 * ROUNDING["float32"] if dtype != "float64" else 8 * ROUNDING["float64"])
    np.testing.assert_allclose(norms[1], factor * norms[0], rtol=relative)


@settings(max_examples=60)
@given(p=POSITIONS, r=POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rotating_twice_is_rotating_by_the_sum(layout: str, p: int, r: int) -> None:
    twice, once = normal((1, 2, 64), "float64"), normal((1, 2, 64), "float64")
    rope = rn.Rope(64, layout=layout)
    rope(twice, offset=p)
    rope(twice, offset=r)
    rope(once, offset=p + r)
    np.testing.assert_allclose(twice, once, atol=4 * 10**6 * 2.0**-51)


@settings(max_examples=60)
@given(position=st.integers(-(2**50), 2**50), factor=FACTORS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_inverse_undoes_a_rotation_magnitude_included(dtype: str, layout: str, position: int, factor: float) -> None:
    q, k = normal((2, 3, 40), dtype), normal((2, 1, 40), dtype, seed=1)
    before = q.astype(np.float64), k.astype(np.float64)
    frequencies = rn.Frequencies(rn.frequencies.default(32).inv_freq, factor)
    rope = rn.Rope(40, layout=layout, frequencies=frequencies, rotary_offset=6)
    rope(q, k, offset=position)
    rope.inverse(q, k, offset=position)
    # Two roundings to the type and two rotations in float32, of numbers of size up to 4 in a pair.
    tolerance = (
        4 * (2 * ROUNDING[dtype] + 16 * ROUNDING["float64" if dtype == "float64" else "float32"]) / min(factor, 1)
    )
    for x, original in zip((q, k), before, strict=True):
        np.testing.assert_allclose(x.astype(np.float64), original, atol=tolerance)


@settings(max_examples=40)
@given(position=POSITIONS)
def test_layouts_differ_by_a_permutation_of_channels(position: int) -> None:
    half = normal((1, 2, 64))
    interleaved = np.empty_like(half)
    interleaved[..., 0::2], interleaved[..., 1::2] = half[..., :32], half[..., 32:]
    rn.Rope(64, layout="half")(half, offset=position)
    rn.Rope(64, layout="interleaved")(interleaved, offset=position)
    assert_same_bits(interleaved[..., 0::2], half[..., :32])
    assert_same_bits(interleaved[..., 1::2], half[..., 32:])


@settings(max_examples=60)
@given(position=POSITIONS)
def test_negative_positions_turn_the_other_way(position: int) -> None:
    forward, backward = normal((1, 1, 2), "float64"), normal((1, 1, 2), "float64")
    backward[..., 1] *= -1.0  # mirrored
    rope = rn.Rope(2)
    rope(forward, offset=position)
    rope(backward, offset=-position)
    backward[..., 1] *= -1.0
    assert_same_bits(forward, backward)
