"""What positions and offset mean, and which of them are refused.

The oracle is plain Python: powers, cosines and sines by mpmath, one rounding after each operation.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import inv_freq

import rope_numba as rn

Arrays = NDArray[Any]

HEAD_DIM, Q_HEADS, K_HEADS = 8, 3, 2
FARTHEST = 2**53
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def random(*shape: int, dtype: Any = np.float32) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def rotated(rope: Callable[..., Any], x: Arrays, **where: Any) -> Arrays:
    """Return a rotated copy."""
    mine = x.copy()
    assert rope(mine, **where) is mine
    return mine


def outcome(call: Callable[..., Any], *arrays: object) -> str:
    """Return what a call raises, as one text."""
    try:
        call(*arrays)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


# --- what a position means ---


def to_float32(value: float) -> float:
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number


def cos_and_sin(angle: float, bits: int) -> tuple[float, float]:
    """Return the cosine and sine of a float64 angle, rounded once to so many bits."""
    with mpmath.workprec(500):
        exact = mpmath.cos(mpmath.mpf(angle)), mpmath.sin(mpmath.mpf(angle))
    with mpmath.workprec(bits):
        return float(+exact[0]), float(+exact[1])


def by_hand(head: Sequence[float], position: int, theta: float, layout: str, single: bool) -> list[float]:
    """Rotate one head of one token."""
    narrow = to_float32 if single else float
    width = len(head)
    result, frequencies = list(head), inv_freq(width, theta)
    for pair in range(width // 2):
        low, high = (2 * pair, 2 * pair + 1) if layout == "interleaved" else (pair, pair + width // 2)
        cos, sin = cos_and_sin(position * frequencies[pair], 24 if single else 53)
        a, b = head[low], head[high]
        result[low] = narrow(narrow(a * cos) - narrow(b * sin))
        result[high] = narrow(narrow(a * sin) + narrow(b * cos))
    return result


POSITIONS = [
    0,
    1,
    2,
    -1,
    -7,
    63,
    64,
    4095,
    131_071,
    10**7,
    -(10**7),
    2**31,
    -(2**40),
    FARTHEST,
    -FARTHEST,
    FARTHEST - 1,
]


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@backends
def test_float32_is_rotated_as_by_hand_bit_for_bit(backend: str, theta: float, layout: str) -> None:
    x = random(len(POSITIONS), Q_HEADS, HEAD_DIM)
    expected = [
        [by_hand(head, position, theta, layout, single=True) for head in token]
        for token, position in zip(x.tolist(), POSITIONS, strict=True)
    ]
    rope = rn.Rope(HEAD_DIM, theta=theta, layout=layout, backend=backend)
    rope(x, positions=POSITIONS)
    assert x.tolist() == expected


@backends
def test_float64_is_rotated_as_by_hand_to_its_last_places(backend: str) -> None:
    x = random(len(POSITIONS), Q_HEADS, HEAD_DIM, dtype=np.float64)
    expected = [
        [by_hand(head, position, 10_000.0, "interleaved", single=False) for head in token]
        for token, position in zip(x.tolist(), POSITIONS, strict=True)
    ]
    rn.Rope(HEAD_DIM, backend=backend)(x, positions=POSITIONS)
    assert np.abs(x - expected).max() < 4e-15  # float64 cosines are the platform's own


@backends
def test_position_0_changes_nothing(backend: str) -> None:
    x = random(1, Q_HEADS, HEAD_DIM)
    assert rotated(rn.Rope(HEAD_DIM, backend=backend), x, offset=0).tobytes() == x.tobytes()


@backends
def test_offset_is_the_position_of_the_first_token(backend: str) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(5, Q_HEADS, HEAD_DIM)
    for offset in (0, 60, -3, 10**9, FARTHEST - 4):
        by_offset = rotated(rope, x, offset=offset)
        assert by_offset.tobytes() == rotated(rope, x, positions=range(offset, offset + 5)).tobytes()
        assert by_offset.tobytes() == rotated(rope.at(offset=offset, tokens=5), x).tobytes()
        for token in range(5):
            alone = rotated(rope, x[token : token + 1], offset=offset + token)
            assert by_offset[token].tobytes() == alone.tobytes(), (offset, token)


@pytest.mark.parametrize(
    "positions",
    [
        [5, 6, 7, 8],
        [8, 7, 6, 5],
        [5, 7, 6, 8],  # the last is as far from the first as if they followed one another
        [5, 5, 5, 8],
        [5, 100, -3, 8],
        [0, 0, 0, 0],
        [-2, -1, 0, 1],
        [62, 63, 64, 65],
        [10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3],
        [10**9, 3, -(10**9), 10**9],
        [FARTHEST - 3, FARTHEST - 2, FARTHEST - 1, FARTHEST],
        [-FARTHEST, FARTHEST, -FARTHEST, 0],
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@backends
def test_a_token_is_rotated_by_its_position_alone_bit_for_bit(backend: str, dtype: Any, positions: list[int]) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(4, Q_HEADS, HEAD_DIM, dtype=dtype)
    together = rotated(rope, x, positions=positions)
    for token, position in enumerate(positions):
        expected = rotated(rope, x[token : token + 1], offset=position).tobytes()
        assert together[token].tobytes() == expected
        assert rotated(rope, x[token : token + 1], positions=position).tobytes() == expected
        assert rotated(rope.at(positions=[position]), x[token : token + 1]).tobytes() == expected


@backends
def test_inverse_turns_back_by_the_same_positions(backend: str) -> None:
    x = random(4, Q_HEADS, HEAD_DIM, dtype=np.float64)
    rope = rn.Rope(backend=backend, head_dim=HEAD_DIM, frequencies=rn.Frequencies([1.0, 0.3, 0.1, 0.03], 1.25))
    for where in ({"offset": 9}, {"positions": [4, -9, 10**9, 0]}, {"positions": [4, 5, 6, 7]}):
        there = rotated(rope, x, **where)
        assert np.abs(there - x).max() > 0.1
        np.testing.assert_allclose(rotated(rope.inverse, there, **where), x, rtol=0, atol=1e-14)


# --- how positions may be given ---


def strided(numbers: Sequence[int]) -> Arrays:
    x = np.zeros(2 * len(numbers), np.int32)
    x[::2] = numbers
    return x[::2]


def locked(numbers: Sequence[int]) -> Arrays:
    x = np.array(numbers)
    x.flags.writeable = False
    return x


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.intp, np.longlong]
FORMS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "list of numpy.int64": lambda numbers: [np.int64(n) for n in numbers],
    "list of arrays": lambda numbers: [np.array(n) for n in numbers],
    "strided": strided,
    "backwards": lambda numbers: np.array(numbers[::-1])[::-1],
    "read-only": locked,
    "memoryview": lambda numbers: memoryview(np.array(numbers)),
    **{
        np.dtype(type_).newbyteorder(order).str: functools.partial(np.array, dtype=np.dtype(type_).newbyteorder(order))
        for type_ in INTEGERS
        for order in "<>"
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("numbers", [[3, 4, 5], [5, 3, 100]], ids=str)
def test_positions_may_be_integers_of_any_kind(numbers: list[int], form: str) -> None:
    rope, x = rn.Rope(HEAD_DIM), random(3, Q_HEADS, HEAD_DIM)
    expected = b"".join(rotated(rope, x[i : i + 1], offset=n).tobytes() for i, n in enumerate(numbers))
    positions = FORMS[form](numbers)
    assert rotated(rope, x, positions=positions).tobytes() == expected
    assert rotated(rope.at(positions=positions), x).tobytes() == expected
    assert rotated(rn.apply_rope, x, positions=positions).tobytes() == expected
    back = rotated(rope.inverse, x, positions=positions)
    assert rotated(rope.inverse, x, positions=numbers).tobytes() == back.tobytes()
    assert back.tobytes() != expected


def test_positions_may_be_a_range() -> None:
    rope, x = rn.Rope(HEAD_DIM), random(3, Q_HEADS, HEAD_DIM)
    for numbers in (range(3, 6), range(9, 0, -3), range(-1, 2)):
        assert rotated(rope, x, positions=numbers).tobytes() == rotated(rope, x, positions=list(numbers)).tobytes()


def test_positions_may_be_a_memmap(tmp_path: Path) -> None:
    np.array([5, 3, 100]).tofile(tmp_path / "ids")
    on_disk = np.memmap(tmp_path / "ids", np.array([1]).dtype, "r")
    rope, x = rn.Rope(HEAD_DIM), random(3, Q_HEADS, HEAD_DIM)
    assert rotated(rope, x, positions=on_disk).tobytes() == rotated(rope, x, positions=[5, 3, 100]).tobytes()


class Index:
    """An integer of another library."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize("shape", [(Q_HEADS, HEAD_DIM), (1, Q_HEADS, HEAD_DIM), (2, 1, Q_HEADS, HEAD_DIM)], ids=str)
