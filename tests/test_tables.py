"""Rows of cosines and sines: exact, shared, bounded and independent of how they were asked for."""

from __future__ import annotations

import threading
from typing import Any

import mpmath
import numpy as np
import pytest
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba import tables
from rope_numba.engine import FLOAT32, FLOAT64


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test tables of its own."""
    monkeypatch.setattr(tables, "_tables", {})


def nearest(angles: NDArray[np.float64], factor: float, dtype: Any) -> NDArray[Any]:
    """Return factor times cosines and sines, of shape (2, angles), rounded once to a type, by mpmath."""
    true = []
    with mpmath.workprec(200):
        for angle in angles.tolist():
            true.append([mpmath.mpf(factor) * part for part in mpmath.cos_sin(mpmath.mpf(angle))])
    with mpmath.workprec(np.finfo(dtype).nmant + 1):
        return np.array([[float(+part) for part in both] for both in true], dtype).T


@pytest.mark.parametrize("factor", [1.0, 1.1902380714238083])
@pytest.mark.parametrize("position", [0, 1, 4095, 131_072, 10_000_000, -777, 2**53])
def test_rows_hold_the_nearest_numbers_of_their_type(position: int, factor: float) -> None:
    frequencies = rn.Frequencies(rn.frequencies.default(128, 500_000.0).inv_freq, factor)
    angles = position * frequencies.inv_freq  # one float64 product each
    for dtype in (FLOAT32, FLOAT64):
        row = tables.table_for(frequencies, dtype).span(position, position + 1)[0, 0]
        assert_same_bits(row, nearest(angles, factor, dtype))


@settings(max_examples=60)
@given(
    start=st.integers(-300, 300) | st.integers(0, 2**30) | st.integers(131_000, 131_200),
    length=st.integers(1, 200),
)
def test_a_rows_bits_depend_on_its_position_alone(start: int, length: int) -> None:
    frequencies = rn.frequencies.default(128)
    table = tables.table_for(frequencies, FLOAT32)
    span = table.span(start, start + length)
    positions = np.arange(start, start + length)
    shuffled = np.random.default_rng(0).permutation(positions)
    assert_same_bits(span[0], tables.compute(positions, frequencies, FLOAT32))
    assert_same_bits(table.gather(shuffled)[0], span[0, shuffled - start])


def test_consecutive_positions_are_a_view_of_one_table() -> None:
    first = rn.Rope(128).at(offset=100, tokens=50)
    second = rn.Rope(128, layout="half", order="htd").at(positions=np.arange(120, 130))
    assert np.shares_memory(first._rows32, second._rows32)


def test_other_frequencies_magnitudes_and_types_have_tables_of_their_own() -> None:
    base = rn.frequencies.default(64)
    made = {
        id(tables.table_for(frequencies, dtype))
        for frequencies in (base, rn.frequencies.default(64, 500_000.0), rn.Frequencies(base.inv_freq, 1.5))
        for dtype in (FLOAT32, FLOAT64)
    }
    assert len(made) == 6
    assert tables.table_for(rn.frequencies.default(64), FLOAT32) is tables.table_for(base, FLOAT32)


def test_decoding_past_the_reserve_computes_a_block_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    calls: list[int] = []
    compute = tables.compute

    def counted(positions: NDArray[np.int64], frequencies: rn.Frequencies, dtype: Any) -> Any:
        calls.append(len(positions))
        return compute(positions, frequencies, dtype)

    monkeypatch.setattr(tables, "compute", counted)
    first = 10_000_000 // tables.BLOCK * tables.BLOCK
    for position in range(first, first + 3 * tables.BLOCK):
        table.span(position, position + 1)
    assert calls == [tables.BLOCK] * 3


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that notes of how many positions rows are computed from now on, call by call."""
    calls: list[int] = []
    compute = tables.compute

    def compute_and_count(positions: NDArray[np.int64], *others: Any) -> Any:
        calls.append(len(positions))
        return compute(positions, *others)

    monkeypatch.setattr(tables, "compute", compute_and_count)
    return calls


