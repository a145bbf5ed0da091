"""What is refused: the exception, its text, and that nothing was written. And what only looks as if it had to be.

Every call is made on both backends, through every way in, on a Rope that has not rotated yet and on one that has: a
compiled kernel that knows a dtype looks at the arrays itself and asks Python only about those that it doubts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

import rope_numba as rn

Arrays = NDArray[Any]
Call = Callable[..., Any]
Views = Callable[[Arrays], tuple[Arrays, Arrays]]

TYPES = "float32, float64, float16 or bfloat16"
HEAD_DIM, BATCH = 8, 2
HEADS = {"q": 4, "k": 2}
GUARD = 16  # elements before and behind each array, which have to stay as they are

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of arrays."""

    dtype_name: str
    axes: int
    order: str
    tokens: int
    batch: int = BATCH

    def __str__(self) -> str:
        return f"{self.dtype_name}-{self.axes}d-{self.order}-{self.tokens}t"

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.dtype_name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        leading = ("batch", "tokens", "heads") if self.order == "thd" else ("batch", "heads", "tokens")
        return ("heads", "head_dim") if self.axes == 2 else (*leading, "head_dim")[-self.axes :]

    def shape(self, heads: int, **sizes: int) -> tuple[int, ...]:
        """Return the shape of an array in the order of this kind."""
        lengths = {"batch": self.batch, "tokens": self.tokens, "heads": heads, "head_dim": HEAD_DIM, **sizes}
        return tuple(lengths[name] for name in self.names)

    def ordered(self, x: Arrays) -> Arrays:
        """Return an array that was made as (batch, tokens, heads, head_dim) in the order of this kind."""
        return x.swapaxes(-2, -3) if self.order == "htd" else x


KINDS = (
    Kind("float32", 2, "thd", 1),
    Kind("float32", 3, "thd", 1),
    Kind("float32", 3, "thd", 3),
    Kind("float32", 3, "htd", 3),
    Kind("float32", 4, "thd", 1),
    Kind("float32", 4, "thd", 3),
    Kind("float32", 4, "htd", 3),
    Kind("float64", 3, "thd", 3),
    Kind("float16", 3, "thd", 1),
    Kind("bfloat16", 3, "thd", 3),
)


# --- every way in: from settings and a number of tokens to what takes q and k ---

Way = Callable[[Mapping[str, Any], int], Call]
never_met = itertools.count(1_000_000)


def rope_of(settings: Mapping[str, Any]) -> rn.Rope:
    return rn.Rope(HEAD_DIM, **settings)


def one_shot(settings: Mapping[str, Any], **where: Any) -> Call:
    """Return apply_rope for settings that it has not met: it may keep what it made for those that it has."""
    return functools.partial(rn.apply_rope, max_position=next(never_met), **settings, **where)


def at_positions(tokens: int) -> list[int]:
    """Return positions that do not follow one another."""
    return [7, 3, 40, -1, 9][:tokens]


BY_POSITIONS: dict[str, Way] = {
    "rope(positions)": lambda s, tokens: functools.partial(rope_of(s), positions=at_positions(tokens)),
    "rope.inverse(positions)": lambda s, tokens: functools.partial(rope_of(s).inverse, positions=at_positions(tokens)),
    "rope.at(positions)": lambda s, tokens: rope_of(s).at(positions=at_positions(tokens)),
    "rope.at(offset)": lambda s, tokens: rope_of(s).at(offset=5, tokens=tokens),
    "apply_rope(positions)": lambda s, tokens: one_shot(s, positions=at_positions(tokens)),
}
WAYS: dict[str, Way] = {
    **BY_POSITIONS,
    "rope(offset)": lambda s, _: functools.partial(rope_of(s), offset=5),
    "rope.inverse(offset)": lambda s, _: functools.partial(rope_of(s).inverse, offset=5),
    "apply_rope(offset)": lambda s, _: one_shot(s, offset=5),
}
ONE_SHOT = {name: way for name, way in WAYS.items() if "apply_rope" in name}
OF_A_ROPE = {name: way for name, way in WAYS.items() if "apply_rope" not in name}


@functools.cache
def per_row(batch: int) -> dict[str, Way]:
    """Return the ways in with positions for each row of a batch."""

    def grid(tokens: int) -> NDArray[np.int64]:
        return np.array(at_positions(tokens)) + 10 * np.arange(batch)[:, None]

    starts = np.arange(5, 5 + batch)
    return {
        "rope(positions)": lambda s, tokens: functools.partial(rope_of(s), positions=grid(tokens)),
        "rope(offset)": lambda s, _: functools.partial(rope_of(s), offset=starts),
        "rope.inverse(positions)": lambda s, tokens: functools.partial(rope_of(s).inverse, positions=grid(tokens)),
        "rope.at(positions)": lambda s, tokens: rope_of(s).at(positions=grid(tokens)),
        "rope.at(offset)": lambda s, tokens: rope_of(s).at(offset=starts, tokens=tokens),
        "apply_rope(positions)": lambda s, tokens: one_shot(s, positions=grid(tokens)),
        "apply_rope(offset)": lambda s, _: one_shot(s, offset=starts),
    }


def good(kind: Kind) -> tuple[Arrays, Arrays]:
    """Return q and k to which there is no objection, the same ones each time."""
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal(kind.shape(heads)).astype(kind.dtype) for heads in HEADS.values())
    return q, k


@functools.cache
def good_rotated(kind: Kind, make: Way) -> list[bytes]:
    """Return what the good arrays become on a Rope that has met nothing before, in NumPy."""
    arrays = good(kind)
    make({"order": kind.order, "backend": "numpy"}, kind.tokens)(*arrays)
    return [x.tobytes() for x in arrays]


def outcome(call: Call, *arrays: object) -> str:
    """Return what a call raises, as one text."""
    try:
        call(*arrays)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