@backends
def test_a_scalar_is_the_position_of_one_token(backend: str, shape: tuple[int, ...]) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(*shape)
    expected = rotated(rope, x, positions=[7])
    assert expected.tobytes() != x.tobytes()
    for type_ in (int, np.array, *INTEGERS):
        assert rotated(rope, x, positions=type_(7)).tobytes() == expected.tobytes(), type_  # type: ignore[operator]
        assert rotated(rope, x, offset=type_(7)).tobytes() == expected.tobytes(), type_  # type: ignore[operator]
        assert rotated(rope.at(positions=type_(7)), x).tobytes() == expected.tobytes(), type_  # type: ignore[operator]
    assert rotated(rope, x, offset=Index()).tobytes() == expected.tobytes()
    for row, token in zip(expected.reshape(-1, Q_HEADS, HEAD_DIM), x.reshape(-1, Q_HEADS, HEAD_DIM), strict=True):
        assert row.tobytes() == rotated(rope, token, offset=7).tobytes()


@pytest.mark.parametrize("type_", INTEGERS)
def test_an_offset_of_few_bits_does_not_overflow(type_: type[np.integer[Any]]) -> None:
    last = min(int(np.iinfo(type_).max), FARTHEST - 2)
    rope, x = rn.Rope(HEAD_DIM), random(1, 3, Q_HEADS, HEAD_DIM)
    expected = rotated(rope, x, positions=[last, last + 1, last + 2]).tobytes()
    assert rotated(rope, x, offset=type_(last)).tobytes() == expected
    assert rotated(rope, x, offset=np.array(last, type_)).tobytes() == expected
    assert rotated(rope, x, offset=np.array([last], type_)).tobytes() == expected