def test_a_step_of_many_sequences_fills_few_blocks_and_later_steps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    compute, calls = tables.compute, counted(monkeypatch)
    positions = np.arange(64)[:, None] * 1000
    computed = []
    for step in range(10):
        calls.clear()
        rows = table.gather(positions + step)
        computed.append(sum(calls))
        assert_same_bits(rows[:, 0], compute(positions[:, 0] + step, table.frequencies, FLOAT32))
    assert computed[0] == tables.AT_ONCE * tables.BLOCK + 64
    assert max(computed) == computed[0]
    assert computed[-1] == 0
    calls.clear()
    table.gather(np.random.default_rng(0).permutation(np.arange(70_000, 74_000)))
    assert set(calls) == {tables.BLOCK}  # tokens enough to fill all their blocks


def test_a_prompt_past_the_reserve_is_computed_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    rope = rn.Rope(128, backend="numpy")
    compute, calls = tables.compute, counted(monkeypatch)
    for first in (10_000_001, -10_000_700):
        calls.clear()
        rows = [rope.at(offset=first, tokens=600)._rows32 for _ in range(3)]
        assert calls == [640]  # whole blocks
        assert_same_bits(rows[0][0], compute(np.arange(first, first + 600), rope.frequencies, FLOAT32))
        assert np.shares_memory(rows[0], rows[2]) == (first > 0)
    assert sum(table.bytes for table in tables._tables.values()) == 640 * 128 * 4


def test_a_dropped_tables_memory_is_given_back_in_pieces_once_nobody_holds_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaving: list[Any] = []
    monkeypatch.setattr(tables, "_leaving", leaving)
    monkeypatch.setattr(tables, "TOTAL_BYTES", 8 << 20)
    first, second = (rn.Rope(128, theta=theta, backend="numpy") for theta in (10.0, 20.0))
    held = first.at(offset=0, tokens=10_000)
    rows = held._rows32.copy()
    second.at(offset=0, tokens=10_000)  # 5 MB of rows each: the first table is dropped
    if not leaving:
        pytest.skip("without madvise NumPy's own memory is used")
    (mapping,) = leaving
    size = len(mapping)
    assert size == 8 << 20
    second.at(offset=10_000, tokens=100)
    assert_same_bits(held._rows32, rows)
    assert len(mapping) == size
    del held
    second.at(offset=10_200, tokens=64)
    assert len(mapping) < size
    second.at(offset=11_000, tokens=2_000)
    assert not leaving


def test_tables_stay_under_their_bounds_and_the_least_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = (3 << 20) + (64 << 10)
    monkeypatch.setattr(tables, "TOTAL_BYTES", bound)
    ropes = [rn.Rope(128, theta=10_000.0 + n) for n in range(10)]
    held = ropes[0].at(offset=0, tokens=1000)
    rows = held._rows32.copy()
    for rope in ropes:
        rope.at(offset=0, tokens=2000)  # 1 MB of rows
        assert sum(table.bytes for table in tables._tables.values()) <= bound
    thetas = {round(float(table.frequencies.inv_freq[1] ** -64.0)) for table in tables._tables.values()}
    assert thetas == {10_007, 10_008, 10_009}
    assert_same_bits(held._rows32, rows)  # a dropped table's rows stay with whoever holds them
    assert_same_bits(ropes[0].at(offset=0, tokens=1000)._rows32, rows)  # and are made anew, the same


