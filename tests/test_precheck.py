"""The compiled check of arrays of `out=`: what it lets through is right, and plain arrays are let through."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from decisions import Choices
from helpers import ORDERS, needs_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rope_numba.kernels.flags import HEAD_MAJOR, NO_KEY, PER_BATCH, SINGLE_POSITION, Status, pack_flags

pytestmark = needs_jit

HEAD_DIM = 4
ROOM = 1024  # bytes from one array to the next
BYTES = 48  # that a call is made of
HAZARDS = ("over", "near", "longer", "shorter", "axes", "strides", "wide", "odd", "rows", "positions", "bare")
TOGETHER = (["over", "strides"], ["near", "strides"], ["over", "wide"])


def looks(choices: Choices) -> tuple[list[NDArray[Any]], tuple[int, ...], int, bool]:
    """Return q, q_out, k, k_out, the rows' shape, flags, and whether anything is the matter with them."""
    order, alone = choices.pick(ORDERS), choices.rarely(2)
    batch, tokens = choices.pick([None, 1, 2]), choices.pick([1, 2])
    hazards = [choices.pick(HAZARDS) for _ in range(choices.below(3))]
    if choices.rarely(3):
        hazards = list(choices.pick(TOGETHER))
    heads = [choices.pick([1, 2])] * 2 + [choices.pick([1, 2])] * 2
    size, outs = choices.pick([2, 4]), [choices.pick([2, 4]) for _ in range(2)]
    sizes = size, outs[0], size, outs[1]
    here = [False, choices.rarely(3), False, choices.rarely(3)]
    one = choices.below(4)  # where two of them often meet
    struck = {hazard: one if choices.rarely(2) else choices.below(4) for hazard in hazards}
    memory = np.zeros(6 * ROOM, np.uint8)
    base = -memory.ctypes.data % 64
    arrays: list[NDArray[Any]] = []
    for which in range(4):
        if here[which]:
            arrays.append(arrays[-1])
            continue
        shape = [tokens, heads[which], HEAD_DIM] if order == "thd" else [heads[which], tokens, HEAD_DIM]
        shape = shape if batch is None else [batch, *shape]
        start = base + ROOM * (1 + which)
        strike = {hazard for hazard, at in struck.items() if at == which}
        if strike & {"over", "near"} and arrays:
            start = base + ROOM * (1 + choices.below(which))
            start += choices.pick([8, -8, 16, 32, -32, 64, -64]) if "near" in strike else 0
        if strike & {"longer", "shorter"}:
            shape[choices.below(len(shape))] += 1 if "longer" in strike else -1
        if "axes" in strike:
            shape = shape[1:]
        strides = [sizes[which] * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        if "wide" in strike:  # as an array of elements of 4 bytes has them
            strides[:-1] = [4 * stride // sizes[which] for stride in strides[:-1]]
        if "strides" in strike:
            strides[choices.below(len(shape))] *= choices.pick([-1, 0, 2, -2])
        arrays.append(np.ndarray(shape, f"f{sizes[which]}", memory.data, start + ("odd" in strike), strides))
    per_row, one_row = "bare" in struck if batch is None else choices.rarely(2), choices.rarely(4)
    rows = [batch or 1 if per_row else 1, 1 if one_row else tokens, 2, HEAD_DIM // 2]
    flags = (HEAD_MAJOR if order == "htd" else 0) | (PER_BATCH if per_row else 0) | (SINGLE_POSITION if one_row else 0)
    rows[0] += "rows" in struck
    rows[1] += "positions" in struck
    if alone:
        arrays[2:] = arrays[:2]
        flags |= NO_KEY
    return arrays, tuple(rows), flags, not hazards


def addresses(x: NDArray[Any]) -> list[int]:
    """Return the addresses of all bytes of an array's elements."""
    starts = x.ctypes.data + sum(np.indices(x.shape)[axis] * x.strides[axis] for axis in range(x.ndim))
    return [int(start) + byte for start in np.ravel(starts) for byte in range(x.itemsize)]


def counts(x: NDArray[Any], flags: int) -> tuple[int, int]:
    """Return how many rows of a batch and how many tokens an array has."""
    tokens = 1 if x.ndim == 2 else x.shape[-2 if flags & HEAD_MAJOR else -3]
    return x.shape[0] if x.ndim == 4 else 1, tokens


def is_right(arrays: list[NDArray[Any]], rows: tuple[int, ...], flags: int) -> bool:
    """Tell from every byte whether q and k can be rotated to where they go."""
    q, q_out, k, k_out = arrays
    for x in arrays:
        if x.ndim != q.ndim or x.shape[-1] != HEAD_DIM or x.strides[-1] != x.itemsize or x.size == 0:
            return False
        batch, tokens = counts(x, flags)
        if tokens != rows[1] and not (flags & SINGLE_POSITION and rows[1] == 1):
            return False
        if (batch, tokens) != counts(q, flags):
            return False
        if rows[0] != (batch if flags & PER_BATCH else 1) or (flags & PER_BATCH and x.ndim < 4):
            return False
        if any(address % x.itemsize for address in addresses(x)[:: x.itemsize]):
            return False
    if q.shape != q_out.shape or k.shape != k_out.shape:
        return False
    for x, out in ((q, q_out), (k, k_out)):
        same = x.dtype == out.dtype and addresses(x) == addresses(out)
        if len(set(addresses(out))) < len(addresses(out)) or not (same or set(addresses(x)).isdisjoint(addresses(out))):
            return False
    pairs = [] if flags & NO_KEY else [(q_out, k), (q_out, k_out), (q, k_out)]
    return all(set(addresses(a)).isdisjoint(addresses(b)) for a, b in pairs)


@settings(max_examples=3000)
@given(st.binary(min_size=BYTES, max_size=BYTES))
def test_what_is_let_through_is_right_and_what_is_plain_is_let_through(data: bytes) -> None:
    from rope_numba.kernels import launch

    arrays, shape, flags, plain = looks(Choices(data))
    check = launch.get_precheck()
    assert check is not None
    sizes = arrays[0].itemsize | arrays[1].itemsize << 8 | arrays[3].itemsize << 16
    try:
        done = check(*arrays, np.zeros(shape, np.float32), pack_flags(flags, HEAD_DIM, 0), sizes) == Status.ROTATED
    except TypeError:
        done = False
    assert not done or is_right(arrays, shape, flags)
    assert done or not plain


@pytest.mark.parametrize("which", range(4))
def test_only_what_is_written_has_to_be_writeable(which: int) -> None:
    from rope_numba.kernels import launch

    arrays = [np.zeros((1, 2, HEAD_DIM), np.float32) for _ in range(4)]
    arrays[which].flags.writeable = False
    check, rows = launch.get_precheck(), np.zeros((1, 1, 2, HEAD_DIM // 2), np.float32)
    assert check is not None
    asked = (*arrays, rows, pack_flags(0, HEAD_DIM, 0), 4 | 4 << 8 | 4 << 16)
    if which % 2:
        with pytest.raises(TypeError, match="writeable"):
            check(*asked)
    else:
        assert check(*asked) == Status.ROTATED


def test_the_oracle_knows_each_hazard() -> None:
    memory = np.zeros(4096, np.float32)
    good = [memory[1024 * i : 1024 * i + 8].reshape(1, 2, 4) for i in range(4)]
    rows = (1, 1, 2, 2)
    assert is_right(good, rows, 0)
    for a, b in itertools.permutations(range(4), 2):
        bad = good.copy()
        bad[a] = bad[b]
        assert is_right(bad, rows, 0) == ({a, b} in ({0, 1}, {2, 3}, {0, 2}))
    assert not is_right([good[0], good[1][:, :1], *good[2:]], rows, 0)
    assert not is_right(good, (1, 2, 2, 2), 0)
    assert not is_right(good, (2, 1, 2, 2), PER_BATCH)