@pytest.mark.parametrize("order", ["thd", "htd"])
@backends
def test_positions_are_for_tokens_in_either_order_of_axes(backend: str, order: str) -> None:
    # As many tokens as heads: nothing but the order tells them apart.
    x, positions = random(2, 3, 3, HEAD_DIM), [[5, 3, 100], [0, 7, 8]]
    rope = rn.Rope(HEAD_DIM, order=order, backend=backend)
    together = rotated(rope, x, positions=positions)
    for row in range(2):
        assert together[row].tobytes() == rotated(rope, x[row], positions=positions[row]).tobytes()
        for token in range(3):
            at = (row, token) if order == "thd" else (row, slice(None), token)
            assert together[at].tobytes() == rotated(rope, x[at], offset=positions[row][token]).tobytes()


@pytest.mark.parametrize("order", ["thd", "htd"])
@backends
def test_positions_of_one_axis_are_for_all_rows_of_a_batch(backend: str, order: str) -> None:
    x = random(2, 3, 3, HEAD_DIM)
    rope = rn.Rope(HEAD_DIM, order=order, backend=backend)
    for where in ({"offset": 4}, {"positions": [4, 5, 6]}, {"positions": [9, 2, 2]}):
        together = rotated(rope, x, **where)
        for row in range(2):
            assert together[row].tobytes() == rotated(rope, x[row], **where).tobytes()


@pytest.mark.parametrize("order", ["thd", "htd"])
@backends
def test_an_offset_for_each_row_is_the_position_of_its_first_token(backend: str, order: str) -> None:
    x, starts = random(3, 3, 3, HEAD_DIM), [40, -7, 10**9]
    rope = rn.Rope(HEAD_DIM, order=order, backend=backend)
    expected = b"".join(rotated(rope, row, offset=n).tobytes() for row, n in zip(x, starts, strict=True))
    for offset in (starts, tuple(starts), np.array(starts), np.array(starts, ">i8")):
        assert rotated(rope, x, offset=offset).tobytes() == expected
        assert rotated(rope.at(offset=offset, tokens=3), x).tobytes() == expected
    back = b"".join(rotated(rope.inverse, row, offset=n).tobytes() for row, n in zip(x, starts, strict=True))
    assert rotated(rope.inverse, x, offset=starts).tobytes() == back


@pytest.mark.parametrize("nothing", [[], (), range(0), range(9, 9), np.zeros(0, int), np.zeros(0, np.uint8)], ids=repr)
@backends
def test_no_positions_are_for_no_tokens(backend: str, nothing: Any) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(0, Q_HEADS, HEAD_DIM)
    assert rope(x, positions=nothing) is x
    assert rope.at(positions=nothing)(x) is x
    refused = outcome(rope.at(positions=nothing), random(1, Q_HEADS, HEAD_DIM))
    assert refused == "ValueError: q has 1 token; expected 0, the number of positions"


@backends
def test_rows_without_tokens_and_tokens_without_rows_are_accepted(backend: str) -> None:
    rope = rn.Rope(HEAD_DIM, backend=backend)
    for batch, tokens in ((2, 0), (0, 3), (0, 0)):
        x = random(batch, tokens, Q_HEADS, HEAD_DIM)
        starts = np.arange(batch)
        for where in ({"positions": np.zeros((batch, tokens), int)}, {"offset": starts}, {"offset": 5}):
            for _ in ("cold", "warm"):
                assert rope(x, x.copy(), **where)[0] is x
        assert rope.at(offset=starts, tokens=tokens)(x) is x


@pytest.mark.parametrize("where", [{"positions": [5, 3, 9]}, {"positions": [5, 6, 7]}, {"positions": [[5, 3, 9]] * 2}])
@backends
def test_positions_changed_after_at_do_not_change_the_rotation(backend: str, where: dict[str, Any]) -> None:
    positions = np.array(where["positions"], np.int64)
    rope = rn.Rope(HEAD_DIM, backend=backend)
    step, as_it_was = rope.at(positions=positions), rope.at(positions=where["positions"])
    positions += 1000
    for dtype in (np.float32, np.float64, np.float32):  # rows for float64 are made only now
        x = random(2, 3, Q_HEADS, HEAD_DIM, dtype=dtype)
        expected = rotated(as_it_was, x)
        assert rotated(step, x).tobytes() == expected.tobytes()
        assert rotated(rope, x, positions=positions).tobytes() != expected.tobytes()