class Calls:
    """Calls with arrays of one kind on one backend."""

    def __init__(self, kind: Kind, backend: str) -> None:
        self.kind = kind
        self.settings = {"order": kind.order, "backend": backend}
        self.rng = np.random.default_rng(1)
        self.memory: list[Arrays] = []  # all of it, also what no array shows

    def elements(self, count: int, dtype: np.dtype[Any] | None = None) -> Arrays:
        """Return elements side by side, inside memory that is watched."""
        memory = self.rng.standard_normal(count + 2 * GUARD).astype(self.kind.dtype if dtype is None else dtype)
        self.memory.append(memory)
        return memory[GUARD:-GUARD]

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Return bytes inside memory that is watched, the first of them at a multiple of 64."""
        memory = self.rng.integers(0, 256, count + 192, dtype=np.uint8)
        self.memory.append(memory)
        first = 64 + -memory.ctypes.data % 64
        return memory[first : first + count]

    def new(self, name: str, dtype: np.dtype[Any] | None = None, **sizes: int) -> Arrays:
        """Return an array that can be q or k."""
        shape = self.kind.shape(**{"heads": HEADS[name], **sizes})
        return self.elements(math.prod(shape), dtype).reshape(shape)

    def refuse(self, name: str, bad: object, error: type[Exception], text: str, **options: Any) -> None:
        """See that an array is refused as q, alone and beside a k, or as k beside a q."""
        pairs = [(self.new("q"), bad)] if name == "k" else [(bad,), (bad, self.new("k"))]
        self._refuse(pairs, error, text, **options)

    def refuse_both(self, q: object, k: object, error: type[Exception], text: str, **options: Any) -> None:
        """See that q and k are refused beside one another."""
        self._refuse([(q, k)], error, text, **options)

    def _refuse(
        self,
        pairs: Iterable[tuple[object, ...]],
        error: type[Exception],
        text: str,
        *,
        ways: Mapping[str, Way] = WAYS,
        after: Kind | None = None,
        dtypes: Iterable[np.dtype[Any]] = (),
    ) -> None:
        """See that arrays are refused by every way in, first thing and after good calls, and that nothing is written.

        The good calls are with arrays of the same kind, or another one, and may be with other dtypes too.
        """
        kind = after or self.kind
        before = [memory.tobytes() for memory in self.memory]
        outcomes: dict[str, set[str]] = {}
        for way, make in ways.items():
            call = make(self.settings, self.kind.tokens)
            cold = {outcome(call, *pair) for pair in pairs}
            rotated = good(kind)
            call(*rotated)
            call(good(kind)[0])
            for dtype in dtypes:
                call(*(x.astype(dtype) for x in good(kind)))
            warm = {outcome(call, *pair) for pair in pairs}
            outcomes[way] = cold | warm
            if [x.tobytes() for x in rotated] != good_rotated(kind, make):
                outcomes[way].add("the good call was not rotated right")
        expected = f"{error.__name__}: {text}"
        assert outcomes == {way: {expected} for way in ways}
        assert "\n" not in text
        assert [memory.tobytes() for memory in self.memory] == before

    def accept(self, shape: tuple[int, ...], views: Views) -> None:
        """See that views of memory are rotated as separate copies are, and that the rest of the memory stays."""
        original = self.rng.standard_normal(shape).astype(self.kind.dtype)
        for way, make in WAYS.items():
            expected = original.copy()
            for view in map(self.kind.ordered, views(expected)):
                apart = view.copy()
                make(self.settings, self.kind.tokens)(apart)
                view[...] = apart
            assert expected.tobytes() != original.tobytes(), way
            call = make(self.settings, self.kind.tokens)
            for _ in ("cold", "warm"):
                memory = original.copy()
                q, k = map(self.kind.ordered, views(memory))
                given_back = call(q, k)
                assert given_back[0] is q, way
                assert given_back[1] is k, way
                assert memory.tobytes() == expected.tobytes(), way


@pytest.fixture
def calls(request: pytest.FixtureRequest) -> Calls:
    return Calls(*request.param)


def on(*kinds: Kind) -> pytest.MarkDecorator:
    """Run a test with arrays of some kinds, and with every second of them on the backend numpy.

    That one checks them by what is asked second on the other one, where a compiled check has come first.
    """
    cases = [(kind, "numba") for kind in kinds] + [(kind, "numpy") for kind in kinds[::2]]
    params = [pytest.param((kind, backend), id=f"{kind}-{backend}") for kind, backend in cases]
    return pytest.mark.parametrize("calls", params, indirect=True)


every_kind = on(*KINDS)
every_dtype = on(KINDS[1], *KINDS[7:])
batched = on(*(kind for kind in KINDS if kind.axes == 4))
of_many_tokens = on(*(kind for kind in KINDS if kind.tokens > 1))
either = pytest.mark.parametrize("name", ["q", "k"])


# --- what is not an array, or not one of ours ---


class Tensor:
    """Like a tensor of another library: NumPy could take it, but its memory would not be rotated."""

    dtype, shape, ndim = np.dtype(np.float32), (3, 4, 8), 3

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Arrays:
        return np.ones(self.shape, self.dtype)


class Mine(np.ndarray):
    """A user's own subclass."""


class MyMemmap(np.memmap):
    """A user's own subclass of one that is taken."""


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        pytest.param([[1.0] * HEAD_DIM], "a list", id="list"),
        pytest.param(([1.0] * HEAD_DIM,), "a tuple", id="tuple"),
        pytest.param(1, "an int", id="int"),
        pytest.param(1.5, "a float", id="float"),
        pytest.param(False, "a bool", id="bool"),
        pytest.param("q", "a str", id="str"),
        pytest.param(np.float32(1.5), "a float32", id="NumPy scalar"),
        pytest.param(memoryview(bytes(64)), "a memoryview", id="memoryview"),
        pytest.param(Tensor(), "a Tensor", id="tensor"),
        pytest.param(np.ndarray, "a type", id="the class"),
    ],
)
@either
@every_dtype
def test_what_is_not_an_array_is_refused(calls: Calls, name: str, thing: object, kind: str) -> None:
    calls.refuse(name, thing, TypeError, f"{name} is {kind}; expected a NumPy array of {TYPES}")


@every_dtype
def test_none_is_refused_as_q(calls: Calls) -> None:
    calls.refuse("q", None, TypeError, f"q is None; expected a NumPy array of {TYPES}")


OTHER_TYPES = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "object": np.object_,
    "structured": [("real", np.float32), ("imag", np.float32)],
    "structured of 2 bytes": [("bits", np.float16)],
    "void of 2 bytes": "V2",
    "str": "U2",
    "datetime64": "M8[s]",
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
if np.dtype(np.longdouble) != np.dtype(np.float64):
    OTHER_TYPES["longdouble"] = np.longdouble


@pytest.mark.parametrize("other", OTHER_TYPES)
@either
@every_dtype
def test_arrays_of_another_type_are_refused(calls: Calls, name: str, other: str) -> None:
    dtype = np.dtype(OTHER_TYPES[other])
    bad = calls.bytes(2048)[: math.prod(calls.kind.shape(HEADS[name])) * dtype.itemsize]
    if other == "object":
        bad = calls.new(name).astype(object)
        calls.memory.append(bad)
    else:
        bad = bad.view(dtype).reshape(calls.kind.shape(HEADS[name]))
    calls.refuse(name, bad, TypeError, f"{name}.dtype is {dtype}; expected {TYPES}")


@either
@every_dtype
def test_foreign_byte_order_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    foreign = calls.kind.dtype.newbyteorder("S")
    calls.refuse(
        name,
        calls.new(name).view(foreign),
        TypeError,
        f"{name}.dtype is {foreign.str}, of foreign byte order; expected {TYPES} in native byte order",
    )


@pytest.mark.parametrize("subclass", [np.ma.MaskedArray, np.recarray, Mine, MyMemmap])
@either
@every_kind
def test_subclasses_of_ndarray_are_refused_and_nothing_is_written(
    calls: Calls, name: str, subclass: type[Arrays]
) -> None:
    text = f"{name} is a {subclass.__name__}; expected a plain numpy.ndarray (or numpy.memmap)"
    calls.refuse(name, calls.new(name).view(subclass), TypeError, text)


@either
@on(KINDS[0])
def test_a_matrix_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of the class itself
        bad = calls.new(name).view(np.matrix)
    calls.refuse(name, bad, TypeError, f"{name} is a matrix; expected a plain numpy.ndarray (or numpy.memmap)")


@every_kind
def test_a_memmap_is_rotated_in_its_file(calls: Calls, tmp_path: Path) -> None:
    for number, make in enumerate(WAYS.values()):
        call = make(calls.settings, calls.kind.tokens)
        for turn in ("cold", "warm"):
            paths = [tmp_path / f"{name}{number}{turn}" for name in HEADS]
            on_disk = []
            for path, x in zip(paths, good(calls.kind), strict=True):
                x.tofile(path)
                on_disk.append(np.memmap(path, calls.kind.dtype, "r+", shape=x.shape))
            given_back = call(*on_disk)
            assert given_back[0] is on_disk[0]
            assert given_back[1] is on_disk[1]
            for x in on_disk:
                x.flush()
            assert [path.read_bytes() for path in paths] == good_rotated(calls.kind, make)


