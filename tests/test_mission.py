"""The nouns of the mission, a fact each; benchmarks/bench_mission.py times the same."""

from __future__ import annotations

import numba
import numpy as np
import oracle
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits, normal

import rope_numba as rn
from rope_numba import tables


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_the_callers_memory_is_what_changes(dtype: str) -> None:
    memory = normal((3, 10, 16), dtype)
    before, q, k = memory.copy(), memory[:, :6], memory[:, 6:8]
    rotated_q, rotated_k = rn.Rope(16)(q, k, positions=[5, 6, 7])
    assert rotated_q is q
    assert rotated_k is k
    assert (memory[:, :8] != before[:, :8]).any(axis=(1, 2)).all()
    assert_same_bits(memory[:, 8:], before[:, 8:])


def test_adjacent_pairs_are_what_turns_by_default() -> None:
    # One channel holds a number; after the rotation its partner does, and no other.
    for channel in range(8):
        q = np.zeros((1, 8))
        q[0, channel] = 1.0
        rn.Rope(8)(q, offset=3)
        assert set(np.flatnonzero(q)) == {channel, channel ^ 1}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parallel_work_has_the_bits_of_serial_work(layout: str) -> None:
    q = normal((600, 8, 128))
    on_all, on_one = q.copy(), q.copy()
    rope, threads = rn.Rope(128, layout=layout), numba.get_num_threads()
    rope(on_all, offset=0)
    numba.set_num_threads(1)
    try:
        rope(on_one, offset=0)
    finally:
        numba.set_num_threads(threads)
    assert_same_bits(on_all, on_one)


def test_the_cached_table_is_shared_by_head_width_and_theta() -> None:
    def table_of(rope: rn.Rope) -> tables.Table:
        rope.tables(10)
        return rope._engines[0].tables["f", 0]

    first, second = rn.Rope(128, theta=31_337.0), rn.Rope(128, theta=31_337.0, layout="half", order="htd")
    held = table_of(first)
    assert held is table_of(second)
    assert held is tables.table_for(second.frequencies, np.dtype(np.float32))
    assert held is not table_of(rn.Rope(64, theta=31_337.0))
    assert held is not table_of(rn.Rope(128, theta=31_338.0))
    assert not np.shares_memory(first.tables(10)[0], second.tables(10)[0])  # what is handed out is the caller's


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numpy_fallback_has_the_kernels_bits(dtype: str, layout: str) -> None:
    q, k = normal((5, 4, 96), dtype), normal((5, 2, 96), dtype, seed=1)
    expected = q.copy(), k.copy()
    rn.Rope(96, layout=layout)(q, k, offset=4095)
    rn.Rope(96, layout=layout, backend="numpy")(*expected, offset=4095)
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equivalence_with_the_papers_rotation(layout: str) -> None:
    q = normal((4, 3, 32), "float64")
    expected = oracle.rotate(q, [0, 1, 4095, -7], oracle.inv_freq(32, 10_000.0), layout=layout)
    rn.Rope(32, layout=layout)(q, positions=[0, 1, 4095, -7])
    np.testing.assert_allclose(q, expected, rtol=0, atol=1e-11)