@backends
def test_offsets_changed_after_at_do_not_change_the_rotation(backend: str) -> None:
    starts = np.array([5, 80], np.int64)
    rope = rn.Rope(HEAD_DIM, backend=backend)
    step = rope.at(offset=starts, tokens=3)
    starts += 1000
    for dtype in (np.float32, np.float64):
        x = random(2, 3, Q_HEADS, HEAD_DIM, dtype=dtype)
        assert rotated(step, x).tobytes() == rotated(rope, x, offset=[5, 80]).tobytes()


@backends
def test_positions_of_a_rotation_stay_as_others_fill_the_table(backend: str) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(3, Q_HEADS, HEAD_DIM)
    step = rope.at(offset=60, tokens=3)
    before = rotated(step, x)
    for offset in range(0, 4096, 64):
        rotated(rope, x, offset=offset)
    assert rotated(step, x).tobytes() == before.tobytes()


# --- what is refused ---

INTS = "expected integers"
INT_OR_BATCH = "expected an int, or integers of shape (batch,)"
SHAPES = "expected (tokens,) or (batch, tokens)"

REFUSED_POSITIONS: list[tuple[str, Any, str]] = [
    ("a float", 3.0, f"TypeError: positions has dtype float64; {INTS}"),
    ("NaN", math.nan, f"TypeError: positions has dtype float64; {INTS}"),
    ("floats", [3.0, 4.0, 5.0], f"TypeError: positions has dtype float64; {INTS}"),
    ("a float among ints", [3, 4, 5.0], f"TypeError: positions has dtype float64; {INTS}"),
    ("float32", np.array([3, 4, 5], np.float32), f"TypeError: positions has dtype float32; {INTS}"),
    ("float16", np.float16(3), f"TypeError: positions has dtype float16; {INTS}"),
    ("a bool", True, f"TypeError: positions has dtype bool; {INTS}"),
    ("numpy.bool", np.True_, f"TypeError: positions has dtype bool; {INTS}"),
    ("bools", [True, False, True], f"TypeError: positions has dtype bool; {INTS}"),
    ("complex", [3j, 4, 5], f"TypeError: positions has dtype complex128; {INTS}"),
    ("a string", "3", f"TypeError: positions has dtype <U1; {INTS}"),
    ("strings", ["3", "4", "5"], f"TypeError: positions has dtype <U1; {INTS}"),
    ("bytes", b"345", f"TypeError: positions has dtype |S3; {INTS}"),
    ("datetimes", np.array([3, 4, 5], "M8[s]"), f"TypeError: positions has dtype datetime64[s]; {INTS}"),
    ("timedeltas", np.array([3, 4, 5], "m8[s]"), f"TypeError: positions has dtype timedelta64[s]; {INTS}"),
    ("structured", np.zeros(3, [("t", int)]), f"TypeError: positions has dtype [('t', '{np.dtype(int).str}')]; {INTS}"),
    ("None among ints", [3, None, 5], f"TypeError: positions has dtype object; {INTS}"),
    ("objects", np.array([3, 4, 5], object), f"TypeError: positions has dtype object; {INTS}"),
    ("no objects", np.array([], object), f"TypeError: positions has dtype object; {INTS}"),
    ("a set", {3, 4, 5}, f"TypeError: positions has dtype object; {INTS}"),
    ("an iterator", iter([3, 4, 5]), f"TypeError: positions has dtype object; {INTS}"),
    ("masked", np.ma.array([3, 4, 5]), "TypeError: positions is a MaskedArray; expected a plain numpy.ndarray or ints"),
    ("three axes", [[[3, 4, 5]]], f"ValueError: positions has shape (1, 1, 3); {SHAPES}"),
    ("no stream", np.zeros((0, 1, 3), int), f"ValueError: positions has shape (0, 1, 3); {SHAPES}"),
    ("ragged", [[3, 4, 5], [3, 4]], f"ValueError: positions has rows of unequal length; {SHAPES}"),
    ("a number and a row", [3, [4, 5]], f"ValueError: positions has rows of unequal length; {SHAPES}"),
]