@either
@every_dtype
def test_a_read_only_memmap_is_refused(calls: Calls, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    x = calls.new(name)
    x.tofile(path)
    bad = np.memmap(path, calls.kind.dtype, "r", shape=x.shape)
    text = f"{name} is read-only; expected a writeable array, as it is rotated in place"
    calls.refuse(name, bad, ValueError, text)
    assert path.read_bytes() == x.tobytes()


# --- axes and their lengths ---


@pytest.mark.parametrize("axes", [0, 1, 5, 6])
@every_dtype
def test_q_of_another_number_of_axes_is_refused(calls: Calls, axes: int) -> None:
    bad = calls.elements(HEAD_DIM if axes else 1).reshape((1,) * (axes - 1) + (HEAD_DIM,) if axes else ())
    named = "(heads, head_dim) or (tokens, heads, head_dim) or (batch, tokens, heads, head_dim)"
    count = "1 axis" if axes == 1 else f"{axes} axes"
    text = f"q has {count}; expected {named}"
    calls.refuse("q", bad, ValueError, text, ways=OF_A_ROPE)
    if axes < 2:  # there is no head_dim to make a Rope of
        text = f"q has {count}; expected 2, 3 or 4, the last one head_dim"
    calls.refuse("q", bad, ValueError, text, ways=ONE_SHOT)


@on(KINDS[3])
def test_the_axes_that_are_expected_are_named_in_the_order_of_the_rope(calls: Calls) -> None:
    named = "(heads, head_dim) or (heads, tokens, head_dim) or (batch, heads, tokens, head_dim)"
    bad = calls.elements(HEAD_DIM).reshape(1, 1, 1, 1, HEAD_DIM)
    calls.refuse("q", bad, ValueError, f"q has 5 axes; expected {named}")


@pytest.mark.parametrize("axes", [0, 1, 2, 3, 4, 5])
@every_kind
def test_k_of_another_number_of_axes_than_q_is_refused(calls: Calls, axes: int) -> None:
    axes += 5 * (axes == calls.kind.axes)
    bad = calls.new("k").reshape(-1)[: HEAD_DIM if axes else 1].reshape((1,) * (axes - 1) + (-1,) * (axes > 0))
    count = "1 axis" if axes == 1 else f"{axes} axes"
    calls.refuse("k", bad, ValueError, f"k has {count}; expected {calls.kind.axes}, as q has")


@pytest.mark.parametrize("head_dim", [0, 1, 2, 6, 7, 9, 16])
@every_kind
def test_another_head_dim_is_refused_and_nothing_is_written(calls: Calls, head_dim: int) -> None:
    q, k = (calls.new(name, head_dim=head_dim) for name in HEADS)
    text = f"has head_dim {head_dim} (its last axis); expected {HEAD_DIM}"
    calls.refuse("q", q, ValueError, f"q {text}", ways=OF_A_ROPE)
    calls.refuse_both(q, k, ValueError, f"q {text}", ways=OF_A_ROPE)
    calls.refuse("k", k, ValueError, f"k {text}")


@every_kind
def test_the_one_shot_form_takes_head_dim_from_q(calls: Calls) -> None:
    q, k = calls.new("q", head_dim=6), calls.new("k")
    calls.refuse_both(q, k, ValueError, "k has head_dim 8 (its last axis); expected 6", ways=ONE_SHOT)
    for head_dim, expected in ((7, "an even number, or rotary_dim to be given"), (1, "2 to 1048575 channels")):
        q, k = (calls.new(name, head_dim=head_dim) for name in HEADS)
        calls.refuse_both(q, k, ValueError, f"head_dim is {head_dim}; expected {expected}", ways=ONE_SHOT)


@pytest.mark.parametrize("other", DTYPES)
@every_dtype
def test_k_of_another_dtype_than_q_is_refused(calls: Calls, other: str) -> None:
    if DTYPES[other] == calls.kind.dtype:
        other = "float64" if other == "float32" else "float32"
    text = f"k.dtype is {other}; expected {calls.kind.dtype}, as q has"
    calls.refuse("k", calls.new("k", DTYPES[other]), TypeError, text, dtypes=DTYPES.values())


@pytest.mark.parametrize("tokens", [0, 1, 2, 4])
@on(*(kind for kind in KINDS if kind.axes > 2))
def test_another_number_of_tokens_than_positions_is_refused(calls: Calls, tokens: int) -> None:
    tokens += tokens == calls.kind.tokens
    count = "1 token" if tokens == 1 else f"{tokens} tokens"
    text = f"has {count}; expected {calls.kind.tokens}, the number of positions"
    q, k = (calls.new(name, tokens=tokens) for name in HEADS)
    calls.refuse("q", q, ValueError, f"q {text}", ways=BY_POSITIONS)
    calls.refuse_both(q, k, ValueError, f"q {text}", ways=BY_POSITIONS)
    calls.refuse("k", k, ValueError, f"k {text}")


@on(KINDS[2], KINDS[3])
def test_two_axes_are_one_token(calls: Calls) -> None:
    q, k = (calls.elements(heads * HEAD_DIM).reshape(heads, HEAD_DIM) for heads in HEADS.values())
    text = "q has 1 token; expected 3, the number of positions"
    calls.refuse_both(q, k, ValueError, text, ways=BY_POSITIONS)
    calls.refuse_both(q, None, ValueError, text, ways=BY_POSITIONS)


@pytest.mark.parametrize("batch", [0, 1, 3])
@batched
def test_k_of_another_batch_than_q_is_refused(calls: Calls, batch: int) -> None:
    k = calls.new("k", batch=batch)
    calls.refuse("k", k, ValueError, f"k has a batch of {batch}; expected {BATCH}, as q has")


@pytest.mark.parametrize(("batch", "expected"), [(3, 1), (1, 3), (2, 3), (0, 1), (0, 3), (3, 0)])
@batched
def test_another_batch_than_that_of_the_positions_is_refused(calls: Calls, batch: int, expected: int) -> None:
    q, k = (calls.new(name, batch=batch) for name in HEADS)
    right = calls.new("q", batch=expected)
    ways, after = per_row(expected), dataclasses.replace(calls.kind, batch=expected)
    text = f"has a batch of {batch}; expected a batch of {expected}, as the positions have"
    calls.refuse_both(q, k, ValueError, f"q {text}", ways=ways, after=after)
    calls.refuse_both(q, None, ValueError, f"q {text}", ways=ways, after=after)
    calls.refuse_both(right, k, ValueError, f"k {text}", ways=ways, after=after)


@pytest.mark.parametrize("expected", [1, 3])
@on(*KINDS[:4])
def test_positions_for_each_row_of_a_batch_need_a_batch_axis(calls: Calls, expected: int) -> None:
    after = dataclasses.replace(calls.kind, axes=4, batch=expected)
    q, k = (calls.new(name) for name in HEADS)
    text = f"q has no batch axis; expected a batch of {expected}, as the positions have"
    calls.refuse_both(q, k, ValueError, text, ways=per_row(expected), after=after)
    calls.refuse_both(q, None, ValueError, text, ways=per_row(expected), after=after)


# --- memory that cannot be rotated in place ---


@either
@every_kind
def test_a_read_only_array_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    bad = calls.new(name)
    bad.flags.writeable = False
    text = f"{name} is read-only; expected a writeable array, as it is rotated in place"
    calls.refuse(name, bad, ValueError, text)


@either
@every_kind
def test_what_broadcast_to_gives_is_refused_as_read_only(calls: Calls, name: str) -> None:
    bad = np.broadcast_to(calls.elements(HEAD_DIM), calls.kind.shape(HEADS[name]))
    text = f"{name} is read-only; expected a writeable array, as it is rotated in place"
    calls.refuse(name, bad, ValueError, text)


def refuse_stride_zero(calls: Calls, name: str, axis: str) -> None:
    x = calls.new(name)
    strides = [0 if axis == here else stride for here, stride in zip(calls.kind.names, x.strides, strict=True)]
    bad = as_strided(x, x.shape, strides)
    assert bad.flags.writeable
    text = f"{name} has stride 0 on its {axis} axis; expected memory of its own for each element"
    calls.refuse(name, bad, ValueError, text)


@either
@batched
def test_stride_0_on_the_batch_axis_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    refuse_stride_zero(calls, name, "batch")


@either
@of_many_tokens
def test_stride_0_on_the_tokens_axis_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    refuse_stride_zero(calls, name, "tokens")


@either
@every_kind
def test_stride_0_on_the_heads_axis_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    refuse_stride_zero(calls, name, "heads")


@pytest.mark.parametrize(
    ("step", "elements"), [(slice(None, None, 2), 2), (slice(None, None, -1), -1), (slice(None, None, -2), -2)]
)
@either
@every_kind
def test_a_last_axis_that_is_not_dense_is_refused_and_nothing_is_written(
    calls: Calls, name: str, step: slice, elements: int
) -> None:
    bad = calls.new(name, head_dim=HEAD_DIM * abs(elements))[..., step]
    itemsize = bad.itemsize
    text = f"{name} has stride {elements * itemsize} bytes on its last axis; expected {itemsize}, channels side by side"
    calls.refuse(name, bad, ValueError, text)


@either
@every_kind
def test_stride_0_on_the_last_axis_is_refused_and_nothing_is_written(calls: Calls, name: str) -> None:
    x = calls.new(name)
    bad = as_strided(x, x.shape, (*x.strides[:-1], 0))
    text = f"{name} has stride 0 bytes on its last axis; expected {x.itemsize}, channels side by side"
    calls.refuse(name, bad, ValueError, text)


@pytest.mark.parametrize("first", [1, "half"])
@either
@every_kind
def test_an_array_at_an_odd_address_is_refused_and_nothing_is_written(
    calls: Calls, name: str, first: int | str
) -> None:
    shape, dtype = calls.kind.shape(HEADS[name]), calls.kind.dtype
    start = dtype.itemsize // 2 if first == "half" else 1
    size = math.prod(shape) * dtype.itemsize
    bad = calls.bytes(size + 64)[start : start + size].view(dtype).reshape(shape)
    text = f"{name} is not aligned; expected every element at a multiple of its {dtype.itemsize} bytes"
    calls.refuse(name, bad, ValueError, text)


@pytest.mark.parametrize("sign", [1, -1])
@either
@every_kind
def test_strides_that_lead_to_odd_addresses_are_refused_and_nothing_is_written(
    calls: Calls, name: str, sign: int
) -> None:
    # Rows that lie one byte further apart than they are long, on each axis that has a length.
    dtype, shape = calls.kind.dtype, calls.kind.shape(HEADS[name])
    text = f"{name} is not aligned; expected every element at a multiple of its {dtype.itemsize} bytes"
    for axis in range(calls.kind.axes - 1):
        if shape[axis] == 1:
            continue
        plain = calls.new(name).strides
        strides = list(plain)
        strides[axis] = sign * (plain[axis] + 1)
        room = calls.bytes(4 * math.prod(shape) * dtype.itemsize)
        start = 0 if sign > 0 else -strides[axis] * (shape[axis] - 1) // dtype.itemsize * dtype.itemsize
        bad = as_strided(room[start:][: dtype.itemsize].view(dtype), shape, strides)
        calls.refuse(name, bad, ValueError, text)


def windows(calls: Calls, name: str, steps: Mapping[str, int]) -> Arrays:
    """Return an array over memory that it steps through by so many elements."""
    shape = calls.kind.shape(HEADS[name])
    x = np.empty(shape, calls.kind.dtype)
    strides = tuple(
        steps.get(axis, stride // x.itemsize) * x.itemsize
        for axis, stride in zip(calls.kind.names, x.strides, strict=True)
    )
    backward = -sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) // x.itemsize
    return as_strided(calls.elements(4 * x.size + backward)[backward:], shape, strides)


def refuse_overlap(calls: Calls, name: str, bad: Arrays) -> None:
    text = f"{name} has elements that overlap (strides {bad.strides}); expected memory of its own for each element"
    calls.refuse(name, bad, ValueError, text)


@pytest.mark.parametrize("step", [1, 2, HEAD_DIM - 1, -1, 1 - HEAD_DIM])
@either
@every_kind
def test_heads_that_overlap_are_refused_and_nothing_is_written(calls: Calls, name: str, step: int) -> None:
    refuse_overlap(calls, name, windows(calls, name, {"heads": step}))


@pytest.mark.parametrize("step", [1, HEAD_DIM - 1, -1])
@either
@of_many_tokens
def test_tokens_that_overlap_are_refused_and_nothing_is_written(calls: Calls, name: str, step: int) -> None:
    refuse_overlap(calls, name, windows(calls, name, {"tokens": step}))


@pytest.mark.parametrize("step", [1, HEAD_DIM, -HEAD_DIM])
@either
@batched
def test_rows_of_a_batch_that_overlap_are_refused_and_nothing_is_written(calls: Calls, name: str, step: int) -> None:
    refuse_overlap(calls, name, windows(calls, name, {"batch": step}))


@either
@of_many_tokens
def test_a_head_of_one_token_that_is_another_head_of_the_next_is_refused(calls: Calls, name: str) -> None:
    refuse_overlap(calls, name, windows(calls, name, {"heads": HEAD_DIM, "tokens": HEAD_DIM}))
    # Only the last element of a token is the first one of the next.
    refuse_overlap(calls, name, windows(calls, name, {"heads": HEAD_DIM, "tokens": HEADS[name] * HEAD_DIM - 1}))


# --- q and k that share an element ---

SHARED = "k shares memory with q; expected arrays that have no element in common"


@every_kind
def test_q_as_k_is_refused_and_nothing_is_written(calls: Calls) -> None:
    q = calls.new("q")
    for k in (q, q[...], q[..., ::-1, :], q.view(calls.kind.dtype)):
        calls.refuse_both(q, k, ValueError, SHARED)


@every_kind
def test_k_among_the_heads_of_q_is_refused_and_nothing_is_written(calls: Calls) -> None:
    q = calls.new("q")
    axis = calls.kind.names.index("heads")
    for part in (slice(0, 2), slice(3, 4), slice(None, None, 2), slice(None, None, -3)):
        k = q[(slice(None),) * axis + (part,)]
        calls.refuse_both(q, k, ValueError, SHARED)
        calls.refuse_both(k, q, ValueError, SHARED)


@pytest.mark.parametrize("shared", [1, 2, HEAD_DIM // 2, HEAD_DIM + 1])
@every_kind
def test_q_and_k_that_share_a_few_elements_are_refused_and_nothing_is_written(calls: Calls, shared: int) -> None:
    q_shape, k_shape = (calls.kind.shape(heads) for heads in HEADS.values())
    q_size, k_size = (math.prod(shape) for shape in (q_shape, k_shape))
    memory = calls.elements(q_size + k_size)
    q, k = memory[:q_size].reshape(q_shape), memory[q_size - shared :][:k_size].reshape(k_shape)
    calls.refuse_both(q, k, ValueError, SHARED)
    k, q = memory[:k_size].reshape(k_shape), memory[k_size - shared :][:q_size].reshape(q_shape)
    calls.refuse_both(q, k, ValueError, SHARED)


@of_many_tokens
def test_tokens_that_interleave_and_meet_are_refused_and_nothing_is_written(calls: Calls) -> None:
    tokens = calls.kind.tokens
    lead = (BATCH,) * (calls.kind.axes == 4)
    memory = calls.elements(math.prod(lead) * 12 * 4 * HEAD_DIM).reshape(*lead, 12, 4, HEAD_DIM)
    q = memory[..., 0 : 2 * tokens : 2, :, :]
    for first, step in ((2, 2), (0, 3), (1, 3), (4, -1), (0, 2)):
        k = memory[..., first::step, :, :][..., :tokens, :2, :]
        calls.refuse_both(calls.kind.ordered(q), calls.kind.ordered(k), ValueError, SHARED)


@batched
def test_rows_of_a_batch_that_meet_are_refused_and_nothing_is_written(calls: Calls) -> None:
    # The heads of q and of k lie side by side in the first row, and k's second row begins among the heads of q's.
    tokens, itemsize = calls.kind.tokens, calls.kind.dtype.itemsize
    memory = calls.elements(3 * tokens * 6 * HEAD_DIM)
    row = tokens * 6 * HEAD_DIM
    for nearer in (1, 2 * HEAD_DIM):
        q, k = (
            as_strided(
                memory[first * HEAD_DIM :],
                (BATCH, tokens, heads, HEAD_DIM),
                [step * itemsize for step in (step_of_row, 6 * HEAD_DIM, HEAD_DIM, 1)],
            )
            for first, heads, step_of_row in ((0, 4, row), (4, 2, row - nearer))
        )
        calls.refuse_both(calls.kind.ordered(q), calls.kind.ordered(k), ValueError, SHARED)


@every_kind
def test_channels_that_interleave_and_meet_are_refused_and_nothing_is_written(calls: Calls) -> None:
    memory = calls.new("q", head_dim=2 * HEAD_DIM)
    for first in (1, HEAD_DIM // 2, HEAD_DIM - 1):
        q, k = memory[..., :HEAD_DIM], memory[..., first : first + HEAD_DIM]
        calls.refuse_both(q, k, ValueError, SHARED)


@on(Kind("float32", 4, "thd", 5))
def test_q_and_k_that_share_memory_in_too_tangled_a_way_are_refused(calls: Calls) -> None:
    # They have 62 elements in common, which NumPy does not find in 10_000 steps.
    memory = calls.elements(20_000)
    q = as_strided(memory, (7, 5, 6, HEAD_DIM), [4 * step for step in (1252, 450, 1573, 1)])
    k = as_strided(memory[135:], (7, 5, 3, HEAD_DIM), [4 * step for step in (609, 2473, 2059, 1)])
    calls.refuse_both(q, k, ValueError, SHARED)


# --- what is refused where work would be shared out among threads ---

MANY = 1 << 13  # tokens of 4 + 2 heads x 8: as much as is rotated on several threads


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_arrays_large_enough_for_several_threads_are_refused_alike(backend: str, warm: bool) -> None:
    rng = np.random.default_rng(2)
    memory = rng.standard_normal((MANY + 1, 6, HEAD_DIM), np.float32)
    q, k = memory[:MANY, :4], memory[:MANY, 4:]
    locked, windows = k.copy(), as_strided(k, k.shape, (4 * HEAD_DIM, 4 * HEAD_DIM, 4))
    locked.flags.writeable = False
    in_bytes = rng.integers(0, 256, 4 * k.size + 1, np.uint8)
    odd = in_bytes[1:].view(np.float32).reshape(k.shape)
    everything = memory, locked, in_bytes
    before = [x.tobytes() for x in everything]
    step = rn.Rope(HEAD_DIM, backend=backend).at(offset=3, tokens=MANY)
    if warm:
        step(q.copy(), k.copy())
    assert outcome(step, q, locked).startswith("ValueError: k is read-only")
    assert outcome(step, locked, q).startswith("ValueError: q is read-only")
    assert outcome(step, q, windows).startswith("ValueError: k has elements that overlap")
    assert outcome(step, q, odd).startswith("ValueError: k is not aligned")
    assert outcome(step, q, memory[1:, 3:5]) == f"ValueError: {SHARED}"
    assert outcome(step, q, memory[:, 4:]) == (
        f"ValueError: k has {MANY + 1} tokens; expected {MANY}, the number of positions"
    )
    assert outcome(step, q, k[..., ::-1]).startswith("ValueError: k has stride -4 bytes on its last axis")
    assert outcome(step, q, k.astype(">f4")).startswith("TypeError: k.dtype is ")
    assert [x.tobytes() for x in everything] == before
    assert outcome(step, q, k) == "accepted"
    assert memory.tobytes() != before[0]


# --- what is accepted: views that only look as if they shared elements ---


def packed_shape(kind: Kind, *, heads: int, tokens: int = 1, head_dim: int = 1, batch: int = 1) -> tuple[int, ...]:
    """Return the shape of (batch, tokens, heads, head_dim), each so many times what the kind has."""
    return (BATCH * batch, kind.tokens * tokens, heads, HEAD_DIM * head_dim)[-kind.axes :]


HEADS_OF_TOKENS: dict[str, Views] = {
    "q, k, v": lambda x: (x[..., 0:4, :], x[..., 4:6, :]),
    "v, k, q": lambda x: (x[..., 4:8, :], x[..., 2:4, :]),
    "q, v, k": lambda x: (x[..., 0:4, :], x[..., 6:8, :]),
    "every other head": lambda x: (x[..., 0::2, :], x[..., 1::2, :]),
    "k between heads of q": lambda x: (x[..., 0:8:3, :], x[..., 1:2, :]),
    "k among heads of q": lambda x: (x[..., ::2, :], x[..., 1:5:2, :]),
    "q backwards": lambda x: (x[..., 3::-1, :], x[..., 4:6, :]),
    "both backwards, interleaved": lambda x: (x[..., ::-2, :], x[..., -2::-2, :]),
}


@pytest.mark.parametrize("views", list(HEADS_OF_TOKENS.values()), ids=list(HEADS_OF_TOKENS))
@every_kind
def test_views_of_packed_heads_are_rotated_as_copies_are(calls: Calls, views: Views) -> None:
    calls.accept(packed_shape(calls.kind, heads=8), views)


CHANNELS: dict[str, Views] = {
    "halves": lambda x: (x[..., :HEAD_DIM], x[..., HEAD_DIM : 2 * HEAD_DIM]),
    "halves, k first": lambda x: (x[..., HEAD_DIM : 2 * HEAD_DIM], x[..., :HEAD_DIM]),
    "a gap": lambda x: (x[..., 1 : HEAD_DIM + 1], x[..., 2 * HEAD_DIM : 3 * HEAD_DIM]),
    "k with some heads": lambda x: (x[..., :HEAD_DIM], x[..., 1:3, HEAD_DIM : 2 * HEAD_DIM]),
    "k backwards": lambda x: (x[..., :HEAD_DIM], x[..., ::-1, HEAD_DIM : 2 * HEAD_DIM]),
}


@pytest.mark.parametrize("views", list(CHANNELS.values()), ids=list(CHANNELS))
@every_kind
def test_views_of_packed_channels_are_rotated_as_copies_are(calls: Calls, views: Views) -> None:
    calls.accept(packed_shape(calls.kind, heads=4, head_dim=3), views)


TOKENS: dict[str, Views] = {
    "every other token": lambda x: (x[..., 0::2, :, :], x[..., 1::2, :, :]),
    "every other token, k first": lambda x: (x[..., 1::2, :, :], x[..., 0::2, :, :]),
    "every other token, some heads": lambda x: (x[..., 0::2, 1:, :], x[..., 1::2, :2, :]),
    "k backwards": lambda x: (x[..., 0::2, :, :], x[..., ::-2, :, :]),
    "one behind the other": lambda x: (x[..., : x.shape[-3] // 2, :, :], x[..., x.shape[-3] // 2 :, :, :]),
}


@pytest.mark.parametrize("views", list(TOKENS.values()), ids=list(TOKENS))
@on(*(kind for kind in KINDS if kind.axes > 2))
def test_views_of_packed_tokens_are_rotated_as_copies_are(calls: Calls, views: Views) -> None:
    calls.accept(packed_shape(calls.kind, heads=4, tokens=2), views)


ROWS: dict[str, Views] = {
    "every other row": lambda x: (x[0::2], x[1::2]),
    "k backwards": lambda x: (x[0::2], x[::-2]),
    "one behind the other": lambda x: (x[:BATCH], x[BATCH:]),
}


@pytest.mark.parametrize("views", list(ROWS.values()), ids=list(ROWS))
@batched
def test_views_of_packed_rows_of_a_batch_are_rotated_as_copies_are(calls: Calls, views: Views) -> None:
    calls.accept(packed_shape(calls.kind, heads=4, batch=2), views)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
@batched
def test_axes_may_lie_in_memory_in_any_order(calls: Calls, axes: tuple[int, int, int]) -> None:
    lengths = (BATCH, calls.kind.tokens, 6)  # batch, tokens, heads
    back = np.argsort(axes).tolist()

    def views(x: Arrays) -> tuple[Arrays, Arrays]:
        x = x.transpose(*back, 3)
        return x[:, :, :4], x[:, :, 4:]

    calls.accept((*(lengths[axis] for axis in axes), HEAD_DIM), views)


@of_many_tokens
def test_heads_of_a_token_may_lie_between_those_of_the_next(calls: Calls) -> None:
    # Token t has the rows t, t + 3, t + 6, ...: neither axis steps over the other.
    tokens, itemsize = calls.kind.tokens, calls.kind.dtype.itemsize
    row = HEAD_DIM * itemsize

    def views(x: Arrays) -> tuple[Arrays, Arrays]:
        def of(first: int, heads: int) -> Arrays:
            shape = (BATCH, tokens, heads, HEAD_DIM)[-calls.kind.axes :]
            strides = (8 * tokens * row, row, tokens * row, itemsize)[-calls.kind.axes :]
            return as_strided(x[first * HEAD_DIM :], shape, strides)

        return of(0, 4), of(4 * tokens, 2)

    calls.accept((BATCH * 8 * tokens * HEAD_DIM,), views)


@pytest.mark.parametrize("stride", [0, 3, -5, 1 << 40])
@every_kind
def test_the_stride_of_an_axis_of_length_1_does_not_matter(calls: Calls, stride: int) -> None:
    def views(x: Arrays) -> tuple[Arrays, Arrays]:
        q, k = x[..., :4, :], x[..., 4:5, :]
        odd = [
            as_strided(y, y.shape, [stride if n == 1 else s for n, s in zip(y.shape, y.strides, strict=True)])
            for y in (q, k)
        ]
        return odd[0], odd[1]

    calls.accept(packed_shape(calls.kind, heads=8), views)


@pytest.mark.parametrize(
    "remake",
    [
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: x.astype(x.dtype.newbyteorder("S")).astype(x.dtype.newbyteorder("=")),
        lambda x: x.astype(np.dtype(x.dtype, metadata={"from": "a file"})),
    ],
    ids=["unpickled", "byte order put right", "metadata"],
)
@on(*(kind for kind in KINDS if kind.dtype_name != "bfloat16"))
def test_another_dtype_object_that_is_equal_is_as_good(calls: Calls, remake: Callable[[Arrays], Arrays]) -> None:
    outcomes = {}
    for way, make in WAYS.items():
        call = make(calls.settings, calls.kind.tokens)
        for turn in ("cold", "warm"):
            q, k = good(calls.kind)
            for pair in ((remake(q), remake(k)), (remake(q), k.copy()), (q.copy(), remake(k)), (remake(q),)):
                assert all(x.dtype == calls.kind.dtype for x in pair)
                outcomes[f"{way}, {turn}"] = outcome(call, *pair)
                if outcomes[f"{way}, {turn}"] != "accepted":
                    break
                rotated = [x.tobytes() for x in pair]
                assert rotated == good_rotated(calls.kind, make)[: len(pair)], way
    assert set(outcomes.values()) == {"accepted"}, outcomes


@pytest.mark.parametrize("without", ["heads in q", "heads in k", "heads", "rows"])
@every_kind
def test_arrays_without_heads_or_rows_are_accepted(calls: Calls, without: str) -> None:
    if without == "rows" and calls.kind.axes == 4:
        calls.kind = dataclasses.replace(calls.kind, batch=0)
    sizes = {name: {"heads": 0} if without in ("heads", f"heads in {name}") else {} for name in HEADS}
    for way, make in WAYS.items():
        call = make(calls.settings, calls.kind.tokens)
        for _ in ("cold", "warm"):
            q, k = (calls.new(name, **sizes[name]) for name in HEADS)
            apart = [x.copy() for x in (q, k)]
            for x in apart:
                make(calls.settings, calls.kind.tokens)(x)
            given_back = call(q, k)
            assert given_back[0] is q, way
            assert given_back[1] is k, way
            assert [q.tobytes(), k.tobytes()] == [x.tobytes() for x in apart], way
            assert call(q) is q, way


@on(*(kind for kind in KINDS if kind.axes > 2))
def test_arrays_without_tokens_are_accepted(calls: Calls) -> None:
    ways: dict[str, Way] = {
        "rope(positions)": lambda s, _: functools.partial(rope_of(s), positions=np.zeros(0, int)),
        "rope(offset)": lambda s, _: functools.partial(rope_of(s), offset=5),
        "rope(negative offset)": lambda s, _: functools.partial(rope_of(s), offset=-5),
        "rope(far offset)": lambda s, _: functools.partial(rope_of(s), offset=10**9),
        "rope.inverse": lambda s, _: functools.partial(rope_of(s).inverse, offset=5),
        "rope.at(positions)": lambda s, _: rope_of(s).at(positions=np.zeros(0, np.uint8)),
        "rope.at(offset)": lambda s, _: rope_of(s).at(offset=5, tokens=0),
        "apply_rope": lambda s, _: one_shot(s, offset=5),
    }
    for way, make in ways.items():
        call = make(calls.settings, 0)
        for _ in ("cold", "warm"):
            q, k = (calls.new(name, tokens=0) for name in HEADS)
            given_back = call(q, k)
            assert given_back[0] is q, way
            assert given_back[1] is k, way
            assert call(q) is q, way


# --- making a Rope ---

FREQUENCIES = rn.Frequencies([1.0, 0.1])
NOT_A_NUMBER = "expected a number above 0"
BELOW = "expected a finite number above 0"
EVEN = "expected an even number of channels, 2 or more"
NOT_IN_HEAD = "expected them to lie in head_dim, 8"

REFUSED_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"head_dim": 7}, ValueError, "head_dim is 7; expected an even number, or rotary_dim to be given"),
    *(
        ({"head_dim": n}, ValueError, f"head_dim is {n}; expected 2 to 1048575 channels")
        for n in (-2, 0, 1, 1 << 20, 1 << 80)
    ),
    *(({"head_dim": x}, TypeError, f"head_dim is {x!r}; expected an int") for x in (8.0, "8", None, True, np.True_)),
    *(({"rotary_dim": n}, ValueError, f"rotary_dim is {n}; {EVEN}") for n in (-2, 0, 1, 3, 7)),
    *(({"rotary_dim": x}, TypeError, f"rotary_dim is {x!r}; expected an int") for x in (4.0, "4", True, [4])),
    ({"rotary_dim": 10}, ValueError, f"rotary_offset is 0 and rotary_dim 10; {NOT_IN_HEAD}"),
    ({"rotary_offset": -1}, ValueError, f"rotary_offset is -1 and rotary_dim 8; {NOT_IN_HEAD}"),
    ({"rotary_offset": 1}, ValueError, f"rotary_offset is 1 and rotary_dim 8; {NOT_IN_HEAD}"),
    ({"rotary_offset": 5, "rotary_dim": 4}, ValueError, f"rotary_offset is 5 and rotary_dim 4; {NOT_IN_HEAD}"),
    ({"rotary_offset": -2, "rotary_dim": 4}, ValueError, f"rotary_offset is -2 and rotary_dim 4; {NOT_IN_HEAD}"),
    *(({"rotary_offset": x}, TypeError, f"rotary_offset is {x!r}; expected an int") for x in (0.0, "0", None, False)),
    *(({"theta": x}, ValueError, f"theta is {float(x)}; {BELOW}") for x in (0, 0.0, -1, -0.5)),
    *(({"theta": float(x)}, ValueError, f"theta is {x}; {BELOW}") for x in ("nan", "inf", "-inf")),
    ({"theta": 10**400}, ValueError, f"theta is inf; {BELOW}"),
    ({"theta": 1}, ValueError, "theta is 1.0; expected another number above 0, as all pairs would turn alike"),
    *(({"theta": x}, TypeError, f"theta is {x!r}; {NOT_A_NUMBER}") for x in (True, np.True_, "1e4", None, 1j, [1e4])),
    *(
        ({name: value}, ValueError, f"{name} is {value!r}; expected {choices}")
        for name, values, choices in (
            ("layout", ("Half", "halves", "neo", "", None, 0), "'interleaved' or 'half'"),
            ("order", ("bthd", "THD", "", None, 1), "'thd' or 'htd'"),
            ("backend", ("cuda", "Numba", "", None), "'numba' or 'numpy'"),
        )
        for value in values
    ),
    ({"max_position": 0}, ValueError, "max_position is 0; expected 1 or more, or None"),
    ({"max_position": -5}, ValueError, "max_position is -5; expected 1 or more, or None"),
    *(({"max_position": x}, TypeError, f"max_position is {x!r}; expected an int") for x in (16.0, "16", True)),
    *(
        ({"frequencies": x}, TypeError, f"frequencies is {x!r}; expected a rope_numba.Frequencies")
        for x in ([1.0, 0.1], 1.0, "yarn", {"rope_type": "yarn"}, rn.Frequencies)
    ),
    (
        {"frequencies": FREQUENCIES, "theta": 5e5},
        ValueError,
        "theta is 500000.0; expected it left out where frequencies are given",
    ),
    (
        {"frequencies": FREQUENCIES, "rotary_dim": 8},
        ValueError,
        "rotary_dim is 8; expected 4, twice the number of frequencies",
    ),
    ({"frequencies": FREQUENCIES, "rotary_dim": 4.0}, TypeError, "rotary_dim is 4.0; expected an int"),
    (
        {"frequencies": FREQUENCIES, "rotary_offset": 6},
        ValueError,
        f"rotary_offset is 6 and rotary_dim 4; {NOT_IN_HEAD}",
    ),
]


@pytest.mark.parametrize(("settings", "error", "text"), REFUSED_SETTINGS, ids=lambda value: str(value)[:60])
def test_a_rope_of_wrong_settings_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    assert outcome(lambda: rn.Rope(**{"head_dim": HEAD_DIM, **settings})) == f"{error.__name__}: {text}"


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [refused for refused in REFUSED_SETTINGS if "head_dim" not in refused[0]],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("axes", [2, 3])
def test_the_one_shot_form_refuses_wrong_settings_alike_and_writes_nothing(
    settings: dict[str, Any], error: type[Exception], text: str, axes: int
) -> None:
    q, k = np.ones((2, HEAD_DIM)[-axes:], np.float32), np.ones((1, HEAD_DIM)[-axes:], np.float32)
    call = functools.partial(rn.apply_rope, q, k, offset=3, **settings)
    assert outcome(call) == f"{error.__name__}: {text}"
    assert (q == 1).all()
    assert (k == 1).all()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"rotary_dim": 4}, {"rotary_dim": 4.0}),
        ({"rotary_dim": 4, "rotary_offset": 1}, {"rotary_dim": 4, "rotary_offset": True}),
        ({"rotary_dim": 4, "rotary_offset": 2}, {"rotary_dim": 4, "rotary_offset": 2.0}),
        ({"max_position": 100}, {"max_position": 100.0}),
    ],
)
def test_the_one_shot_form_refuses_settings_that_only_equal_those_of_a_call_before(
    good: dict[str, Any], bad: dict[str, Any]
) -> None:
    q = np.ones((2, HEAD_DIM), np.float32)
    rn.apply_rope(q, offset=3, **good)
    before = q.tobytes()
    name = list(bad)[-1]
    expected = f"TypeError: {name} is {bad[name]!r}; expected an int"
    assert outcome(functools.partial(rn.apply_rope, q, offset=3, **bad)) == expected
    assert q.tobytes() == before


