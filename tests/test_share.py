"""Work shared out among threads: every share is done once, and a share that fails is told of."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, normal
from numba import int64, njit
from numpy.typing import NDArray

import rope_numba as rn

pytestmark = needs_jit


@pytest.fixture(scope="module")
def entry() -> Any:
    """Return an entry whose work counts up one number of an array for each chunk, and fails in one chunk if told so."""
    from numba import carray, types
    from numba.extending import intrinsic

    from rope_numba.kernels.share import planned

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(types.int64)(types.int64), codegen

    def walk(numbers: Any, chunk: int, chunks: int) -> None:
        counts = carray(pointer(numbers[0]), (numbers[1],))  # type: ignore[call-arg]
        if chunk == numbers[2]:
            raise MemoryError
        counts[chunk] += 1
        counts[numbers[1] - 1] = chunks

    work: Any = planned(walk)

    @njit
    def counting(counts: Any, failing: int, shared: int) -> int:
        return work((int64(counts.ctypes.data), counts.size, failing), counts.size, shared)  # type: ignore[no-any-return]

    return counting


def test_without_threads_it_is_done_as_one_chunk_at_once(entry: Any) -> None:
    counts = np.zeros(5, np.int64)
    assert entry(counts, -1, 0) == 0
    assert counts.tolist() == [1, 0, 0, 0, 1]
    assert entry(counts, 0, 0) == 2
    assert counts.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("chunks", [1, 2, 7, 64])
def test_a_launch_does_each_chunk_once_and_tells_of_one_that_failed(entry: Any, chunks: int) -> None:
    from rope_numba.kernels import launch

    if not launch.may_launch():
        pytest.skip("no second thread here")
    counts = np.zeros(chunks + 1, np.int64)
    plan = entry(counts, -1, 32)
    assert counts.tolist() == [0] * (chunks + 1)
    assert launch.plan_launcher()(plan, chunks) == 0
    assert counts.tolist() == [1] * chunks + [chunks]
    assert launch.plan_launcher()(entry(counts, chunks - 1, 32), chunks) == 2
    assert counts.tolist() == [2] * (chunks - 1) + [1, chunks]
    assert launch.plan_launcher()(entry(counts, -1, 32), chunks) == 0  # the failure is of its plan, not of the next


def test_a_share_without_memory_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba.kernels import launch, share

    movers = launch.movers_for("f32", "f32", "half", "interleaved")
    monkeypatch.setattr(movers, "_compiled", lambda *_: share.OUT_OF_MEMORY)
    rope = rn.Rope(8, layout="half", layout_out="interleaved")
    with pytest.raises(MemoryError, match="no memory for what a rotation holds on its way"):
        rope(np.ones((1, 2, 8), np.float32), offset=1)


def plan_of(rope: rn.Rope, q: NDArray[Any], k: NDArray[Any] | None) -> int:
    """Return the plan for rotating float32 arrays of three axes."""
    from rope_numba.kernels import flags, launch

    step = rope.at(offset=3, tokens=q.shape[0 if rope.order == "thd" else 1])
    entry = launch.kernels_for("f32", rope.layout).compiled(3)
    alone = flags.NO_KEY if k is None else 0
    large = step._flags & ~flags.SERIAL_ONLY
    return entry(q, q[..., :0] if k is None else k, step._rows32, large | alone | flags.DEFER)


@pytest.mark.parametrize(("heads", "small"), [(255, True), (256, False)])
@pytest.mark.parametrize("lead", [(), (2,)], ids=["tokens", "batch"])
def test_work_for_more_than_one_thread_is_left_alone_by_an_entry_called_for_small_work_and_done_by_the_call(
    lead: tuple[int, ...], heads: int, small: bool
) -> None:
    from rope_numba.kernels import flags, launch, share

    tokens, heads = (4, 2 * heads) if lead else (8, 2 * heads)
    q, k = normal((*lead, tokens, heads - 8, 64)), normal((*lead, tokens, 8, 64), seed=1)
    assert (q.size + k.size < 2 * share.ELEMENTS_PER_THREAD) == small
    expected = q.copy(), k.copy()
    rn.Rope(64, backend="numpy")(*expected, offset=3)
    rope = rn.Rope(64)
    step, before = rope.at(offset=3, tokens=tokens), q.copy()
    assert step._flags & flags.SERIAL_ONLY
    answer = launch.kernels_for("f32", rope.layout).compiled(q.ndim)(q, k, step._rows32, step._flags)
    assert answer == (share.ROTATED if small else share.NEEDS_CHECK)
    assert_same_bits(q, expected[0] if small else before)
    if not small:
        step(q, k)
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


def test_more_chunks_than_tokens_share_out_heads_of_work_that_is_more_than_caches_hold() -> None:
    from rope_numba.kernels import launch

    if not launch.may_launch():
        pytest.skip("no second thread here")
    q, k = normal((64, 1040, 128)), normal((64, 8, 128), seed=1)
    expected = q.copy(), k.copy()
    rn.Rope(128, backend="numpy")(*expected, offset=3)
    assert launch.plan_launcher()(plan_of(rn.Rope(128), q, k), 100) == 0
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


ENOUGH = 1025  # tokens of 64 heads x 128 in float32: just above 32 MiB


def empty(*shape: int) -> NDArray[Any]:
    return np.empty((*shape, 128), np.float32)


def sliced(tokens: int) -> tuple[NDArray[Any], NDArray[Any]]:
    packed = empty(tokens, 70)
    return packed[:, :48], packed[:, 48:64]


@pytest.mark.parametrize(
    ("arrays", "order", "in_turn", "fetch"),
    [
        (lambda: (empty(ENOUGH, 48), empty(ENOUGH, 16)), "thd", 1, 0),
        (lambda: (empty(ENOUGH - 1, 48), empty(ENOUGH - 1, 16)), "thd", 0, 0),
        (lambda: (empty(63, 1000), empty(63, 100)), "thd", 0, 0),
        (lambda: (empty(64, 1000), empty(64, 100)), "thd", 1, 0),
        (lambda: (empty(ENOUGH, 64), None), "thd", 0, 0),
        (lambda: sliced(ENOUGH), "thd", 0, 0),
        (lambda: (empty(48, ENOUGH), empty(16, ENOUGH)), "htd", 0, 1),
        (lambda: (empty(64, ENOUGH), None), "htd", 0, 1),
        (lambda: (empty(48, ENOUGH - 1), empty(16, ENOUGH - 1)), "htd", 0, 0),
        (lambda: (empty(1, 64 * ENOUGH), None), "htd", 0, 0),
        (lambda: (empty(64, ENOUGH)[:, ::-1], None), "htd", 0, 0),
    ],
    ids=[
        "large", "32 MiB", "63 tokens", "64 tokens", "q alone", "slices of one array", "heads outside tokens",
        "q alone, heads outside tokens", "32 MiB, heads outside tokens", "one head", "backwards",
    ],
)  # fmt: skip
def test_only_large_work_out_of_memorys_order_is_walked_in_turn_or_fetched_ahead(
    arrays: Any, order: str, in_turn: int, fetch: int
) -> None:
    from rope_numba.kernels import share

    q, k = arrays()
    plan = plan_of(rn.Rope(128, order=order), q, k)
    assert plan > share.OUT_OF_MEMORY
    numbers = (ctypes.c_int64 * 21).from_address(plan + 8 * share._NUMBERS)
    assert (numbers[6], numbers[9]) == (in_turn, fetch)