REFUSED_OFFSETS: list[tuple[str, Any, str]] = [
    ("a float", 3.0, f"TypeError: offset is a float; {INT_OR_BATCH}"),
    ("NaN", math.nan, f"TypeError: offset is a float; {INT_OR_BATCH}"),
    ("numpy.float64", np.float64(3), f"TypeError: offset is a float64; {INT_OR_BATCH}"),
    ("a bool", True, f"TypeError: offset is True; {INT_OR_BATCH}"),
    ("numpy.bool", np.True_, f"TypeError: offset is {np.True_!r}; {INT_OR_BATCH}"),
    ("complex", 3j, f"TypeError: offset is a complex; {INT_OR_BATCH}"),
    ("a string", "3", f"TypeError: offset is a str; {INT_OR_BATCH}"),
    ("bytes", b"3", f"TypeError: offset is a bytes; {INT_OR_BATCH}"),
    ("a range", range(3, 6), f"TypeError: offset is a range; {INT_OR_BATCH}"),
    ("a set", {3}, f"TypeError: offset is a set; {INT_OR_BATCH}"),
    ("a dict", {}, f"TypeError: offset is a dict; {INT_OR_BATCH}"),
    ("floats", [3.0, 4.0], f"TypeError: offset has dtype float64; {INTS}"),
    ("float32", np.array([3, 4], np.float32), f"TypeError: offset has dtype float32; {INTS}"),
    ("bools", [True, False], f"TypeError: offset has dtype bool; {INTS}"),
    ("strings", ["3", "4"], f"TypeError: offset has dtype <U1; {INTS}"),
    ("None among ints", [3, None], f"TypeError: offset has dtype object; {INTS}"),
    ("objects", np.array([3, 4], object), f"TypeError: offset has dtype object; {INTS}"),
    ("two axes", [[3, 4]], "ValueError: offset has shape (1, 2); expected an int, or (batch,)"),
    ("no rows of two axes", np.zeros((0, 2), int), "ValueError: offset has shape (0, 2); expected an int, or (batch,)"),
]

# Every way in that takes positions or offset, for arrays of three tokens.
WAYS: dict[str, Callable[..., Callable[..., Any]]] = {
    "rope": lambda rope, **where: functools.partial(rope, **where),
    "rope.inverse": lambda rope, **where: functools.partial(rope.inverse, **where),
    "rope.at": lambda rope, **where: (
        lambda *arrays: rope.at(**where, **({} if where.get("offset") is None else {"tokens": 3}))(*arrays)
    ),
    "apply_rope": lambda rope, **where: functools.partial(
        rn.apply_rope, backend=rope.backend, max_position=rope.max_position, **where
    ),
}


def refuse(rope: rn.Rope, expected: str | Callable[[str], bool], **where: Any) -> None:
    """See that positions are refused by every way in, first thing and after good calls, and that nothing is written."""
    outcomes: dict[str, str] = {}
    for axes in (3, 4):
        q, k = (random(*(2, 3, heads, HEAD_DIM)[-axes:]) for heads in (Q_HEADS, K_HEADS))
        before = q.tobytes(), k.tobytes()
        for way, make in WAYS.items():
            call = make(rope, **where)
            outcomes[f"{way}, {axes} axes, cold"] = outcome(call, q, k)
            rope(q.copy(), k.copy(), offset=1)
            outcomes[f"{way}, {axes} axes"] = outcome(call, q, k)
            outcomes[f"{way}, {axes} axes, q alone"] = outcome(call, q)
        assert (q.tobytes(), k.tobytes()) == before
    if isinstance(expected, str):
        expected = functools.partial(operator.eq, expected)
    assert {name: text for name, text in outcomes.items() if not expected(text)} == {}
    assert not any("\n" in text for text in outcomes.values())


@pytest.mark.parametrize(
    ("positions", "text"), [case[1:] for case in REFUSED_POSITIONS], ids=[case[0] for case in REFUSED_POSITIONS]
)
@backends
def test_positions_that_are_not_integers_of_one_or_two_axes_are_refused(
    backend: str, positions: Any, text: str
) -> None:
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, positions=positions)


@pytest.mark.parametrize(
    ("offset", "text"), [case[1:] for case in REFUSED_OFFSETS], ids=[case[0] for case in REFUSED_OFFSETS]
)
@backends
def test_an_offset_that_is_not_an_integer_or_a_row_of_them_is_refused(backend: str, offset: Any, text: str) -> None:
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, offset=offset)


@pytest.mark.parametrize("offset", [np.array(3.0), np.array(True), np.array("3")], ids=["float64", "bool", "<U1"])
@backends
def test_an_offset_of_no_axes_and_a_wrong_dtype_is_refused_by_its_dtype(backend: str, offset: Arrays) -> None:
    def names_the_dtype(text: str) -> bool:
        return text.startswith("TypeError: offset ") and str(offset.dtype) in text and "expected" in text

    refuse(rn.Rope(HEAD_DIM, backend=backend), names_the_dtype, offset=offset)


@pytest.mark.parametrize(
    "offset",
    [
        np.ma.array([3, 4]),
        np.ma.array([3, 4], mask=[False, True]),
        np.ma.array(3),
        np.ma.array(3, mask=True),
        np.ma.masked,
    ],
    ids=["unmasked", "masked", "scalar", "masked scalar", "the constant"],
)
@backends
def test_a_masked_array_as_offset_is_refused_as_it_is_as_positions(backend: str, offset: Arrays) -> None:
    def names_the_class(text: str) -> bool:
        return text.startswith(f"TypeError: offset is a {type(offset).__name__}; expected ")

    refuse(rn.Rope(HEAD_DIM, backend=backend), names_the_class, offset=offset)


