"""The rotation against an oracle from the paper, and the kernels against NumPy bit for bit."""

from __future__ import annotations

import pickle
from typing import Any

import helpers
import numba
import numpy as np
import oracle
import pytest
from helpers import DTYPES, LAYOUTS, ORDERS, assert_same_bits, needs_jit, normal, record_launches
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rope_numba as rn


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", [[0, 1, 2], [4095, 7, 131_072], [-3, 10_000_000, -131_072]])
@pytest.mark.parametrize("widths", [(2, 2, 0), (64, 64, 0), (80, 20, 0), (18, 10, 5)])
def test_rotation_is_the_papers(layout: str, dtype: str, positions: list[int], widths: tuple[int, int, int]) -> None:
    head_dim, rotary_dim, rotary_offset = widths
    q = normal((3, 4, head_dim), dtype)
    frequencies = oracle.inv_freq(rotary_dim, 10_000.0)
    expected = oracle.rotate(q, positions, frequencies, layout=layout, rotary_offset=rotary_offset)
    rope = rn.Rope(head_dim, rotary_dim=rotary_dim, rotary_offset=rotary_offset, layout=layout)
    rope(q, positions=positions)
    # One rounding to the type; in float32 arithmetic, two products and a sum before it and a rounded table entry each.
    # Angles are products of float64: their last place is worth |position| * 2**-52.
    pair_norm = np.hypot(np.abs(expected).max(), 1.0)
    arithmetic = 4 * helpers.ROUNDING["float64" if dtype == "float64" else "float32"]
    angle = max(map(abs, positions)) * 2.0**-51
    tolerance = pair_norm * (helpers.ROUNDING[dtype] + arithmetic + angle)
    assert np.abs(q.astype(np.float64) - expected).max() <= tolerance


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_magnitude_multiplies_rotated_channels_only(layout: str, backend: str) -> None:
    q = normal((2, 3, 12))
    before = q.copy()
    frequencies = rn.Frequencies([1.0, 0.3, 0.01], attention_factor=1.25)
    rn.Rope(12, frequencies=frequencies, rotary_offset=4, layout=layout, backend=backend)(q, positions=[5, 900])
    expected = oracle.rotate(before, [5, 900], [1.0, 0.3, 0.01], layout=layout, rotary_offset=4, attention_factor=1.25)
    np.testing.assert_allclose(q, expected, atol=1e-6)
    assert_same_bits(q[..., :4], before[..., :4])
    assert_same_bits(q[..., 10:], before[..., 10:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_position_zero_changes_no_bit(layout: str, dtype: str) -> None:
    q = normal((4, 3, 128), dtype)
    before = q.copy()
    rn.Rope(128, layout=layout)(q, positions=[0, 0, 0, 0])
    assert_same_bits(q, before)


def test_the_arrays_given_are_the_arrays_returned() -> None:
    rope = rn.Rope(8)
    q, k = normal((2, 3, 8)), normal((2, 1, 8))
    assert rope(q, offset=0) is q
    q_back, k_back = rope(q, k, offset=0)
    assert q_back is q
    assert k_back is k


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_ranks_orders_and_batches_agree(rank: int, order: str, layout: str, dtype: str) -> None:
    # A batch of 2, 3 tokens, 5 heads; each token of each row, alone and 2-D, is the yardstick.
    q = normal((2, 3, 5, 16), dtype)
    positions = np.array([[4, 9, 1], [100, -7, 0]])
    expected = q.copy()
    single = rn.Rope(16, layout=layout)
    for b in range(2):
        for t in range(3):
            single(expected[b, t], positions=positions[b, t])
    rope = rn.Rope(16, layout=layout, order=order)
    if rank == 2:
        got = q.copy()
        for place in np.ndindex(2, 3):
            rope(got[place], positions=positions[place])
    elif rank == 3:
        got = q.copy()
        for b in range(2):
            rope(got[b] if order == "thd" else got[b].swapaxes(0, 1), positions=positions[b])
    else:
        got = q.copy()
        rope(got if order == "thd" else got.swapaxes(1, 2), positions=positions)
    assert_same_bits(got, expected)


def test_one_row_of_positions_serves_all_rows_of_a_batch() -> None:
    q = normal((3, 4, 2, 16))
    expected = q.copy()
    rope = rn.Rope(16)
    for row in expected:
        rope(row, positions=[7, 1, 1, 30])
    rope(q, positions=[7, 1, 1, 30])
    assert_same_bits(q, expected)


@pytest.mark.parametrize("heads", [(1, 1), (9, 3), (32, 1), (4, 0), (0, 4), (3, 5)])
def test_q_and_k_may_differ_in_heads(heads: tuple[int, int]) -> None:
    q, k = normal((3, heads[0], 64)), normal((3, heads[1], 64), seed=1)
    q_alone, k_alone = q.copy(), k.copy()
    rope = rn.Rope(64)
    rope(q_alone, offset=5)
    rope(k_alone, offset=5)
    rope(q, k, offset=5)
    assert_same_bits(q, q_alone)
    assert_same_bits(k, k_alone)


# ---- The kernels against NumPy, bit for bit -------------------------------------------------------------------------

AXES = st.sampled_from(["contiguous", "reversed", "every second", "packed", "swapped"])


def _memory(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return numbers of all sizes, with infinities, NaNs, zeros and subnormals among them."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-45, 38, shape)
    usual = rng.standard_normal(shape)
    values = np.where(rng.random(shape) < 0.8, usual, values)
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0])
    values = np.where(rng.random(shape) < 0.03, rng.choice(special, shape), values)
    with np.errstate(all="ignore"):
        return values.astype(DTYPES[dtype])


def _views(memory: NDArray[Any], heads: int, kv_heads: int, arrangement: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return q and k as (batch, tokens, heads, head_dim) views of memory with room for both twice."""
    if arrangement == "swapped":  # heads outside tokens in memory, whatever the order of axes
        batch, tokens, all_heads, head_dim = memory.shape
        memory = memory.reshape(batch, all_heads, tokens, head_dim).swapaxes(1, 2)
    if arrangement in ("packed", "swapped"):
        return memory[:, :, :heads], memory[:, :, heads : heads + kv_heads]
    q, k = memory[:, :, : 2 * heads], memory[:, :, 2 * heads :]
    if arrangement == "every second":
        return q[:, :, ::2], k[:, :, 1::2]
    q, k = q[:, :, :heads], k[:, :, :kv_heads]
    if arrangement == "reversed":
        return q[:, ::-1], k[:, :, ::-1]
    return q, k


@settings(max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_make_numpys_bits(dtype: str, layout: str, data: st.DataObject) -> None:
    draw = data.draw
    order, arrangement, rank = draw(st.sampled_from(ORDERS)), draw(AXES), draw(st.sampled_from([3, 4]))
    batch = draw(st.integers(1, 3)) if rank == 4 else 1
    tokens, heads, kv_heads = draw(st.integers(1, 40)), draw(st.integers(1, 6)), draw(st.integers(0, 3))
    pairs = draw(st.integers(1, 24) | st.sampled_from([32, 40, 48, 56, 64, 100, 128, 129, 200, 256, 320]))
    before, behind = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    head_dim = before + 2 * pairs + behind
    factor = draw(st.sampled_from([1.0, 1.0, 1.1902380714238083, 0.7]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frequencies = rn.Frequencies(rn.frequencies.default(2 * pairs, 10_000.0).inv_freq, factor)
    settings_ = {
        "head_dim": head_dim,
        "frequencies": frequencies,
        "rotary_offset": before,
        "layout": layout,
        "order": order,
    }
    where: dict[str, Any]
    if draw(st.booleans()):
        where = {"offset": draw(st.integers(-(2**40), 2**40) | st.integers(0, 5000))}
    else:
        shape = (batch, tokens) if rank == 4 and draw(st.booleans()) else (tokens,)
        where = {"positions": rng.integers(-(2**20), 2**20, shape)}
    # Start at every alignment that an element may have.
    shape = (batch, tokens, 2 * heads + 2 * kv_heads, head_dim)
    start = draw(st.integers(0, 15))
    flat = _memory(rng, (start + int(np.prod(shape)),), dtype)
    results = []
    for backend in ("numba", "numpy"):
        memory = flat.copy()
        q, k = _views(memory[start:].reshape(shape), heads, kv_heads, arrangement)
        if order == "htd":
            q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)
        if rank == 3:
            q, k = q[0], k[0]
        rope = rn.Rope(**settings_, backend=backend)
        method = rope.inverse if factor == 0.7 else rope
        method(q, k, **where)
        results.append(memory)
    assert_same_bits(*results)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", range(1, numba.config.NUMBA_NUM_THREADS + 1))
def test_large_work_has_the_same_bits_on_any_number_of_threads(
    threads: int, order: str, dtype: str, layout: str
) -> None:
    shape = (131, 40, 128) if order == "thd" else (40, 131, 128)
    q, k = normal(shape, dtype), normal(shape, dtype, seed=1)
    expected_q, expected_k = q.copy(), k.copy()
    rn.Rope(128, layout=layout, order=order, backend="numpy")(expected_q, expected_k, offset=77)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        rn.Rope(128, layout=layout, order=order)(q, k, offset=77)
    finally:
        numba.set_num_threads(before)
    assert_same_bits(q, expected_q)
    assert_same_bits(k, expected_k)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", range(1, numba.config.NUMBA_NUM_THREADS + 1))
def test_more_than_caches_hold_has_the_same_bits_as_by_pieces(threads: int, order: str, dtype: str) -> None:
    """Pieces are small enough to be walked in another way (test_walk.py), and that way is held to NumPy elsewhere."""
    tokens = (1 << 25) // (3 * 64 * 128 * DTYPES[dtype](0).itemsize) + 1
    axes = (lambda heads: (3, 1, heads, 128)) if order == "thd" else (lambda heads: (3, heads, 1, 128))
    axis = 1 if order == "thd" else 2
    q, k = (np.repeat(normal(axes(heads), dtype), tokens, axis) for heads in (48, 16))
    pieces = q.copy(), k.copy()
    rope = rn.Rope(128, layout="half", order=order)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        rope(q, k, offset=77)
    finally:
        numba.set_num_threads(before)
    for start in range(0, tokens, 100):
        part = (slice(None),) * axis + (slice(start, start + 100),)
        rope(pieces[0][part], pieces[1][part], offset=77 + start)
    assert_same_bits(q, pieces[0])
    assert_same_bits(k, pieces[1])


def test_few_tokens_with_very_many_heads_are_shared_out_by_heads() -> None:
    q = normal((2, 9000, 32))
    expected = q.copy()
    rn.Rope(32, backend="numpy")(expected, positions=[3, 8])
    rn.Rope(32)(q, positions=[3, 8])
    assert_same_bits(q, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_split_of_a_batch_gives_the_same_bits(dtype: str, layout: str) -> None:
    q = normal((300, 8, 128), dtype)
    whole, pieces, singles = q.copy(), q.copy(), q.copy()
    rope = rn.Rope(128, layout=layout)
    rope(whole, offset=1000)
    for start, stop in ((0, 1), (1, 100), (100, 300)):
        rope(pieces[start:stop], offset=1000 + start)
    for token in range(300):
        rope(singles[token], offset=1000 + token)
    assert_same_bits(pieces, whole)
    assert_same_bits(singles, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_numpy_setting_makes_a_warning_or_an_error(dtype: str, layout: str) -> None:
    q = np.full((3, 2, 8), np.inf).astype(DTYPES[dtype])
    with np.errstate(all="raise"):
        rn.Rope(8, layout=layout)(q, offset=3)
        rn.Rope(8, layout=layout, backend="numpy")(q, offset=3)
        rn.Rope(8, layout=layout).tables(9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_widened_rotated_and_rounded_once(dtype: str, layout: str) -> None:
    every_pattern = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype]).reshape(64, 8, 128)
    q = every_pattern.copy()
    wide = every_pattern.astype(np.float32)
    rope = rn.Rope(128, layout=layout)
    rope(q, offset=12)
    rope(wide, offset=12)
    with np.errstate(all="ignore"):
        assert_same_bits(q, wide.astype(DTYPES[dtype]))


@needs_jit
@pytest.mark.parametrize("shape", ["one position for all", "a position for each row"])
def test_a_large_batch_of_single_tokens_is_shared_out_among_threads_every_time(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rope_numba.kernels import launch

    launches = record_launches(monkeypatch)
    positions: Any = 5 if shape == "one position for all" else np.arange(512)[:, None]
    step = rn.Rope(128).at(positions=positions)
    for _ in range(3):
        q, k = normal((512, 1, 8, 128)), normal((512, 1, 2, 128))
        expected = q.copy()
        step(q, k)
        rn.Rope(128, backend="numpy")(expected, positions=positions)
        assert_same_bits(q, expected)
    assert len(launches) == (3 if launch.can_run_parallel() and numba.get_num_threads() > 1 else 0)


@needs_jit
def test_arrays_that_were_unpickled_do_not_take_the_quick_way_from_others() -> None:
    rope = rn.Rope(8)
    foreign = pickle.loads(pickle.dumps(np.ones((1, 2, 8), np.float16)))
    assert foreign.dtype is not np.dtype(np.float16)
    rope(foreign, foreign.copy(), offset=1)
    assert rope.at(offset=1, tokens=1)._entry16[0] is np.dtype(np.float16)


@needs_jit
def test_memory_with_tokens_outside_the_batch_is_rotated_without_a_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba import arrays

    memory = normal((5, 3, 10, 64))  # tokens, batch, heads, head_dim
    expected = memory.copy()

    def views(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return x.swapaxes(0, 1)[:, :, :8], x.swapaxes(0, 1)[:, :, 8:]

    rn.Rope(64, backend="numpy")(*views(expected), offset=3)
    step = rn.Rope(64).at(offset=3, tokens=5)
    step(*views(memory.copy()))  # the first call of a dtype takes the second look
    monkeypatch.setattr(arrays, "accept", None)
    step(*views(memory))
    assert_same_bits(memory, expected)


@needs_jit
@pytest.mark.parametrize("order", ["thd", "htd"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_another_rotation_compiled_is_called_first_from_the_second_call_on(
    monkeypatch: pytest.MonkeyPatch, dtype: str, order: str
) -> None:
    rope = rn.Rope(32, theta=4_321.0, order=order)
    early, other = rope.at(offset=3, tokens=1), rope.at(offset=4, tokens=1)
    q, k = normal((1, 1, 32), dtype), normal((1, 1, 32), dtype)
    other(q, k)
    looks: list[Any] = []
    quickly = rn.Rotation._quickly

    def noted(self: rn.Rotation, *arrays: Any) -> bool:
        looks.append(self)
        return quickly(self, *arrays)

    monkeypatch.setattr(rn.Rotation, "_quickly", noted)
    for _ in range(4):
        early(q, k)
    assert looks == [early]
