"""`out=` with dtypes that came before: no second look at what is plainly right, and the same answers without it."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from decisions import Choices
from helpers import ORDERS, assert_same_bits, bits, needs_jit, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba import arrays
from rope_numba.rotation import Rotation

pytestmark = needs_jit

DTYPES = [np.dtype(dtype) for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)] + [
    arrays.BFLOAT16_BITS
]
HEAD_DIM = 8
MEMORY = np.random.default_rng(0).integers(0x30, 0x40, 1 << 13, np.uint8)  # numbers near 1 in each of the dtypes


def primed(order: str) -> rn.Rope:
    """Return a `Rope` that has rotated every dtype in place, and into every other that it may become."""
    rope = rn.Rope(HEAD_DIM, layout="half", order=order)
    for source, target in itertools.product(DTYPES, DTYPES):
        pair = arrays.storage_of("q", np.empty(0, source)), arrays.storage_of("out", np.empty(0, target))
        if pair[0] != pair[1] and pair not in arrays.CONVERSIONS:
            continue
        q, out = np.zeros((1, 1, HEAD_DIM), source), np.zeros((1, 1, HEAD_DIM), target)
        rope(q, offset=0)
        rope(q, offset=0, out=out)
    return rope


ROPES: dict[str, rn.Rope] = {}


BYTES = 96  # that a call is made of
RARELY = 40
STARTS = (0, 1024, 2048, 3072)  # far enough apart for most arrays
LAYINGS = ("whole",) * 30 + ("wider", "swapped", "backward", "zero", "close", "odd")


def some_call(choices: Choices) -> tuple[str, Any, list[Any], list[Any]]:
    """Return a call: order, positions, where q and k lie, and where they go; in most ways one that can be taken."""
    order, tokens = choices.pick(ORDERS), choices.pick([1, 2])
    lead = choices.pick([(), (), (1,), (2,)])
    rows = choices.pick([0, 0, *lead, 1])
    dtype = choices.pick(DTYPES)
    left = list(STARTS)
    starts = [left.pop(choices.below(len(left))) for _ in STARTS]
    taken = []

    def place(kind: np.dtype[Any], shape: list[int]) -> tuple[Any, ...]:
        """Return dtype, shape, first byte, strides, and whether it can be written to."""
        kind, shape = choices.pick(DTYPES) if choices.rarely(RARELY) else kind, shape.copy()
        if choices.rarely(RARELY):
            shape[choices.below(len(shape))] += choices.pick([1, -1])
        shape = shape[1:] if choices.rarely(RARELY) else shape
        strides = [kind.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        laying = choices.pick(LAYINGS)
        axis = choices.below(len(shape))
        if laying == "wider":
            strides[: axis + 1] = [2 * stride for stride in strides[: axis + 1]]
        elif laying == "swapped" and len(shape) > 2:
            strides[0], strides[1] = strides[1], shape[1] * strides[1]
        elif laying != "whole":
            step = strides[axis]
            strides[axis] = {"backward": -step, "zero": 0, "close": 4 * kind.itemsize}.get(laying, step + 1)
        start = starts.pop()
        if taken and choices.rarely(8):  # near or over one of the others
            start = choices.pick(taken) + choices.pick([0, 0, 8, -8, 16, 64, -64, -256, 256])
        taken.append(start)
        odd = choices.pick([1, 2]) if choices.rarely(RARELY) else 0
        return kind, shape, 1024 + start + odd, strides, not choices.rarely(RARELY)

    inputs, outs = [], []
    target = choices.pick([dtype, *DTYPES])
    for _ in range(choices.pick([1, 2])):
        heads = choices.pick([1, 2])
        own = place(dtype, [*lead, tokens, heads, HEAD_DIM] if order == "thd" else [*lead, heads, tokens, HEAD_DIM])
        if inputs and choices.rarely(10):
            own = inputs[0]
        inputs.append(own)
        outs.append(own if choices.rarely(RARELY) else None if choices.rarely(2) else place(target, own[1]))
    positions = np.arange(max(rows, 1) * tokens).reshape(-1, tokens) * 3 + 5
    return order, positions if rows else positions[0], inputs, outs


def laid(memory: NDArray[np.uint8], place: tuple[Any, ...]) -> NDArray[Any]:
    """Return the array at a place of some memory."""
    dtype, shape, start, strides, writeable = place
    x: NDArray[Any] = np.ndarray(shape, dtype, memory.data, start, strides)
    x.flags.writeable = writeable
    return x


def outcome(order: str, positions: Any, inputs: list[Any], outs: list[Any]) -> tuple[str, bytes]:
    """Return what a call says, and what it leaves in memory."""
    memory = MEMORY.copy()
    objects = {id(place): laid(memory, place) for place in (*inputs, *outs) if place is not None}  # one may come twice
    given_in = [objects[id(place)] for place in inputs]
    given_out = [None if place is None else objects[id(place)] for place in outs]
    if order not in ROPES:
        ROPES[order] = primed(order)
    step, tokens = ROPES[order].at(positions=positions), positions.shape[-1]
    lead = positions.shape[:-1]
    step(np.zeros((*lead, tokens, 1, HEAD_DIM) if order == "thd" else (*lead, 1, tokens, HEAD_DIM)))  # rows of float64
    try:
        step(*given_in, out=tuple(given_out) if len(inputs) > 1 else given_out[0])
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}", memory.tobytes()
    return "", memory.tobytes()


@given(st.binary(min_size=BYTES, max_size=BYTES))
@settings(max_examples=1500)
def test_a_call_that_is_not_checked_again_says_and_writes_what_one_does_that_is(data: bytes) -> None:
    call = some_call(Choices(data))
    quick = outcome(*call)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rotation, "_quickly_into", lambda *_: True)
        assert outcome(*call) == quick


def test_one_array_may_go_to_two_places() -> None:
    rope, q = rn.Rope(HEAD_DIM), normal((1, 2, HEAD_DIM))
    expected, before = rope(q.copy(), offset=5), q.copy()
    for _ in range(3):
        outs = np.zeros_like(q), np.zeros_like(q)
        rope(q, q, offset=5, out=outs)
        for out in outs:
            assert_same_bits(out, expected)
        assert_same_bits(q, before)


def test_the_two_dtypes_of_bfloat16_are_answered_alike_at_each_call() -> None:
    rope = rn.Rope(HEAD_DIM)
    said = []
    for _ in range(2):
        q = normal((1, 2, HEAD_DIM), "bfloat16")
        with pytest.raises(ValueError, match="out shares memory with q") as error:
            rope(q, offset=5, out=q.view(arrays.BFLOAT16_BITS))
        said.append(str(error.value))
        other = np.zeros(q.shape, arrays.BFLOAT16_BITS)
        rope(q, offset=5, out=other)
        assert (other.view(np.uint16) == rope(q.copy(), offset=5).view(np.uint16)).all()
    assert said[0] == said[1]


def test_all_that_a_call_needs_is_compiled_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba.kernels import launch

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for name in ("compile_precheck", "OutOfPlace"):
        rope, q, k = rn.Rope(HEAD_DIM), normal((1, 2, HEAD_DIM)), normal((1, 2, HEAD_DIM))
        before = q.copy()
        with monkeypatch.context() as patched:
            patched.setattr(launch, name, interrupted)
            for field in ("_compiled", "_serial"):
                patched.setattr(launch.out_of_place_for("f32", "f16", "interleaved", "interleaved"), field, None)
            patched.setattr(launch, "_precheck", None)
            with pytest.raises(KeyboardInterrupt):
                rope(q, k, offset=5, out=(None, np.zeros(k.shape, np.float16)))
        assert_same_bits(q, before)


@pytest.mark.parametrize("order", ORDERS)
def test_a_key_of_one_token_goes_into_its_place_of_a_cache_without_a_second_look(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = rn.Rope(64, layout="half", order=order)
    shapes = ((2, 1, 9, 64), (2, 1, 3, 64), (2, 50, 3, 64))
    q, k, cache = (normal(shape, seed=seed) for seed, shape in enumerate(shapes))
    cache = cache.astype(np.float16)
    if order == "htd":
        q, k, cache = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, cache))

    def slot(n: int) -> NDArray[Any]:
        return cache[:, n : n + 1] if order == "thd" else cache[:, :, n : n + 1]

    rope(q.copy(), k, offset=6, out=(None, slot(6)))
    expected_q, expected_k = rope(q.copy(), k.copy(), offset=7)
    before = cache.copy()
    monkeypatch.setattr(arrays, "accept_into", None)
    rope(q, k, offset=7, out=(None, slot(7)))
    assert_same_bits(q, expected_q)
    assert_same_bits(slot(7), expected_k.astype(np.float16))
    slot(7)[...] = before[:, 7:8] if order == "thd" else before[:, :, 7:8]
    assert (bits(cache) == bits(before)).all()