@pytest.mark.parametrize("offset", [[[3], [4, 5]], [3, [4, 5]]], ids=["ragged", "a number and a row"])
@backends
def test_offsets_of_unequal_length_are_refused_by_name(backend: str, offset: Any) -> None:
    def names_it(text: str) -> bool:
        return text.startswith(("ValueError: offset ", "TypeError: offset ")) and "expected" in text

    refuse(rn.Rope(HEAD_DIM, backend=backend), names_it, offset=offset)


@backends
def test_neither_or_both_of_positions_and_offset_are_refused(backend: str) -> None:
    rope = rn.Rope(HEAD_DIM, backend=backend)
    refuse(rope, "TypeError: positions and offset are missing; expected one")
    refuse(rope, "TypeError: positions and offset are missing; expected one", positions=None, offset=None)
    for offset in (0, 3, [3, 4]):
        refuse(rope, "TypeError: positions and offset are both given; expected one", positions=[3, 4, 5], offset=offset)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"tokens": 3}, "TypeError: tokens is given without offset; expected both, or positions alone"),
        (
            {"tokens": 3, "positions": [1]},
            "TypeError: tokens is given without offset; expected both, or positions alone",
        ),
        ({"tokens": 0}, "TypeError: tokens is given without offset; expected both, or positions alone"),
        ({"offset": 3}, "TypeError: tokens is missing; expected the number of tokens that start at offset"),
        ({"offset": [3, 4]}, "TypeError: tokens is missing; expected the number of tokens that start at offset"),
        ({"offset": 3, "tokens": -1}, "ValueError: tokens is -1; expected 0 or more"),
        ({"offset": 3, "tokens": -(2**70)}, f"ValueError: tokens is {-(2**70)}; expected 0 or more"),
        *(
            ({"offset": 3, "tokens": x}, f"TypeError: tokens is {x!r}; expected an int")
            for x in (3.0, "3", True, [3], math.nan, np.float64(3))
        ),
        ({"offset": 3, "tokens": 3, "positions": [1]}, "TypeError: positions and offset are both given; expected one"),
    ],
    ids=str,
)
def test_wrong_numbers_of_tokens_are_refused(where: dict[str, Any], text: str) -> None:
    assert outcome(lambda: rn.Rope(HEAD_DIM).at(**where)) == text


def test_the_number_of_tokens_may_be_an_integer_of_numpy() -> None:
    x = random(3, Q_HEADS, HEAD_DIM)
    rope = rn.Rope(HEAD_DIM)
    expected = rotated(rope, x, offset=5).tobytes()
    for tokens in (np.int64(3), np.uint8(3)):
        assert rotated(rope.at(offset=5, tokens=tokens), x).tobytes() == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("scalar", [7, np.int32(7), np.array(7)], ids=repr)
@backends
def test_a_scalar_position_is_refused_for_more_than_one_token(backend: str, scalar: Any) -> None:
    text = "ValueError: q has 3 tokens; expected 1, the number of positions"
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, positions=scalar)
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, positions=[scalar])


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@backends
def test_another_number_of_positions_than_tokens_is_refused(backend: str, count: int) -> None:
    text = f"ValueError: q has 3 tokens; expected {count}, the number of positions"
    rope = rn.Rope(HEAD_DIM, backend=backend)
    for positions in (np.arange(count), np.arange(count)[::-1] * 2, np.zeros((2, count), int)):
        refuse(rope, text, positions=positions)


@backends
def test_positions_are_not_broadcast_over_rows(backend: str) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(2, 3, Q_HEADS, HEAD_DIM)
    before = x.tobytes()
    for batch in (1, 3):
        text = f"ValueError: q has a batch of 2; expected a batch of {batch}, as the positions have"
        for call in (
            functools.partial(rope, positions=[[3, 4, 5]] * batch),
            functools.partial(rope, offset=[3] * batch),
            rope.at(positions=[[3, 4, 5]] * batch),
            rope.at(offset=[3] * batch, tokens=3),
        ):
            assert outcome(call, x) == text
    # (batch, 1) is not for all tokens of a row.
    text = "ValueError: q has 3 tokens; expected 1, the number of positions"
    assert outcome(functools.partial(rope, positions=[[3], [4]]), x) == text
    assert x.tobytes() == before


@backends
def test_offsets_of_rows_are_refused_where_there_is_no_batch_axis(backend: str) -> None:
    rope = rn.Rope(HEAD_DIM, backend=backend)
    for x in (random(3, Q_HEADS, HEAD_DIM), random(Q_HEADS, HEAD_DIM)):
        before = x.tobytes()
        for batch in (1, 3):
            text = f"ValueError: q has no batch axis; expected a batch of {batch}, as the positions have"
            assert outcome(functools.partial(rope, offset=[3] * batch), x) == text
            assert outcome(functools.partial(rope.inverse, offset=np.arange(batch)), x) == text
            tokens = 1 if x.ndim == 2 else 3
            assert outcome(rope.at(offset=[3] * batch, tokens=tokens), x) == text
        assert x.tobytes() == before


