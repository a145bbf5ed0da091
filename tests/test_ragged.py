"""`ragged_positions`: the positions of sequences that lie one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from hypothesis import given
from hypothesis import strategies as st

import rope_numba as rn

LENGTHS = st.lists(st.integers(0, 30), max_size=12)


def boundaries(lengths: list[int]) -> list[int]:
    return [sum(lengths[:n]) for n in range(len(lengths) + 1)]


@given(data=st.data(), lengths=LENGTHS)
def test_each_sequence_counts_from_its_own_offset(data: st.DataObject, lengths: list[int]) -> None:
    one = data.draw(st.integers(-(10**6), 10**6))
    each = data.draw(st.lists(st.integers(-(2**53), 2**53), min_size=len(lengths), max_size=len(lengths)))
    bounds = boundaries(lengths)
    for offset, starts in ((one, [one] * len(lengths)), (each, each)):
        expected = [start + n for start, length in zip(starts, lengths, strict=True) for n in range(length)]
        got = rn.ragged_positions(bounds, offset)
        assert got.dtype == np.int64
        assert got.shape == (sum(lengths),)
        assert got.tolist() == expected
        given_arrays = rn.ragged_positions(np.array(bounds, np.int32), offset=np.array(offset, np.int64))
        assert given_arrays.tolist() == expected
    assert rn.ragged_positions(bounds).tolist() == [n for length in lengths for n in range(length)]


@given(lengths=LENGTHS, offset=st.integers(-100, 100))
def test_the_one_line_of_numpy_gives_the_same(lengths: list[int], offset: int) -> None:
    line = "np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1] - offset, np.diff(cu_seqlens))"
    assert line in (rn.ragged_positions.__doc__ or "")
    cu_seqlens = np.array(boundaries(lengths))
    for given_offset in (offset, np.arange(len(lengths)) * 7 - offset):
        names = {"np": np, "cu_seqlens": cu_seqlens, "offset": given_offset}
        assert eval(line, names).tolist() == rn.ragged_positions(cu_seqlens, given_offset).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_ragged_batch_is_rotated_as_its_sequences_are_one_by_one(dtype: str) -> None:
    bounds, offsets = [0, 5, 5, 6, 20], [0, 9, 300, 41]
    q, k = normal((20, 4, 64), dtype), normal((20, 2, 64), dtype, seed=1)
    expected = q.copy(), k.copy()
    rope = rn.Rope(64, layout="half", backend="numpy")
    for first, end, offset in zip(bounds, bounds[1:], offsets, strict=False):
        for x in expected:
            rope(x[first:end], offset=offset)
    rope(q, k, positions=rn.ragged_positions(bounds, offsets))
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


def test_what_was_given_is_not_changed_and_not_kept() -> None:
    bounds, offset = np.array([0, 2, 3]), np.array([5, 7])
    got = rn.ragged_positions(bounds, offset)
    got[:] = 0
    assert bounds.tolist() == [0, 2, 3]
    assert offset.tolist() == [5, 7]
    assert got.flags.writeable


BOUNDS = "integers of shape (sequences + 1,)"
OFFSETS = "an int, or integers of shape (sequences,)"


@pytest.mark.parametrize(
    ("bounds", "offset", "error", "text"),
    [
        ([], 0, ValueError, "cu_seqlens has shape (0,); expected (sequences + 1,)"),
        (3, 0, ValueError, "cu_seqlens has shape (); expected (sequences + 1,)"),
        ([[0, 3]], 0, ValueError, "cu_seqlens has shape (1, 2); expected (sequences + 1,)"),
        ([[0, 3], [1]], 0, ValueError, f"cu_seqlens has rows of unequal length; expected {BOUNDS}"),
        ([0.0, 3.0], 0, TypeError, f"cu_seqlens has dtype float64; expected {BOUNDS}"),
        ([False, True], 0, TypeError, f"cu_seqlens has dtype bool; expected {BOUNDS}"),
        (None, 0, TypeError, f"cu_seqlens has dtype object; expected {BOUNDS}"),
        ("0 3", 0, TypeError, f"cu_seqlens has dtype <U3; expected {BOUNDS}"),
        (np.empty(0), 0, TypeError, f"cu_seqlens has dtype float64; expected {BOUNDS}"),
        ([1, 3], 0, ValueError, "cu_seqlens begins with 1; expected 0, where the first sequence begins"),
        ([-1, 3], 0, ValueError, "cu_seqlens begins with -1; expected 0, where the first sequence begins"),
        (
            [0, 4, 3, 9],
            0,
            ValueError,
            "cu_seqlens goes from 4 down to 3; expected each boundary at or after the one before",
        ),
        (
            [0, 2**54],
            0,
            ValueError,
            f"cu_seqlens holds {2**54}; expected at most 2**53 from 0, exact in float64",
        ),
        ([0, 3, 5], [1], ValueError, "offset has shape (1,); expected an int, or (2,), one for a sequence"),
        ([0, 3, 5], [1, 2, 3], ValueError, "offset has shape (3,); expected an int, or (2,), one for a sequence"),
        ([0, 3, 5], [[1, 2]], ValueError, "offset has shape (1, 2); expected an int, or (2,), one for a sequence"),
        ([0, 3, 5], 1.0, TypeError, f"offset has dtype float64; expected {OFFSETS}"),
        ([0, 3, 5], True, TypeError, f"offset has dtype bool; expected {OFFSETS}"),
        ([0, 3, 5], None, TypeError, f"offset has dtype object; expected {OFFSETS}"),
        ([0, 3, 5], [[1], [1, 2]], ValueError, f"offset has rows of unequal length; expected {OFFSETS}"),
        (
            [0, 3, 5],
            [0, -(2**60)],
            ValueError,
            f"offset holds -{2**60}; expected at most 2**53 from 0, exact in float64",
        ),
        (
            [0, 3, 5],
            np.array([0, 2**63], np.uint64),
            ValueError,
            f"offset holds {2**63}; expected at most 2**53 from 0, exact in float64",
        ),
    ],
)
def test_wrong_boundaries_and_offsets_are_refused(bounds: Any, offset: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as refused:
        rn.ragged_positions(bounds, offset)
    assert str(refused.value) == text