LONG = np.linspace(1.0, 0.5, 64)  # NumPy prints it on many lines


@pytest.mark.parametrize("name", ["head_dim", "theta", "rotary_dim", "rotary_offset", "max_position", "frequencies"])
def test_an_array_as_a_setting_is_refused_in_one_line(name: str) -> None:
    refused = outcome(lambda: rn.Rope(**{"head_dim": HEAD_DIM, name: LONG}))
    assert refused.startswith(f"TypeError: {name} is ")
    assert "; expected a" in refused
    assert "\n" not in refused


@pytest.mark.parametrize("name", ["layout", "order", "backend"])
def test_an_array_as_a_choice_is_refused_in_one_line(name: str) -> None:
    refused = outcome(lambda: rn.Rope(HEAD_DIM, **{name: np.array(["half", "thd", "numba"])}))
    assert f"Error: {name} is " in refused
    assert "; expected '" in refused
    assert "\n" not in refused


def test_an_array_as_theta_beside_frequencies_is_refused_in_one_line() -> None:
    refused = outcome(lambda: rn.Rope(HEAD_DIM, theta=LONG, frequencies=FREQUENCIES))  # type: ignore[arg-type]
    assert "Error: theta is " in refused
    assert "\n" not in refused


def test_the_smallest_theta_is_refused_or_taken_but_never_a_math_range_error() -> None:
    smallest = 5e-324
    refused = outcome(lambda: rn.Rope(128, theta=smallest))
    assert refused == "accepted" or refused.startswith("ValueError: theta is 5e-324; expected ")


