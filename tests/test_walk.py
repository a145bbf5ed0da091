"""The walk over tokens and heads: every head is rotated once, in whichever chunks and order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, normal
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba.kernels import flags

pytestmark = needs_jit

CHUNKS = (1, 2, 7, 64, 100)


def parallel_entry(rope: rn.Rope, layout_out: str | None = None) -> Any:
    """Return the parallel entry for float32, in place or into another array."""
    from rope_numba.kernels import launch

    if not launch.can_run_parallel():
        pytest.skip("no second thread here")
    if layout_out is None:
        return launch.in_place_for("f32", rope.layout).get_parallel()
    return launch.out_of_place_for("f32", "f32", rope.layout, layout_out).get_parallel()


@pytest.mark.parametrize("n_chunks", CHUNKS)
@pytest.mark.parametrize("order", ["thd", "htd"])
@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_each_head_is_rotated_once_in_any_number_of_chunks(n_chunks: int, order: str, tokens: int) -> None:
    rope = rn.Rope(64, order=order, layout="half")
    q, k = (normal((tokens, heads, 64) if order == "thd" else (heads, tokens, 64)) for heads in (7, 2))
    expected = q.copy(), k.copy()
    rn.Rope(64, order=order, layout="half", backend="numpy")(*expected, offset=3)
    step = rope.at(offset=3, tokens=tokens)
    assert parallel_entry(rope)(q, k, step._rows32, step._flags & ~flags.SERIAL_ONLY, 2, n_chunks) == 0
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


@pytest.mark.parametrize("n_chunks", CHUNKS)
@pytest.mark.parametrize("in_place", [True, False])
def test_each_head_is_moved_once_in_any_number_of_chunks(n_chunks: int, in_place: bool) -> None:
    rope, x = rn.Rope(72, rotary_dim=64, layout="half", layout_out="interleaved"), normal((20, 7, 72))
    expected = x.copy()
    rn.Rope(72, rotary_dim=64, layout="half", layout_out="interleaved", backend="numpy")(expected, offset=3)
    step, out = rope.at(offset=3, tokens=20), x if in_place else np.zeros_like(x)
    scratch = np.empty((n_chunks, 64), np.uint64)
    entry = parallel_entry(rope, "interleaved")
    entry(x, out, step._rows32, step._flags, scratch, 2, n_chunks)
    assert_same_bits(out, expected)


def test_without_memory_for_what_is_taken_out_of_the_way_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba.kernels import launch

    def full(*_: Any) -> NDArray[Any]:
        raise MemoryError

    rope, x = rn.Rope(8, layout="half", layout_out="interleaved"), normal((1, 2, 8))
    rope(x.copy(), offset=1)  # compiled
    before = x.copy()
    monkeypatch.setattr(launch.np, "empty", full)
    with pytest.raises(MemoryError):
        rope(x, offset=1)
    assert_same_bits(x, before)


@pytest.mark.parametrize(("heads", "small"), [(255, True), (256, False)])
@pytest.mark.parametrize("lead", [(), (2,)], ids=["tokens", "batch"])
def test_work_for_more_than_one_thread_is_left_alone_by_an_entry_called_for_small_work_and_done_by_the_call(
    lead: tuple[int, ...], heads: int, small: bool
) -> None:
    from rope_numba.kernels import launch, walk

    tokens, heads = (4, 2 * heads) if lead else (8, 2 * heads)
    q, k = normal((*lead, tokens, heads - 8, 64)), normal((*lead, tokens, 8, 64), seed=1)
    assert (q.size + k.size < 2 * walk.ELEMENTS_PER_THREAD) == small
    expected = q.copy(), k.copy()
    rn.Rope(64, backend="numpy")(*expected, offset=3)
    rope = rn.Rope(64)
    step, before = rope.at(offset=3, tokens=tokens), q.copy()
    assert step._flags & flags.SERIAL_ONLY
    answer = launch.in_place_for("f32", rope.layout).get()(q, k, step._rows32, step._flags)
    assert answer == (flags.Status.ROTATED if small else flags.Status.NEEDS_CHECK)
    assert_same_bits(q, expected[0] if small else before)
    if not small:
        step(q, k)
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


ENOUGH = 1025  # tokens of 64 heads x 128 in float32: just above 32 MiB


def empty(*shape: int) -> NDArray[Any]:
    return np.empty((*shape, 128), np.float32)


def sliced(tokens: int) -> tuple[NDArray[Any], NDArray[Any]]:
    packed = empty(tokens, 70)
    return packed[:, :48], packed[:, 48:64]


@pytest.mark.parametrize(
    ("arrays", "order", "in_turn", "prefetching"),
    [
        (lambda: (empty(ENOUGH, 48), empty(ENOUGH, 16)), "thd", True, False),
        (lambda: (empty(ENOUGH - 1, 48), empty(ENOUGH - 1, 16)), "thd", False, False),
        (lambda: (empty(63, 1000), empty(63, 100)), "thd", False, False),
        (lambda: (empty(64, 1000), empty(64, 100)), "thd", True, False),
        (lambda: (empty(ENOUGH, 64), None), "thd", False, False),
        (lambda: sliced(ENOUGH), "thd", False, False),
        (lambda: (empty(48, ENOUGH), empty(16, ENOUGH)), "htd", False, True),
        (lambda: (empty(64, ENOUGH), None), "htd", False, True),
        (lambda: (empty(48, ENOUGH - 1), empty(16, ENOUGH - 1)), "htd", False, False),
        (lambda: (empty(1, 64 * ENOUGH), None), "htd", False, False),
        (lambda: (empty(64, ENOUGH)[:, ::-1], None), "htd", False, False),
    ],
    ids=[
        "large", "32 MiB", "63 tokens", "64 tokens", "q alone", "slices of one array", "heads outside tokens",
        "q alone, heads outside tokens", "32 MiB, heads outside tokens", "one head", "backwards",
    ],
)  # fmt: skip
def test_only_large_work_out_of_memorys_order_is_walked_in_turn_or_prefetched(
    arrays: Any, order: str, in_turn: bool, prefetching: bool
) -> None:
    from rope_numba.kernels import geometry, walk

    def axes(x: NDArray[Any]) -> geometry.Axes:
        tokens, heads = (0, 1) if order == "thd" else (1, 0)
        return geometry.Axes(x.ctypes.data, 1, x.shape[tokens], x.shape[heads], 0, x.strides[tokens], x.strides[heads])

    q, k = arrays()
    n_k, elements = 0 if k is None else axes(k).n_heads, q.size + (0 if k is None else k.size)
    found = walk.order_of.py_func(axes(q), axes(q if k is None else k), n_k, elements, 4)
    assert (found.in_turn, found.prefetching) == (in_turn, prefetching)
