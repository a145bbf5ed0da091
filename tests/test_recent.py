"""Calls at the positions of the last call: the same answers as at any others."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from helpers import ORDERS, assert_same_bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st

import rope_numba as rn
from rope_numba import recent

BACKENDS = ("numba", "numpy")
HEAD_DIM = 8

shapes = st.sampled_from([(1,), (1, 1), (2,), (3,), (6,), (2, 3), (3, 2), (1, 6), (6, 1)])
kinds = st.sampled_from(["int64", "int32", "uint8", ">i4", "list", "reversed"])


@st.composite
def askings(draw: Any) -> tuple[tuple[int, ...], Any]:
    """Return a shape and positions of it in one of the forms that users give; few numbers, so that they come again."""
    shape, kind = draw(shapes), draw(kinds)
    numbers = np.array(draw(st.lists(st.integers(0, 2), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    if kind == "list":
        return shape, numbers.reshape(shape).tolist()
    if kind == "reversed":
        return shape, numbers.reshape(shape)[..., ::-1]
    return shape, numbers.reshape(shape).astype(kind)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(asked=st.lists(askings(), min_size=2, max_size=6), wide=st.booleans())
def test_a_call_at_any_positions_after_any_others_is_that_of_a_rotation_made_for_them(
    backend: str, order: str, asked: list[tuple[tuple[int, ...], Any]], wide: bool
) -> None:
    rope = rn.Rope(HEAD_DIM, order=order, backend=backend)
    for shape, positions in asked:
        tokens = (shape[-1], 2) if order == "thd" else (2, shape[-1])
        q = normal((*shape[:-1], *tokens, HEAD_DIM), "float64" if wide else "float32")
        expected = rn.Rope(HEAD_DIM, order=order, backend=backend).at(positions=positions)(q.copy())
        assert_same_bits(rope(q, positions=positions), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_that_have_been_written_to_are_new_positions(backend: str) -> None:
    rope, positions = rn.Rope(HEAD_DIM, backend=backend), np.array([7, 3, 5])
    for _ in range(3):
        q = normal((3, 2, HEAD_DIM))
        assert_same_bits(rope(q.copy(), positions=positions), rope.at(positions=positions)(q.copy()))
        positions += 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_inverse_undoes_the_last_call_and_does_not_answer_for_the_next(backend: str) -> None:
    rope, positions = rn.Rope(HEAD_DIM, backend=backend), np.array([7, 3, 5])
    q = normal((3, 2, HEAD_DIM))
    turned = rope(q.copy(), positions=positions)
    np.testing.assert_allclose(rope.inverse(turned.copy(), positions=positions), q, atol=1e-6)
    assert_same_bits(rope(q.copy(), positions=positions), turned)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 2, HEAD_DIM), (3, 2, HEAD_DIM + 2), (3, HEAD_DIM)])
def test_an_array_that_does_not_fit_positions_is_refused_as_at_the_first_call(
    backend: str, shape: tuple[int, ...]
) -> None:
    positions, q = np.array([7, 3, 5]), np.ones(shape, np.float32)
    with pytest.raises(ValueError, match="expected") as first:
        rn.Rope(HEAD_DIM, backend=backend)(q, positions=positions)
    rope = rn.Rope(HEAD_DIM, backend=backend)
    rope(normal((3, 2, HEAD_DIM)), positions=positions)
    with pytest.raises(ValueError, match="expected") as again:
        rope(q, positions=positions)
    assert str(again.value) == str(first.value)
    assert (q == 1).all()


def test_positions_that_were_refused_are_refused_again() -> None:
    rope, q = rn.Rope(HEAD_DIM, max_position=10), normal((3, 2, HEAD_DIM))
    rope(q, positions=np.array([7, 3, 5]))
    for _ in range(2):
        with pytest.raises(ValueError, match="positions leads to position 10"):
            rope(q, positions=np.array([7, 3, 10]))


def test_a_bool_equal_to_the_last_positions_is_refused() -> None:
    rope, q = rn.Rope(HEAD_DIM), normal((2, 2, HEAD_DIM))
    for form in ([1, 0], np.array([1, 0], np.uint8)):
        rope(q, positions=form)
        with pytest.raises(TypeError, match="holds a bool"):
            rope(q, positions=[True, 0])
        with pytest.raises(TypeError, match="positions has dtype bool"):
            rope(q, positions=np.array([True, False]))


def test_a_rope_that_was_called_is_freed_without_the_garbage_collector() -> None:
    def call() -> None:
        rope = rn.Rope(HEAD_DIM, theta=123.0)
        for dtype in ("float32", "float64"):
            rope(normal((3, 2, HEAD_DIM), dtype), positions=np.array([7, 3, 5]))
            rope(normal((1, 2, HEAD_DIM), dtype), offset=4)

    call()  # what is compiled for the first time leaves cycles behind
    gc.collect()
    gc.disable()
    try:
        call()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("positions", [[7, 3, 5], [4, 5, 6], [4]], ids=["any", "run", "one"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_kept_has_rows_of_its_own_so_that_a_dropped_table_is_freed(positions: list[int], dtype: str) -> None:
    rope = rn.Rope(HEAD_DIM)
    rope(normal((len(positions), 2, HEAD_DIM), dtype), positions=np.array(positions))
    (kept,) = (one[1] for one in (rope._recent.single, rope._recent.several) if one is not None)
    rotation = kept.__self__  # type: ignore[attr-defined]
    reserves = [table.memory[0] for table in rope._engines[0].tables.values()]
    assert reserves
    for rows in (rotation._rows32, rotation._rows64):
        assert rows is None or not any(np.shares_memory(rows, reserve) for reserve in reserves)


def test_no_more_than_some_hundred_positions_are_kept() -> None:
    kept = recent.Recent()
    for head_dim, rotary_dim, most in ((128, 128, 512), (256, 128, 512), (512, 512, 128)):
        rope = rn.Rope(head_dim, rotary_dim=rotary_dim)
        assert kept.at_several(rope, np.arange(most)) is not None
        assert kept.at_several(rope, np.arange(most + 1)) is None


def test_threads_at_positions_of_their_own_get_their_own() -> None:
    rope = rn.Rope(HEAD_DIM)
    q = normal((3, 2, HEAD_DIM))
    wrong: list[int] = []

    def turn(first: int) -> None:
        mine = [np.array([first, first + 5, first + 2]), np.array([first])]
        expected = [rn.Rope(HEAD_DIM).at(positions=p)(q[: len(p)].copy()) for p in mine]
        for _ in range(300):
            for p, right in zip(mine, expected, strict=True):
                if (rope(q[: len(p)].copy(), positions=p) != right).any():
                    wrong.append(first)

    threads = [threading.Thread(target=turn, args=(first,)) for first in (3, 40, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