def test_more_frequencies_than_a_head_has_pairs_are_refused_by_their_name() -> None:
    refused = outcome(lambda: rn.Rope(HEAD_DIM, frequencies=rn.Frequencies([1.0] * 8)))
    assert refused.startswith("ValueError: ")
    assert "frequencies" in refused
    assert "head_dim, 8" in refused


@pytest.mark.parametrize("value", [0, "half", None])
@pytest.mark.parametrize(
    "name",
    [
        *("head_dim", "rotary_dim", "rotary_offset", "layout", "order", "frequencies", "max_position", "backend"),
        *("theta", "positions", "_told", "_tables"),
    ],
)
def test_a_rope_cannot_be_changed(name: str, value: object) -> None:
    rope = rn.Rope(HEAD_DIM)
    before = repr(rope), hash(rope)
    changed = outcome(lambda: setattr(rope, name, value))
    assert changed == f"AttributeError: a Rope cannot be changed; make another one to have another {name}"
    assert outcome(lambda: delattr(rope, name)) == f"AttributeError: a Rope cannot be changed; {name} stays"
    assert (repr(rope), hash(rope)) == before
    assert rope == rn.Rope(HEAD_DIM)


# --- frequencies ---


@pytest.mark.parametrize(
    ("inv_freq", "error", "text"),
    [
        ([], ValueError, "inv_freq has shape (0,); expected one number for each pair"),
        (1.0, ValueError, "inv_freq has shape (); expected one number for each pair"),
        ([[1.0, 0.1]], ValueError, "inv_freq has shape (1, 2); expected one number for each pair"),
        (np.ones((2, 0)), ValueError, "inv_freq has shape (2, 0); expected one number for each pair"),
        ([1.0, float("nan")], ValueError, "inv_freq holds nan; expected finite numbers"),
        ([1.0, float("inf")], ValueError, "inv_freq holds inf; expected finite numbers"),
        ([-float("inf")], ValueError, "inv_freq holds -inf; expected finite numbers"),
        ([1j], TypeError, "inv_freq has dtype complex128; expected real numbers"),
        ([True], TypeError, "inv_freq has dtype bool; expected real numbers"),
        (["1.0"], TypeError, "inv_freq has dtype <U3; expected real numbers"),
        ("default", TypeError, "inv_freq has dtype <U7; expected real numbers"),
        (None, TypeError, "inv_freq has dtype object; expected real numbers"),
        ([1.0, None], TypeError, "inv_freq has dtype object; expected real numbers"),
    ],
    ids=str,
)
def test_wrong_frequencies_are_refused(inv_freq: Any, error: type[Exception], text: str) -> None:
    assert outcome(lambda: rn.Frequencies(inv_freq)) == f"{error.__name__}: {text}"