# --- 2**53 and max_position ---

TOO_FAR = "expected at most 2**53 from 0, exact in float64"


@pytest.mark.parametrize(
    ("positions", "farthest"),
    [
        ([1, 2, FARTHEST + 1], FARTHEST + 1),
        ([-FARTHEST - 1, 2, 3], -FARTHEST - 1),
        (np.array([1, 2, 2**63 - 1]), 2**63 - 1),
        (np.array([-(2**63), 2, 3]), -(2**63)),
        (np.array([1, 2**63, 3], np.uint64), 2**63),
        (np.array([1, 2**64 - 1, 3], np.uint64), 2**64 - 1),
        ([[1, 2, 3], [1, 2, FARTHEST + 1]], FARTHEST + 1),
        (range(FARTHEST - 1, FARTHEST + 2), FARTHEST + 1),
        (2**63, 2**63),
    ],
    ids=str,
)
@backends
def test_positions_beyond_2_to_the_53_are_refused(backend: str, positions: Any, farthest: int) -> None:
    text = f"ValueError: positions leads to position {farthest}; {TOO_FAR}"
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, positions=positions)


@pytest.mark.parametrize(
    "positions",
    [2**64, -(2**63) - 1, 10**400, [1, 2, 2**64], [2**70, 2**80, 2**90], [-(2**70), 2**70, 0], [2**63, -1, 0]],
    ids=lambda value: str(value)[:40],
)
@backends
def test_positions_of_more_than_64_bits_are_refused_as_too_far(backend: str, positions: Any) -> None:
    def names_the_bound(text: str) -> bool:
        return text.startswith("ValueError: positions ") and "2**53" in text and "expected" in text

    refuse(rn.Rope(HEAD_DIM, backend=backend), names_the_bound, positions=positions)


@pytest.mark.parametrize(
    ("offset", "farthest"),
    [
        (FARTHEST - 1, FARTHEST + 1),
        (FARTHEST, FARTHEST + 2),
        (-FARTHEST - 1, -FARTHEST - 1),
        (-FARTHEST - 3, -FARTHEST - 3),
        (2**63 - 1, 2**63 + 1),
        (np.int64(2**63 - 1), 2**63 + 1),
        (np.uint64(2**64 - 1), 2**64 + 1),
        (10**30, 10**30 + 2),
        (-(10**30), -(10**30)),
        ([0, FARTHEST - 1], FARTHEST + 1),
        ([-FARTHEST - 1, 0], -FARTHEST - 1),
        (np.array([0, 2**64 - 1], np.uint64), 2**64 + 1),
        (np.array([0, 2**63 - 1]), 2**63 + 1),
    ],
    ids=str,
)
@backends
def test_an_offset_that_leads_beyond_2_to_the_53_is_refused(backend: str, offset: Any, farthest: int) -> None:
    text = f"ValueError: offset leads to position {farthest}; {TOO_FAR}"
    refuse(rn.Rope(HEAD_DIM, backend=backend), text, offset=offset)


@pytest.mark.parametrize("offset", [[0, 2**64], [-(2**70), 0], [2**63, -1]], ids=str)
@backends
def test_offsets_of_more_than_64_bits_are_refused_as_too_far(backend: str, offset: Any) -> None:
    def names_the_bound(text: str) -> bool:
        return text.startswith("ValueError: offset ") and "2**53" in text and "expected" in text

    refuse(rn.Rope(HEAD_DIM, backend=backend), names_the_bound, offset=offset)


@backends
def test_2_to_the_53_itself_is_accepted(backend: str) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(1, 1, Q_HEADS, HEAD_DIM)
    for position in (FARTHEST, -FARTHEST):
        expected = [by_hand(head, position, 10_000.0, "interleaved", single=True) for head in x[0, 0].tolist()]
        for where in (
            {"positions": position},
            {"positions": [[position]]},
            {"positions": np.array([position])},
            {"offset": position},
            {"offset": [position]},
        ):
            assert rotated(rope, x, **where)[0, 0].tolist() == expected
    assert rotated(rope, x, positions=np.uint64(FARTHEST)).tobytes() == rotated(rope, x, offset=FARTHEST).tobytes()
    assert rope.at(offset=FARTHEST - 2, tokens=3).tokens == 3
    assert rope.at(offset=-FARTHEST, tokens=3).tokens == 3


