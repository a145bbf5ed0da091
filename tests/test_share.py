"""Work shared out among threads: every share is done once, and a share that fails is told of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import needs_jit
from numba import int64, njit

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
        return work((int64(counts.ctypes.data), counts.size, failing), shared)  # type: ignore[no-any-return]

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
    monkeypatch.setattr(movers, "_compiled", lambda *_: share.FAILED)
    rope = rn.Rope(8, layout="half", layout_out="interleaved")
    with pytest.raises(MemoryError, match="no memory for what a rotation holds on its way"):
        rope(np.ones((1, 2, 8), np.float32), offset=1)