def test_frequencies_of_unequal_length_are_refused_by_name() -> None:
    refused = outcome(lambda: rn.Frequencies([[1.0], [0.1, 0.01]]))  # type: ignore[list-item]
    assert refused.startswith(("ValueError: inv_freq ", "TypeError: inv_freq "))
    assert "expected" in refused


@pytest.mark.parametrize(
    ("factor", "error", "text"),
    [
        *((x, ValueError, f"attention_factor is {float(x)}; {BELOW}") for x in (0, 0.0, -0.0, -1, -0.5)),
        *((float(x), ValueError, f"attention_factor is {x}; {BELOW}") for x in ("nan", "inf", "-inf")),
        (10**400, ValueError, f"attention_factor is inf; {BELOW}"),
        *((x, TypeError, f"attention_factor is {x!r}; {NOT_A_NUMBER}") for x in ("1.0", True, None, 1j, [1.0])),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_attention_factor_is_refused(factor: Any, error: type[Exception], text: str) -> None:
    assert outcome(lambda: rn.Frequencies([1.0], factor)) == f"{error.__name__}: {text}"


def test_frequencies_cannot_be_changed() -> None:
    given = np.array([1.0, 0.1])
    frequencies = rn.Frequencies(given)
    given[:] = 7.0
    assert frequencies == FREQUENCIES
    for name in ("inv_freq", "attention_factor"):
        assert "cannot assign to field" in outcome(lambda name=name: setattr(frequencies, name, 1.0))
    with pytest.raises(ValueError, match="read-only"):
        frequencies.inv_freq[0] = 7.0
    assert frequencies == FREQUENCIES


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        *(((n,), ValueError, f"rotary_dim is {n}; {EVEN}") for n in (-2, 0, 1, 7)),
        *(((x,), TypeError, f"rotary_dim is {x!r}; expected an int") for x in (8.0, "8", None, True)),
        *(((8, x), ValueError, f"theta is {float(x)}; {BELOW}") for x in (0, -1)),
        ((8, 1.0), ValueError, "theta is 1.0; expected another number above 0, as all pairs would turn alike"),
        *(((8, x), TypeError, f"theta is {x!r}; {NOT_A_NUMBER}") for x in ("1e4", None, True)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_default_scheme_refuses_wrong_arguments(
    arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    assert outcome(rn.frequencies.default, *arguments) == f"{error.__name__}: {text}"


# --- tables, the rotation in NumPy, and a machine without Numba ---


@pytest.mark.parametrize(
    ("n", "error", "text"),
    [
        (-1, ValueError, "n is -1; expected 0 or more"),
        *((x, TypeError, f"n is {x!r}; expected an int") for x in (1.5, 4.0, "4", None, True)),
    ],
)
def test_tables_of_a_wrong_number_of_positions_are_refused(n: Any, error: type[Exception], text: str) -> None:
    assert outcome(rn.Rope(HEAD_DIM).tables, n) == f"{error.__name__}: {text}"


@pytest.mark.parametrize(("n", "bound"), [(17, "max_position, 16"), (2**53 + 2, "2**53")])
def test_tables_that_reach_too_far_are_refused_by_the_name_of_their_argument(n: int, bound: str) -> None:
    rope = rn.Rope(HEAD_DIM, max_position=16 if n == 17 else None)
    refused = outcome(rope.tables, n)
    assert refused.startswith("ValueError: n ")
    assert bound in refused


def test_tables_are_read_only() -> None:
    for table in rn.Rope(HEAD_DIM, max_position=16).tables(16):
        assert table.shape == (16, HEAD_DIM // 2)
        before = table.tobytes()
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 7.0
        assert table.tobytes() == before


@pytest.mark.parametrize(
    ("x", "options", "error", "text"),
    [
        ([[[1.0, 0.0]]], {}, TypeError, f"x is a list; expected a NumPy array of {TYPES}"),
        (np.ones((1, 1, 2), int), {}, TypeError, f"x.dtype is {np.dtype(int)}; expected {TYPES}"),
        (
            np.ones((1, 1, 2)).view(Mine),
            {},
            TypeError,
            "x is a Mine; expected a plain numpy.ndarray (or numpy.memmap)",
        ),
        (
            np.ones((1, 1, 2)),
            {"layout": "neox"},
            ValueError,
            "layout is 'neox'; expected 'interleaved' or 'half'",
        ),
        (
            np.ones((1, 1, 1)),
            {},
            ValueError,
            "cos has 1 pair; from channel 0 it does not fit in the 1 channel of x",
        ),
        (
            np.ones((1, 1, 4)),
            {"rotary_offset": 3},
            ValueError,
            "cos has 1 pair; from channel 3 it does not fit in the 4 channels of x",
        ),
        (
            np.ones((1, 1, 4)),
            {"rotary_offset": -1},
            ValueError,
            "cos has 1 pair; from channel -1 it does not fit in the 4 channels of x",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_rotation_in_numpy_refuses_what_it_cannot_rotate(
    x: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    cos, sin = np.array([[0.6]]), np.array([[0.8]])
    before = np.array(x).tobytes()
    assert outcome(lambda: rn.reference.rotate(x, cos, sin, **options)) == f"{error.__name__}: {text}"
    assert np.array(x).tobytes() == before


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import numpy as np
import rope_numba as rn
q = np.ones((1, 2, 8), np.float32)
try:
    rn.Rope(8)(q, offset=3)
except ImportError as error:
    print(type(error).__name__, error, (q == 1).all(), sep="|")
rn.Rope(8, backend="numpy")(q, offset=3)
print((q == 1).all())
"""


def test_without_numba_the_error_names_the_other_backend_and_nothing_is_written() -> None:
    root = Path(rn.__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], cwd=root, capture_output=True, text=True, check=True)
    refused, rotated = run.stdout.splitlines()
    kind, text, untouched = refused.split("|")
    assert kind == "ImportError"
    assert text.startswith("backend is 'numba', which cannot be imported (")
    assert text.endswith("); expected it installed, or backend='numpy'")
    assert untouched == "True"
    assert rotated == "False"