@pytest.mark.parametrize(
    ("where", "highest"),
    [
        ({"positions": [1, 16, 3]}, 16),
        ({"positions": [1, 2, 17]}, 17),
        ({"positions": [[1, 2, 3], [1, 16, 3]]}, 16),
        ({"positions": [-5, 100, 3]}, 100),
        ({"offset": 14}, 16),
        ({"offset": 16}, 18),
        ({"offset": 1000}, 1002),
        ({"offset": [1, 14]}, 16),
    ],
    ids=str,
)
@backends
def test_max_position_is_the_first_that_is_refused(backend: str, where: dict[str, Any], highest: int) -> None:
    text = f"ValueError: {next(iter(where))} leads to position {highest}; expected below max_position, 16"
    refuse(rn.Rope(HEAD_DIM, max_position=16, backend=backend), text, **where)


@pytest.mark.parametrize(
    "where",
    [
        {"positions": [1, 15, 3]},
        {"positions": [-5, -100, 15]},
        {"offset": 13},
        {"offset": -100},
        {"positions": range(13, 16)},
    ],
    ids=str,
)
@backends
def test_positions_below_max_position_are_rotated_as_without_it(backend: str, where: dict[str, Any]) -> None:
    x = random(3, Q_HEADS, HEAD_DIM)
    bounded, free = (rn.Rope(HEAD_DIM, max_position=n, backend=backend) for n in (16, None))
    assert rotated(bounded, x, **where).tobytes() == rotated(free, x, **where).tobytes()
    assert rotated(bounded.inverse, x, **where).tobytes() == rotated(free.inverse, x, **where).tobytes()


def test_max_position_bounds_the_tables() -> None:
    rope = rn.Rope(HEAD_DIM, max_position=16)
    assert rope.tables(16)[0].shape == (16, HEAD_DIM // 2)
    assert outcome(rope.tables, 17) != "accepted"


@backends
def test_no_tokens_reach_no_position(backend: str) -> None:
    # A cache that is full to its last place, and a chunk of nothing behind it.
    rope, x = rn.Rope(HEAD_DIM, max_position=16, backend=backend), random(0, Q_HEADS, HEAD_DIM)
    assert outcome(lambda: rope(x, offset=15)) == "accepted"
    assert outcome(lambda: rope(x, offset=16)) == "accepted"
    assert outcome(lambda: rope.at(offset=16, tokens=0)(x)) == "accepted"
    full = random(16, Q_HEADS, HEAD_DIM)
    assert outcome(lambda: rope(full, offset=0)) == "accepted"


@backends
def test_a_bool_among_integers_is_refused(backend: str) -> None:
    rope = rn.Rope(HEAD_DIM, backend=backend)
    for name in ("positions", "offset"):
        refuse(rope, f"TypeError: {name} holds a bool; expected integers", **{name: [1, True, 2]})


@backends
def test_integers_of_several_types_in_a_list_are_accepted(backend: str) -> None:
    rope, x = rn.Rope(HEAD_DIM, backend=backend), random(3, Q_HEADS, HEAD_DIM)
    mixed = rotated(rope, x, positions=[np.uint64(5), 6, np.int8(-1)])
    assert mixed.tobytes() == rotated(rope, x, positions=[5, 6, -1]).tobytes()


@backends
@pytest.mark.parametrize("call", ["rope", "at"])
def test_ints_in_every_form_are_the_same_positions(backend: str, call: str) -> None:
    rope = rn.Rope(8, backend=backend)

    def rotated(x: Any, positions: Any) -> Any:
        return rope.at(positions=positions)(x) if call == "at" else rope(x, positions=positions)

    one, three, batch = np.ones((1, 2, 8)), np.ones((3, 2, 8)), np.ones((2, 3, 2, 8))
    for form in (7, (7,), [7], range(7, 8), np.int64(7), np.array(7), np.array([7])):
        np.testing.assert_array_equal(rotated(one.copy(), form), rope(one.copy(), offset=7))
    for form in ((7, 3, 5), [7, 3, 5], [7, np.int8(3), 5]):
        np.testing.assert_array_equal(rotated(three.copy(), form), rotated(three.copy(), np.array([7, 3, 5])))
    for form in ([(7, 3, 5), [1, 2, 9]], ((7, 3, 5), (1, 2, 9)), ([7, 3, 5], range(1, 10, 4))):
        np.testing.assert_array_equal(rotated(batch.copy(), form), rotated(batch.copy(), np.array([*form])))


@backends
@pytest.mark.parametrize(
    ("positions", "error", "text"),
    [
        (True, TypeError, "positions has dtype bool; expected integers"),
        ((1, True), TypeError, "positions holds a bool; expected integers"),
        ((1.0,), TypeError, "positions has dtype float64; expected integers"),
        (2**64, ValueError, "positions reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64"),
        ((2**64,), ValueError, "positions reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64"),
        (((1,), (1, 2)), ValueError, "positions has rows of unequal length; expected (tokens,) or (batch, tokens)"),
        ("7", TypeError, "positions has dtype <U1; expected integers"),
    ],
)
def test_what_looks_like_ints_is_refused_in_tuples_and_alone(
    backend: str, positions: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        rn.Rope(8, backend=backend)(np.ones((1, 2, 8)), positions=positions)
    assert str(caught.value) == text