def test_a_table_that_grows_moves_no_rows_and_computes_none_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    expected = tables.compute(np.arange(20_000), table.frequencies, FLOAT32)
    calls = counted(monkeypatch)
    held, reserved = [], []
    for first in range(0, 20_000, 100):
        held.append(table.span(first, first + 100))
        reserved.append(table.memory[0].nbytes)
    assert table.gather(np.array([19_999, 3])).shape == (1, 2, 2, 64)
    assert sorted(set(reserved)) == [1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20]
    again = table.span(0, 20_000)
    assert sum(calls) == len(calls) * tables.BLOCK == -(-20_000 // tables.BLOCK) * tables.BLOCK
    assert_same_bits(again[0], expected)
    for first, rows in zip(range(0, 20_000, 100), held, strict=True):
        assert_same_bits(rows[0], expected[first : first + 100])
    assert table.former is table.empty  # what has been moved is given up


def test_a_far_position_reserves_the_table_up_to_it_and_computes_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    calls = counted(monkeypatch)
    table.span(3, 4)
    table.span(100_000, 100_001)
    table.gather(np.array([3, 130_000]))
    assert calls == [tables.BLOCK] * 3
    assert table.bytes == tables.TABLE_BYTES


def limited(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let reservations of more than so many bytes in all tables fail; returns the sizes of those that did."""
    failed: list[int] = []
    reserve = tables._reserved

    def reserve_or_fail(size: int, dtype: Any) -> Any:
        if size + sum(table.bytes for table in tables._tables.values()) > most:
            failed.append(size)
            raise MemoryError
        return reserve(size, dtype)

    monkeypatch.setattr(tables, "_reserved", reserve_or_fail)
    return failed


def test_a_reservation_that_fails_drops_the_table_used_least_recently(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = limited(monkeypatch, 3 << 20)
    held = {theta: tables.table_for(rn.frequencies.default(128, theta), FLOAT32) for theta in (1e3, 2e3, 3e3)}
    for table in held.values():
        table.span(0, 10)
    tables.table_for(rn.frequencies.default(128, 1e3), FLOAT32).span(5, 6)
    assert not failed
    fourth = tables.table_for(rn.frequencies.default(128, 4e3), FLOAT32)
    fourth.span(0, 10)
    assert failed == [1 << 20]
    assert [table.dropped for table in held.values()] == [False, True, False]
    assert not fourth.dropped


def test_without_memory_to_grow_a_table_keeps_its_rows_and_computes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = limited(monkeypatch, 1 << 20)
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    compute = tables.compute
    kept = table.span(0, 2000)
    calls = counted(monkeypatch)
    for position in range(2100, 2400):
        rows = table.span(position, position + 1)
        assert_same_bits(rows[0], compute(np.array([position]), table.frequencies, FLOAT32))
    assert len(calls) <= 300 // tables.BLOCK + 2
    positions = np.array([5, 2047, 2048, 100_000])
    assert_same_bits(table.gather(positions)[0], compute(positions, table.frequencies, FLOAT32))
    assert np.shares_memory(table.span(0, 2000), kept)
    assert failed == [2 << 20]  # one attempt, as each would drop the other tables


def test_without_memory_for_any_table_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0)
    rope = rn.Rope(128, backend="numpy")
    for first in (0, 70, 100_000):
        rows = rope.at(offset=first, tokens=100)._rows32[0]
        assert_same_bits(rows, tables.compute(np.arange(first, first + 100), rope.frequencies, FLOAT32))


def test_reserved_memory_of_all_tables_stays_under_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TOTAL_BYTES", 8 << 20)
    for n in range(20):
        rope = rn.Rope(128, theta=10_000.0 + n, backend="numpy")
        for first in (0, 3_000, 7_000):  # 1, 2 and 4 MiB
            rope.at(offset=first, tokens=1)
            assert sum(table.bytes for table in tables._tables.values()) <= 8 << 20


def test_rows_that_find_no_memory_are_computed_once_other_tables_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    other = tables.table_for(rn.frequencies.default(64), FLOAT32)
    other.span(0, 10)
    table = tables.table_for(rn.frequencies.default(128), FLOAT32)
    compute = tables.compute

    def compute_or_fail(*arguments: Any) -> Any:
        if not other.dropped:
            raise MemoryError
        return compute(*arguments)

    monkeypatch.setattr(tables, "compute", compute_or_fail)
    assert_same_bits(table.span(-5, 0)[0], compute(np.arange(-5, 0), table.frequencies, FLOAT32))
    other.dropped = False
    with pytest.raises(MemoryError):  # nothing is left to drop
        table.span(-900, -700)


def test_a_rope_per_request_does_not_grow_the_cache_without_end() -> None:
    for n in range(100):
        rn.Rope(64, theta=10_000.0 + n).at(offset=5, tokens=1)
    assert len(tables._tables) <= tables.MOST_TABLES


def test_threads_that_fill_a_table_together_see_whole_rows() -> None:
    frequencies = rn.frequencies.default(128, 77_777.0)
    expected = tables.compute(np.arange(20_000), frequencies, FLOAT32)
    table = tables.table_for(frequencies, FLOAT32)
    wrong: list[int] = []
    barrier = threading.Barrier(8)

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        barrier.wait()
        for start in rng.integers(0, 19_900, 60).tolist():
            if not np.array_equal(table.span(start, start + 100)[0], expected[start : start + 100]):
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tables_of_a_rope_are_read_only_and_right() -> None:
    cos, sin = rn.Rope(8, theta=100.0).tables(3)
    assert cos.shape == sin.shape == (3, 4)
    assert cos.dtype == np.float32
    assert not cos.flags.writeable
    assert not sin.flags.writeable
    assert_same_bits(np.array([cos[2], sin[2]]), nearest(2 * 100.0 ** (-np.arange(4) / 4), 1.0, FLOAT32))
    assert rn.Rope(8).tables(0)[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("frequency", "factor"), [(1e-200, 1e-150), (1e-310, 1.0), (2.0**900, 1.0), (1.0, 1e300), (1e-40, 1e-300)]
)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_extreme_frequencies_and_magnitudes_make_no_warning(frequency: float, factor: float, dtype: Any) -> None:
    with np.errstate(all="raise"):
        rows = tables.table_for(rn.Frequencies([frequency], factor), dtype).span(2**53 - 3, 2**53)
    assert not np.isnan(rows).any()


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e80, 1e100])
def test_rows_below_float32s_normal_range_are_rounded_exactly(scale: float) -> None:
    # Angles and magnitudes whose product is a float32 subnormal, or a tie between two float32.
    for frequency, factor in ((1e-42, 1.0), (3e-41 / scale, scale), ((1 + 2.0**-24) / scale, scale)):
        row = tables.table_for(rn.Frequencies([frequency], factor), FLOAT32).span(1, 2)[0, 0]
        with mpmath.workprec(900):
            value = mpmath.mpf(factor) * mpmath.sin(mpmath.mpf(frequency))
            unit = mpmath.mpf(2) ** (max(mpmath.floor(mpmath.log(value, 2)), -126) - 23)
            assert float(row[1, 0]) == float(mpmath.nint(value / unit) * unit)


@pytest.mark.parametrize("pairs", [1, 64, 256, 257, 4096, (1 << 19) - 1])
def test_a_position_of_a_wide_head_costs_no_more_rows_than_its_block(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tables.table_for(rn.Frequencies(np.full(pairs, 0.25)), FLOAT32)
    calls = counted(monkeypatch)
    for position in (0, 1, 10**9):
        table.span(position, position + 1)
        assert sum(calls) * pairs <= max(tables.CHUNK_ANGLES, pairs)
        calls.clear()
    table.gather(np.array([5, 10**6, 70]))
    assert sum(calls) * pairs <= 3 * max(tables.CHUNK_ANGLES, pairs)


def test_a_wide_head_is_computed_in_pieces_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    frequencies, positions = rn.frequencies.default(600), np.array([3, 70, -5])
    whole = tables.compute(positions, frequencies, FLOAT32)
    sizes: list[int] = []
    write = tables.write_cosines_and_sines

    def counted_write(angles: Any, *others: Any) -> None:
        sizes.append(angles.size)
        write(angles, *others)

    monkeypatch.setattr(tables, "write_cosines_and_sines", counted_write)
    monkeypatch.setattr(tables, "CHUNK_ANGLES", 128)
    assert_same_bits(tables.compute(positions, frequencies, FLOAT32), whole)
    assert max(sizes) <= 128


def test_rows_of_too_many_positions_are_refused_before_they_fill_the_memory() -> None:
    rope, text = rn.Rope(128, backend="numpy"), "expected at most 33554432 of 64 pairs"
    one = np.ones((1, 1, 128), np.float32)
    for call in (
        lambda: rope(np.empty((10**8, 0, 128), np.float32), offset=0),
        lambda: rope(np.broadcast_to(one, (10**8, 1, 128)), offset=3),
        lambda: rope.at(offset=0, tokens=10**8),
    ):
        with pytest.raises(MemoryError, match=f"positions are 100000000 at once; {text}"):
            call()
    wide = rn.Rope(1 << 19, frequencies=rn.Frequencies(np.full(1 << 18, 0.25)), backend="numpy")
    with pytest.raises(MemoryError, match="positions are 10000 at once; expected at most 8192 of 262144 pairs"):
        wide.at(positions=np.broadcast_to(np.int64(3), (100, 100)))
    endless = np.broadcast_to(np.int64(0), 2**40)
    for call, refused in (
        (lambda: rope.at(positions=endless), "positions has 1099511627776 elements; expected at most 2[*][*]28"),
        (lambda: rope.at(offset=endless, tokens=1), "offset has 1099511627776 elements; expected at most 2[*][*]28"),
        (lambda: rope.shift(one, endless), "delta has 1099511627776 elements; expected at most 2[*][*]28"),
        (lambda: rn.ragged_positions(endless), "cu_seqlens has 1099511627776 elements; expected at most 2[*][*]28"),
        (lambda: rn.Frequencies(np.broadcast_to(1.0, 2**40)), "inv_freq has 1099511627776 numbers; expected at most"),
        (lambda: rope.tables(10**12), "n is 1000000000000; expected at most 2[*][*]28 positions at once"),
        (
            lambda: rope.at(offset=0, tokens=10**12),
            "tokens is 1000000000000; expected at most 2[*][*]28 positions at once",
        ),
        (lambda: rope.at(offset=[0, 0], tokens=2**28), "tokens is 268435456 for 2 offsets; expected at most 2[*][*]28"),
        (
            lambda: rn.ragged_positions([0, 2**40]),
            "cu_seqlens ends with 1099511627776; expected at most 2[*][*]28 tokens",
        ),
    ):
        with pytest.raises((ValueError, MemoryError), match=refused):
            call()


@pytest.mark.parametrize("factor", [1.0, 1.3, 1e-42, 1e300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_negative_positions_are_those_that_their_angles_have(dtype: str, factor: float) -> None:
    inv_freq = [1.0, -0.37, 1e-5, 1e-300, -1e-300, 5e-324, 0.0, -0.0, 1e9]
    table = tables.Table(rn.Frequencies(inv_freq, factor), np.dtype(dtype))
    positions = np.array([-1, -2, -63, -64, -65, -700, -(2**20), -(2**53)])
    expected = tables.compute(positions, table.frequencies, np.dtype(dtype))
    assert_same_bits(table.gather(positions)[0], expected)
    for position, row in zip(positions.tolist(), expected, strict=True):
        assert_same_bits(table.span(position, position + 1)[0, 0], row)
    mixed = np.array([[5, -5, 0], [-700, 700, -1]])
    rows = tables.compute(mixed.reshape(-1), table.frequencies, np.dtype(dtype))
    assert_same_bits(table.gather(mixed), rows.reshape(2, 3, 2, -1))
    run = np.arange(-70, 0)
    assert_same_bits(table.span(-70, 0)[0], tables.compute(run, table.frequencies, np.dtype(dtype)))
    assert_same_bits(table.span(-3, 2)[0], tables.compute(np.arange(-3, 2), table.frequencies, np.dtype(dtype)))


def test_a_shift_down_takes_the_rows_of_the_shift_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rope = rn.Rope(128, backend="numpy")
    keys = np.ones((3, 2, 128), np.float32)
    rope.shift(keys, 700)
    calls = counted(monkeypatch)
    rope.shift(keys, -700)
    rope.shift(keys, np.array([-700, 700, -699]))
    assert calls == []
