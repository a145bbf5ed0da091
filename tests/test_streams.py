"""Positions of a Rope of several streams: two axes mean one thing, or are refused with both ways out."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from numpy.typing import NDArray

import rope_numba as rn

HEAD_DIM, TOKENS = 16, 5
PLAIN = rn.frequencies.default(HEAD_DIM)
# Three streams, as of Qwen2-VL; two; and four.
MODELS = {
    3: rn.frequencies.mrope(PLAIN, sections=[2, 3, 3]),
    2: rn.Frequencies(PLAIN.inv_freq, streams=[0, 1] * 4),
    4: rn.Frequencies(PLAIN.inv_freq, streams=[0, 1, 2, 3] * 2),
}
# Every way in that takes positions beside an array: all of them mean the same by the same shape.
WAYS: dict[str, Callable[[rn.Rope, Any, Any], Any]] = {
    "call": lambda rope, x, places: rope(x, positions=places),
    "call with k": lambda rope, x, places: rope(x, x.copy(), positions=places)[0],
    "out": lambda rope, x, places: rope(x, positions=places, out=np.empty_like(x)),
    "inverse": lambda rope, x, places: rope.inverse(x, positions=places),
    "shift": lambda rope, x, places: rope.shift(x, places),
    "apply_rope": lambda rope, x, places: rn.apply_rope(
        x, positions=places, frequencies=rope.frequencies, order=rope.order, backend=rope.backend
    ),
    "copy": lambda rope, x, places: copy.deepcopy(rope)(x, positions=places),
    "pickle": lambda rope, x, places: pickle.loads(pickle.dumps(rope))(x, positions=places),
}
FORMS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "array": lambda places: places,
    "int32": lambda places: places.astype(np.int32),
    "list": lambda places: places.tolist(),
    "list of arrays": list,
    "not dense": lambda places: np.repeat(places, 2, axis=-1)[..., ::2],
}


def places_of(*shape: int) -> NDArray[np.int64]:
    return np.random.default_rng(len(shape)).integers(0, 1000, shape)


def rope_of(streams: int, order: str = "thd") -> rn.Rope:
    return rn.Rope(HEAD_DIM, frequencies=MODELS[streams], order=order, backend="numpy")


def array_of(batch: int | None, order: str = "thd", tokens: int = TOKENS) -> Any:
    axes = (tokens, 2) if order == "thd" else (2, tokens)
    return normal((*axes, HEAD_DIM) if batch is None else (batch, *axes, HEAD_DIM))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streams", MODELS)
def test_streams_by_tokens_is_taken_where_no_batch_of_that_size_is_there(streams: int, way: str, form: str) -> None:
    places = places_of(streams, TOKENS)
    for batch in (None, 1, 5, 7):
        for order in ("thd", "htd"):
            rope, x = rope_of(streams, order), array_of(batch, order)
            whole = np.stack([places] * (batch or 1), axis=1)  # (streams, batch, tokens)
            wanted = WAYS[way](rope, x.copy() if batch else x[None].copy(), whole)
            got = WAYS[way](rope, x.copy(), FORMS[form](places))
            assert_same_bits(got, wanted if batch else wanted[0])
            assert_same_bits(WAYS[way](rope, x.copy(), FORMS[form](places[:, None])), got)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streams", MODELS)
def test_two_axes_of_two_meanings_are_refused_and_both_ways_out_work(streams: int, way: str, form: str) -> None:
    rope, places = rope_of(streams), places_of(streams, TOKENS)
    x = array_of(streams)
    before = x.copy()
    name = "delta" if way == "shift" else "positions"
    with pytest.raises(ValueError, match="either") as refused:
        WAYS[way](rope, x, FORMS[form](places))
    assert str(refused.value) == (
        f"{name} has shape ({streams}, {TOKENS}), either (batch, tokens) or (streams, tokens); expected "
        f"{name}[:, None] for streams, or np.stack([{name}] * {streams}) for a batch"
    )
    assert_same_bits(x, before)
    of_streams = WAYS[way](rope, x.copy(), places[:, None])
    of_batch = WAYS[way](rope, x.copy(), np.stack([places] * streams))
    for row in range(streams):
        assert_same_bits(of_streams[row], WAYS[way](rope, x[row].copy(), places))
        assert_same_bits(of_batch[row], WAYS[way](rope, x[row].copy(), places[row]))


@pytest.mark.parametrize("streams", MODELS)
def test_before_arrays_are_known_two_axes_of_that_size_are_refused(streams: int) -> None:
    rope, places = rope_of(streams), places_of(streams, TOKENS)
    with pytest.raises(ValueError, match=r"expected positions\[:, None\] for streams, or np.stack") as refused:
        rope.at(positions=places)
    assert "either (batch, tokens) or (streams, tokens)" in str(refused.value)
    step = rope.at(positions=places[:, None])
    assert (step.batch, step.tokens) == (None, TOKENS)
    for batch in (None, 1, streams, 7):  # positions without a batch serve every row of any batch
        x = array_of(batch)
        for kept in (step, pickle.loads(pickle.dumps(step))):
            assert_same_bits(kept(x.copy()), rope(x.copy(), positions=places[:, None]))
    rows = places_of(streams + 1, TOKENS)  # which can only be a batch
    assert rope.at(positions=rows).batch == streams + 1
    assert rope.at(positions=np.stack([places] * streams)).batch == streams


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_streams_without_a_batch_serve_every_row_in_every_type(backend: str, dtype: str) -> None:
    rope = rn.Rope(HEAD_DIM, frequencies=MODELS[3], layout="half", backend=backend)
    places, x = places_of(3, TOKENS), normal((4, TOKENS, 2, HEAD_DIM), dtype)
    wanted = rope(x.copy(), positions=np.broadcast_to(places[:, None], (3, 4, TOKENS)))
    for given in (places, places[:, None]):
        for _ in range(2):  # the second call finds what is kept of the first
            assert_same_bits(rope(x.copy(), positions=given), wanted)


def test_what_is_kept_of_one_meaning_is_not_given_to_another() -> None:
    rope, places = rope_of(3), places_of(3, TOKENS)
    single = rope(array_of(None), positions=places)
    with pytest.raises(ValueError, match="either"):
        rope(array_of(3), positions=places)
    assert_same_bits(rope(array_of(None), positions=places), single)


def test_a_token_of_a_decode_step_has_a_position_in_each_stream() -> None:
    rope, places = rope_of(3), np.array([[7], [3], [5]])
    one = normal((2, HEAD_DIM))  # one token without an axis for it
    wanted = rope(one[None].copy(), positions=places)
    assert_same_bits(rope(one.copy(), positions=places), wanted[0])
    assert_same_bits(rope(one.copy(), positions=7), rope(one.copy(), positions=[7]))


def test_a_rope_of_one_stream_reads_two_axes_as_ever() -> None:
    rope, places, x = rn.Rope(HEAD_DIM, backend="numpy"), places_of(3, TOKENS), array_of(3)
    got = rope(x.copy(), positions=places)
    for row in range(3):
        assert_same_bits(got[row], rope(x[row].copy(), positions=places[row]))
    with pytest.raises(ValueError, match="q has no batch axis"):
        rope(x[0], positions=places)


WRONG = {
    "streams of another number": ((4, TOKENS), None, "expected (5,), or for 3 streams (3, 5) or (3, 1, 5)"),
    "rows without a batch": ((2, TOKENS), None, "expected (5,), or for 3 streams (3, 5) or (3, 1, 5)"),
    "one stream": ((1, TOKENS), None, "expected (5,), or for 3 streams (3, 5) or (3, 1, 5)"),
    "fewer tokens": ((3, 4), None, "expected (5,), or for 3 streams (3, 5) or (3, 1, 5)"),
    "one for each stream": ((3,), None, "expected (5,), or for 3 streams (3, 5) or (3, 1, 5)"),
    "rows of another batch": (
        (4, TOKENS),
        2,
        "expected (5,) or (2, 5), or for 3 streams (3, 5) or (3, 1, 5) or (3, 2, 5)",
    ),
    "streams of another batch": ((3, 4, TOKENS), 3, "expected (5,), or for 3 streams (3, 1, 5) or (3, 3, 5)"),
    "neither": ((3, 4), 3, "expected (5,), or for 3 streams (3, 1, 5) or (3, 3, 5)"),
    "four axes": ((3, 1, 1, TOKENS), 1, "expected (5,) or (1, 5), or for 3 streams (3, 5) or (3, 1, 5)"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", WRONG)
def test_positions_that_fit_no_way_are_refused_by_shapes_with_streams(wrong: str, way: str) -> None:
    shape, batch, expected = WRONG[wrong]
    name, x = "delta" if way == "shift" else "positions", array_of(batch)
    before = x.copy()
    with pytest.raises(ValueError, match="streams") as refused:
        WAYS[way](rope_of(3), x, np.zeros(shape, np.int64))
    assert str(refused.value) == f"{name} has shape {shape}; {expected}"
    assert_same_bits(x, before)


def test_offsets_that_fit_no_batch_point_to_positions_of_streams() -> None:
    text = "offset has shape (3,); expected an int, or positions of shape (3, 5) for 3 streams"
    for batch, expected in ((None, text), (2, text.replace("an int, or", "an int, or (2,), or"))):
        with pytest.raises(ValueError, match="streams") as refused:
            rope_of(3)(array_of(batch), offset=[7, 8, 9])
        assert str(refused.value) == expected
    x = array_of(3)  # a batch of as many rows: offsets are never those of streams
    assert_same_bits(rope_of(3)(x.copy(), offset=[7, 8, 9])[1], rope_of(3)(x[1].copy(), offset=8))


@pytest.mark.parametrize("call", [rn.Rope.__call__, rn.Rope.inverse], ids=["call", "inverse"])
def test_wrong_arrays_are_refused_as_arrays(call: Any) -> None:
    rope, places = rope_of(3), places_of(3, TOKENS)
    for wrong, text in (
        (normal((TOKENS, 2, 8)), "q has head_dim 8"),
        (normal((1, 1, TOKENS, 2, HEAD_DIM)), "q has 5 axes"),
        ([1.0], "q is a list"),
        (np.zeros((TOKENS, 2, HEAD_DIM), np.int32), "q.dtype is int32"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            call(rope, wrong, positions=places)


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("streams", MODELS)
def test_every_shape_that_an_error_names_is_taken(streams: int, batch: int | None) -> None:
    rope, x = rope_of(streams), array_of(batch)
    with pytest.raises(ValueError, match="expected") as refused:
        rope(x, positions=np.zeros((9, 9), np.int64))
    named = re.findall(r"\([0-9, ]+\)", str(refused.value).split("expected")[1])
    assert len(named) >= 3
    for shape in named:
        rope(x, positions=np.zeros(ast.literal_eval(shape), np.int64))


@pytest.mark.parametrize("out", [False, True])
def test_a_rotation_that_does_not_fit_names_shapes_with_streams(out: bool) -> None:
    def text(step: rn.Rotation, x: NDArray[Any]) -> str:
        with pytest.raises(ValueError, match="expected") as refused:
            step(x, out=np.empty_like(x) if out else None)
        return str(refused.value)

    rope = rope_of(3)
    hint = "; for 3 streams, those of every row have shape (3, 1, 5)"
    for shape in ((4, TOKENS), (3, 4, TOKENS)):
        step = rope.at(positions=np.zeros(shape, np.int64))
        expected = f"; expected a batch of 4, as the positions have{hint}"
        assert text(step, array_of(3)) == f"q has a batch of 3{expected}"
        assert text(step, array_of(None)) == f"q has no batch axis{expected}"
    one_each = "q has 1 token; expected 3, the number of positions; one for each row of the batch has shape (3, 3, 1)"
    assert text(rope.at(positions=[1, 2, 3]), array_of(3, tokens=1)) == one_each
    assert rope.at(positions=np.ones((3, 3, 1), np.int64))(array_of(3, tokens=1)).shape == (3, 1, 2, HEAD_DIM)
