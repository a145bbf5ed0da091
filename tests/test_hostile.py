"""Calls with anything at all: each is right, to the bit, or refused by name with every byte as it was.

A call is made of a string of bytes, which hypothesis draws and shrinks: each byte decides one thing, and a byte of 0
takes what is plainest. `HYPOTHESIS_PROFILE=hostile` draws a hundred thousand calls; the default is a few hundred.
What must come out is computed here, apart from the package: which calls are right by looking at every byte that an
array covers, and the rotation from the formula, in float32 with one rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import ml_dtypes
import mpmath
import numpy as np
import oracle
from decisions import Choices
from hypothesis import strategies as st
from numpy.typing import NDArray

import rope_numba as rn

Arrays = NDArray[Any]

CALLS = max(400, hypothesis.settings.default.max_examples)
BYTES = 96  # that a call is made of
AT_ONCE = 4  # calls for each example: hypothesis itself takes as long for an example as a call does
FARTHEST = 2**53
OURS: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f64": np.dtype(np.float64),
}
CONVERSIONS = [("f32", "f16"), ("f32", "bf16"), ("f16", "f32"), ("bf16", "f32")]
FOREIGN: list[np.dtype[Any]] = [
    *(np.dtype(t) for t in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "c8", "c16", "g", "S2", "U1", "V2")),
    *(np.dtype(t) for t in (">f2", ">f4", ">f8", "M8[s]", "m8[ns]", ml_dtypes.float8_e4m3fn, ml_dtypes.int4)),
    np.dtype([("real", "<f4"), ("imag", "<f4")]),
    np.dtype([("bits", "<f2")]),
    np.dtype(ml_dtypes.bfloat16).newbyteorder("S"),
    np.dtype(object),
]


class Mine(np.ndarray):
    """A user's own subclass."""


class Tensor:
    """Like a tensor of another library, which NumPy could take."""

    dtype, shape, ndim, strides = np.dtype(np.float32), (1, 2, 8), 3, (64, 32, 4)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Arrays:
        return np.ones(self.shape, self.dtype)


class Index:
    """A whole number by `__index__` alone."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


NOT_ARRAYS: list[Any] = [
    *(None, [[[1.0] * 8]], 1, 1.5, True, "q", b"q", np.float32(1), memoryview(bytes(64)), Tensor(), np.ndarray, {}),
    *(Unprintable(), type("", (), {})(), type("two\nlines", (), {})(), np.ma.masked, range(8), 10**5000, np.nan),
]


# --- memory, and arrays over it ---

NOISE = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
GUARD = 64  # bytes before and behind what any array covers


@dataclasses.dataclass(frozen=True)
class Placed:
    """An array over some memory: where each element lies."""

    memory: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def over(self, memories: list[Arrays]) -> Arrays:
        return np.ndarray(self.shape, self.dtype, memories[self.memory].data, self.offset, self.strides)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @functools.cached_property
    def covered(self) -> Arrays:
        """The place of each byte of each element."""
        places = np.array(self.offset)
        for length, stride in zip((*self.shape, self.dtype.itemsize), (*self.strides, 1), strict=True):
            places = places[..., None] + stride * np.arange(length)
        return places.reshape(-1)

    def overlaps_itself(self) -> bool:
        return self.size > 0 and int(np.bincount(self.covered).max()) > 1

    def shares(self, other: Placed) -> bool:
        if self.memory != other.memory or not self.size or not other.size:
            return False
        return bool(np.isin(self.covered, other.covered).any())

    def same_place(self, other: Placed) -> bool:
        mine, its = ([s for n, s in zip(p.shape, p.strides, strict=True) if n > 1] for p in (self, other))
        where = (self.memory, self.offset, self.dtype) == (other.memory, other.offset, other.dtype)
        return where and self.shape == other.shape and mine == its

    def aligned(self) -> bool:
        steps = [s for n, s in zip(self.shape, self.strides, strict=True) if n > 1]
        return all(s % self.dtype.itemsize == 0 for s in (self.offset, *steps))


@dataclasses.dataclass
class Given:
    """An argument that is to be an array: the object, and where it lies if it is one over our memory."""

    thing: Any = dataclasses.field(repr=False)
    placed: Placed | None = None
    plain: bool = False  # an ndarray or a memmap
    writeable: bool = True


class World:
    """The memory of one call, before and after."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.memories: list[Arrays] = []
        self.parents: list[Placed] = []

    def new_memory(self, size: int) -> int:
        room = np.empty(size + 2 * GUARD + 64, np.uint8)
        first = -room.ctypes.data % 64
        memory = room[first : first + size + 2 * GUARD]
        start = 251 * (self.choices.below(256) + 1)
        memory[...] = np.resize(NOISE[start : start + 60_000], memory.size)
        self.memories.append(memory)
        return len(self.memories) - 1

    def place(self, shape: tuple[int, ...], dtype: np.dtype[Any], flawed: bool) -> Placed:
        """Lay an array out over memory of its own, or over that of an array before it."""
        choices = self.choices
        inner = list(range(len(shape) - 1))
        if choices.rarely(3):
            inner = inner[::-1]
        if choices.rarely(6) and len(inner) > 2:
            inner = [inner[1], inner[0], *inner[2:]]
        strides, step = [0] * len(shape), dtype.itemsize
        for axis in [len(shape) - 1] * bool(shape) + inner[::-1]:
            strides[axis] = step
            gap = choices.pick([0, 0, 0, 0, 1, 4, 16]) * dtype.itemsize
            step = step * max(shape[axis], 1) + gap
            if axis != len(shape) - 1 and choices.rarely(5):
                strides[axis] = -strides[axis]
        start = 0
        if flawed and shape:
            axis = choices.below(len(shape))
            kind = choices.below(6)
            if kind == 0:
                start = choices.pick([1, dtype.itemsize // 2])
            elif kind == 1:
                strides[axis] = 0
            elif kind == 2:
                strides[axis] = strides[axis] // 2 // dtype.itemsize * dtype.itemsize
            elif kind == 3:
                strides[axis] += choices.pick([1, dtype.itemsize // 2])
            elif kind == 4:
                strides[axis] = choices.pick([-1, 1, 2, -2, 3]) * dtype.itemsize
            else:
                strides[-1] = choices.pick([-1, 2, 0, -2]) * dtype.itemsize
        reaches = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if 0 not in shape else [0]
        below, above = -sum(min(r, 0) for r in reaches), sum(max(r, 0) for r in reaches) + dtype.itemsize
        memory = -1
        if self.memories and choices.rarely(4):  # among the elements of another array
            memory = choices.below(len(self.memories))
            room = self.memories[memory].size - below - above - start
            steps = room // dtype.itemsize
            if steps > 0:
                start += (choices.below(256) * 256 + choices.below(256)) % steps * dtype.itemsize
            else:
                memory = -1
        if memory < 0:
            memory, start = self.new_memory(below + above + start), start + GUARD
        return Placed(memory, start + below, shape, tuple(strides), dtype)

    def packed(self, shapes: list[tuple[int, ...]], axis: int, dtype: np.dtype[Any]) -> list[Placed]:
        """Lay arrays out as slices of one, side by side along an axis."""
        extra = self.choices.below(3)
        whole = list(shapes[0])
        whole[axis] = sum(shape[axis] for shape in shapes) + extra
        parent = self.place(tuple(whole), dtype, flawed=False)
        slices, first = [], self.choices.below(extra + 1)
        for shape in shapes:
            offset = parent.offset + (first * parent.strides[axis] if parent.size and math.prod(shape) else 0)
            slices.append(Placed(parent.memory, offset, shape, parent.strides, dtype))
            first += shape[axis]
        return slices

    def give(self, placed: Placed, hostile: bool) -> Given:
        """Return what is passed for an array."""
        choices, kind = self.choices, 0
        view = placed.over(self.memories)
        if hostile:
            kind = choices.below(7)
        elif choices.rarely(12):
            kind = 1
        if kind == 1:
            return Given(view.view(np.memmap), placed, plain=True)
        if kind == 2:
            view.flags.writeable = False
            return Given(view, placed, plain=True, writeable=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of np.matrix itself, and of what it fills a masked array with
            if kind == 3:
                return Given(np.ma.MaskedArray(view, copy=False), placed)
            if kind == 4:
                return Given(view.view(np.matrix if view.ndim == 2 else Mine), placed)
        if kind == 5:
            return Given(view.view(np.recarray) if choices.below(2) else np.zeros(view.shape).tolist(), placed)
        if kind == 6:
            return Given(choices.pick(NOT_ARRAYS))
        return Given(view, placed, plain=True)


# --- the rotation, from the formula ---


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a Rope whose head_dim is known."""

    head_dim: int
    rotary_dim: int
    rotary_offset: int
    layout: str
    layout_out: str
    order: str
    theta: float
    factor: float
    max_position: int | None
    backend: str

    def inv_freq(self) -> list[float]:
        return oracle.inv_freq(self.rotary_dim, self.theta)

    def keywords(self) -> dict[str, Any]:
        names = ("layout", "layout_out", "order", "rotary_offset", "max_position", "backend")
        keywords = {name: getattr(self, name) for name in names}
        if self.factor != 1.0:
            return {**keywords, "frequencies": rn.Frequencies(self.inv_freq(), self.factor)}
        return {**keywords, "theta": self.theta, "rotary_dim": self.rotary_dim}

    def members(self, layout: str) -> tuple[Arrays, Arrays]:
        """Return the lower and the higher channels of all pairs."""
        pairs = np.arange(self.rotary_dim // 2)
        if layout == "interleaved":
            return self.rotary_offset + 2 * pairs, self.rotary_offset + 2 * pairs + 1
        return self.rotary_offset + pairs, self.rotary_offset + pairs + len(pairs)


@functools.cache
def rope_of(settings: Settings) -> rn.Rope:
    return rn.Rope(settings.head_dim, **settings.keywords())


@functools.lru_cache(1 << 16)
def exactly(angle: float, factor: float) -> tuple[float, float]:
    """Return an angle's cosine and sine times a factor, each rounded once."""
    with mpmath.workprec(200):
        return float(mpmath.cos(angle) * factor), float(mpmath.sin(angle) * factor)


def rows_of(settings: Settings, positions: Arrays, way: str, double: bool) -> tuple[Arrays, Arrays]:
    """Return cosines and sines of (batch, tokens) positions, each rounded once from more digits than float64 has."""
    angles = positions.astype(np.float64)[..., None] * np.array(settings.inv_freq())
    factor = {"shift": 1.0, "inverse": 1.0 / settings.factor}.get(way, settings.factor)
    if double:
        cos, sin = np.moveaxis(
            np.array([exactly(angle, factor) for angle in angles.flat]).reshape(*angles.shape, 2), -1, 0
        )
    else:
        wide = angles.astype(np.longdouble)
        cos, sin = ((row * factor).astype(np.float32) for row in (np.cos(wide), np.sin(wide)))
    return cos, -sin if way == "inverse" else sin


def rotated(settings: Settings, way: str, x: Arrays, cos: Arrays, sin: Arrays, target: np.dtype[Any]) -> Arrays:
    """Return (batch, tokens, heads, head_dim) rotated: widened, turned, rounded once to the target."""
    c, s = cos[:, :, None, :], sin[:, :, None, :]
    read, written = settings.layout, settings.layout_out
    if way in ("inverse", "shift"):  # of what has been rotated
        read, written = settings.layout_out, settings.layout if way == "inverse" else settings.layout_out
    low, high = settings.members(read)
    with np.errstate(all="ignore"):
        wide = x.astype(c.dtype)
        a, b = wide[..., low], wide[..., high]
        result = x.astype(target)
        low, high = settings.members(written)
        result[..., low], result[..., high] = (a * c - b * s).astype(target), (a * s + b * c).astype(target)
    return result


def as_four(x: Arrays, order: str) -> Arrays:
    if x.ndim == 2:
        return x[None, None]
    x = x.swapaxes(-2, -3) if order == "htd" else x
    return x if x.ndim == 4 else x[None]


def settle(expected: list[Arrays], actual: list[Arrays], placed: Placed, values: Arrays) -> None:
    """Write what is expected of an array, and the actual bits of a NaN where a NaN is expected."""
    values, there = values.copy(), placed.over(actual)
    bits = np.dtype(f"u{placed.dtype.itemsize}")
    with np.errstate(all="ignore"):  # a signalling NaN raises a flag where it is widened
        nan = np.isnan(values.astype(np.float64)) & np.isnan(there.astype(np.float64))
    values.view(bits)[nan] = there.copy().view(bits)[nan]
    dataclasses.replace(placed, dtype=bits).over(expected)[...] = values.view(bits)


# --- positions of every kind ---


@dataclasses.dataclass(repr=False)
class Where:
    """Positions as they are passed, and what they mean; None if they cannot be taken."""

    keywords: dict[str, Any]
    name: str  # of the argument
    meaning: Callable[[int], Arrays] | None  # for so many tokens: (tokens,), (batch, tokens), or () for one for all

    def __repr__(self) -> str:
        try:
            return f"{self.keywords!r:.200}"
        except Exception:
            return f"{self.name} that cannot be shown"


def some_place(choices: Choices, tokens: int) -> int:
    near_end = FARTHEST - max(tokens - 1, 0)
    places = [0, 5, 1, -3, 63, 2**31, 2**40 + 7, -(2**33), near_end, -FARTHEST, 10**6, 200]
    return choices.pick(places) if choices.rarely(3) else choices.below(200)


WRONG_NUMBERS: list[Any] = [
    *(1.0, 0.5, math.nan, math.inf, -0.0, True, False, np.True_, np.float32(3), 1j, "3", b"3", "", {}, {3}, object()),
    *(2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30, 10**5000, -(10**5000)),
    *(np.uint64(2**63 + 5), np.uint64(2**64 - 1), np.int64(-(2**63)), np.datetime64("2026-01-01"), np.timedelta64(3)),
    *(Unprintable(), type("", (), {})(), np.ma.masked, np.array(1.5), np.array("3"), Index(2**70), int, Ellipsis),
    *(
        np.ma.MaskedArray(3, mask=True),
        np.array([[1.0]]),
        np.array(3.5, object),
        np.array([[3]]).view(Mine),
        range(0, 9, 2),
        None,
    ),
]
NOT_NUMBERS = [wrong for wrong in WRONG_NUMBERS if not isinstance(wrong, range)]


def some_positions(choices: Choices, tokens: int, batch: int | None) -> tuple[Any, Arrays | None]:
    """Return positions as something that NumPy can read, and what they mean."""
    by_row = batch is not None and choices.rarely(3)
    shape = (batch or 0, tokens) if by_row else (tokens,)
    values = np.array([some_place(choices, 1) for _ in range(math.prod(shape))], np.int64).reshape(shape)
    if choices.rarely(3):
        values[...] = choices.below(200) + np.arange(tokens)
    kind = choices.below(12)
    if kind == 1:
        return values.tolist(), values if values.size or not by_row else np.empty(np.shape(values.tolist()), np.int64)
    if kind == 2:
        return tuple(map(int, values.reshape(-1))), values.reshape(-1)
    if kind == 3:
        return values.astype(">i8"), values
    if kind == 4:
        values = values % 120
        return values.astype(choices.pick(["i1", "u1", "i2", "u2", "i4", "u4", "u8"])), values
    if kind == 5:
        return np.repeat(values, 2, axis=-1)[..., ::2], values
    if kind == 6 and tokens == 1 and not by_row:
        return choices.pick([int(values[0]), values[0], values[0].reshape(())]), values
    if kind == 7 and not by_row:
        first = choices.below(100)
        return range(first, first + tokens), first + np.arange(tokens)
    if kind == 8:
        return wrong_positions(choices, values), None
    if kind == 9:
        odd = np.empty(values.nbytes + 1, np.uint8)[1:].view(np.int64).reshape(shape)
        odd[...] = values
        return odd, values
    if kind == 10:
        mapped = values.view(np.memmap)
        mapped.flags.writeable = False
        return mapped, values
    return values, values


def wrong_positions(choices: Choices, values: Arrays) -> Any:
    kind = choices.below(10)
    if kind == 0 and values.size:
        spoilt = values.reshape(-1).tolist()
        spoilt[choices.below(len(spoilt))] = choices.pick(NOT_NUMBERS)
        return spoilt
    if kind == 1:
        return values.astype(choices.pick(["f4", "f8", "?", "c8", "O", "S9", "M8[s]", ml_dtypes.bfloat16, "m8[s]"]))
    if kind == 2:
        return np.ma.MaskedArray(values) if choices.below(2) else values.view(Mine)
    if kind == 3:
        return values.reshape((1, 1, *values.shape))[..., None]
    if kind == 4:
        return [[3, 4], [5]]
    if kind == 5:
        return [np.ma.MaskedArray(values, mask=True)]
    if kind == 6 and values.size:
        return np.full(values.shape, choices.pick([2**63 + 3, 2**64 - 1, 2**53 + 1]), np.uint64)
    if kind == 7 and values.size:
        return np.full(values.shape, choices.pick([-(2**63), 2**63 - 1, -(2**53) - 1]))
    spoilt_itself: list[Any] = []
    spoilt_itself.append(spoilt_itself)
    return choices.pick([spoilt_itself, [[[[[3]]]]], [None], {"positions": 3}, iter([3]), Tensor()])


def some_where(choices: Choices, tokens: int, batch: int | None) -> Where:
    """Return positions, or an offset, for so many tokens."""
    if choices.rarely(20):
        both = choices.pick([{"positions": None, "offset": None}, {"positions": [1], "offset": 2}])
        return Where(both, "positions", None)
    if choices.below(2):
        given, meaning = some_positions(choices, tokens, batch)
        return Where({"positions": given}, "positions", None if meaning is None else lambda _: meaning)
    first = some_place(choices, tokens)
    kind = choices.below(10)
    if kind == 1 and batch is not None:
        starts = np.array([some_place(choices, tokens) for _ in range(batch)], np.int64)
        rows = choices.pick([starts, starts.tolist(), tuple(starts.tolist()), starts.astype(">i8")])
        return Where({"offset": rows}, "offset", lambda count: starts[:, None] + np.arange(count))
    if kind == 2:
        wrong = choices.pick([[[1], [2, 3]], [1.5], [True], [[1]] * 3, [2**63], [None], *WRONG_NUMBERS[:-1]])
        return Where({"offset": wrong}, "offset", None)
    scalar = choices.pick([first, first, np.int64(first), Index(first), np.array(first)])
    return Where({"offset": scalar}, "offset", lambda count: first + np.arange(count))


def some_delta(choices: Choices, tokens: int, batch: int | None) -> Where:
    """Return by how much keys are moved."""
    if choices.rarely(8):
        return Where({"delta": choices.pick(NOT_NUMBERS)}, "delta", None)
    if choices.below(2):
        given, meaning = some_positions(choices, tokens, batch)
        if meaning is not None and not isinstance(given, (list, tuple, range)) and np.ndim(given) == 0:
            meaning = meaning[0]
        return Where({"delta": given}, "delta", None if meaning is None else lambda _: meaning)
    delta = some_place(choices, 1)
    scalar = choices.pick([delta, delta, np.int64(delta), np.array(delta)])
    return Where({"delta": scalar}, "delta", lambda _: np.array(delta))


# --- calls ---


@dataclasses.dataclass(repr=False)
class Call:
    """A call of a Rope: what is passed, and what it means."""

    way: str
    settings: Settings
    fresh: bool  # on a Rope that nothing has called
    inputs: dict[str, Given]
    outs: list[Given | None]  # for each input; None in place
    out: Any = dataclasses.field(repr=False)
    where: Where
    tokens: int  # as they are said to Rope.at

    def __repr__(self) -> str:
        """Say all but the things themselves: not all of them can be printed."""
        parts = [f"{name}={x!r}" for name, x in self.inputs.items()]
        parts += [f"{name}={x!r}" for name, x in zip(self.out_names(), self.outs, strict=True)]
        return f"{self.way}({', '.join(parts)}, {self.where!r}), {self.settings!r}, {self.tokens=}, {self.fresh=}"

    def faults(self) -> set[str]:
        """Return the arguments that stand in the way; none if the call has to be carried out."""
        names = {self.where.name} if self.where.meaning is None else set()
        settings = self.settings
        first = next(iter(self.inputs.values()))
        if self.way == "apply_rope" and first.placed and first.placed.shape:
            head_dim = first.placed.shape[-1]
            if head_dim < 2 or settings.rotary_offset + settings.rotary_dim > head_dim:
                names |= {"head_dim", "rotary_offset", "frequencies", "q"}
            self.settings = settings = dataclasses.replace(settings, head_dim=head_dim)
        if self.out is WRONG_OUT:
            names.add("out")
        for (name, x), out in zip(self.inputs.items(), self.outs, strict=True):
            if not fits(x, settings, written=out is None):
                names.add(name)
            if x.placed and first.placed and (code_of(x), x.placed.ndim) != (code_of(first), first.placed.ndim):
                names.add(name)
        for name, out in zip(self.out_names(), self.outs, strict=True):
            if out is not None and not fits(out, settings, written=True):
                names.add(name)
        for other in (self.faults_in_counts, self.faults_in_memory):
            names |= other()
        return names

    def out_names(self) -> list[str]:
        return ["out"] if len(self.inputs) == 1 else ["out[0]", "out[1]"]

    def ends(self) -> list[tuple[str, Given, str, Given]]:
        """Return, of each input: its name, itself, the name of where it goes, where it goes."""
        return [
            (name, x, out_name, x if out is None else out)
            for (name, x), out_name, out in zip(self.inputs.items(), self.out_names(), self.outs, strict=True)
        ]

    def faults_in_counts(self) -> set[str]:
        """Return the arguments whose tokens, batches or storages do not go together."""
        names: set[str] = set()
        sizes = {
            name: as_four(np.empty(x.placed.shape, "?"), self.settings.order).shape[:2]
            for name, x in self.inputs.items()
            if x.placed and 2 <= x.placed.ndim <= 4
        }
        batch, tokens = next(iter(sizes.values()), (1, self.tokens))
        if next(iter(self.inputs)) not in sizes:  # what counts tokens is wrong itself, so either may be named
            names.add(self.where.name)
        positions = np.array(0)
        if self.where.meaning is not None:
            positions = self.where.meaning(self.tokens if self.way == "at" else tokens)
        bound = None if self.way == "shift" else self.settings.max_position
        if positions.size and int(positions.max()) >= (FARTHEST + 1 if bound is None else bound):
            names.add(self.where.name)
        for name, x, out_name, target in self.ends():
            if name in sizes:
                wanted = tokens if positions.ndim == 0 else positions.shape[-1]
                rows = batch if positions.ndim < 2 else positions.shape[0]
                per_row = positions.ndim == 2 and x.placed is not None and x.placed.ndim < 4
                if sizes[name] != (rows, wanted) or sizes[name][0] != batch or per_row:
                    names.add(name)
            pair = code_of(x), code_of(target)
            if x.placed and target.placed and target.placed.shape != x.placed.shape:
                names.add(out_name)
            if pair[0] != pair[1] and pair not in CONVERSIONS:
                names.add(out_name)
        return names

    def faults_in_memory(self) -> set[str]:
        """Return the arguments that share memory."""
        names: set[str] = set()
        for i, (name, x, out_name, target) in enumerate(self.ends()):
            if x.placed is None or target.placed is None:
                continue
            if not x.placed.same_place(target.placed) and x.placed.shares(target.placed):
                names |= {name, out_name}
            for j, (other, source, other_out, other_target) in enumerate(self.ends()):
                if i != j and any(o.placed and target.placed.shares(o.placed) for o in (source, other_target)):
                    names |= {name, out_name, other, other_out}
        return names

    def run(self) -> Any:
        settings, where = self.settings, self.where.keywords
        things = [x.thing for x in self.inputs.values()]
        out = {} if self.out is None else {"out": self.out}
        if self.out is WRONG_OUT:
            out = {"out": (Unprintable(),)}
        if self.way == "apply_rope":
            return rn.apply_rope(*things, **where, **out, **settings.keywords())
        rope = rn.Rope(settings.head_dim, **settings.keywords()) if self.fresh else rope_of(settings)
        if self.way == "at":
            return rope.at(**where, **({} if where.get("offset") is None else {"tokens": self.tokens}))(*things, **out)
        if self.way == "shift":
            return rope.shift(*things, **where, **out)
        return (rope.inverse if self.way == "inverse" else rope)(*things, **where, **out)

    def expect(self, before: list[Arrays], after: list[Arrays]) -> list[Arrays]:
        """Return the memory as the formula has it."""
        expected = [memory.copy() for memory in before]
        for x, out in zip(self.inputs.values(), self.outs, strict=True):
            target = x if out is None else out
            assert x.placed is not None
            assert target.placed is not None
            source_type, target_type = OURS[code_of(x)], OURS[code_of(target)]
            values = as_four(dataclasses.replace(x.placed, dtype=source_type).over(before), self.settings.order)
            positions = self.where.meaning(values.shape[1])  # type: ignore[misc]
            grid = np.broadcast_to(positions, values.shape[:2]) if positions.ndim < 2 else positions
            cos, sin = rows_of(self.settings, grid, self.way, source_type == np.float64)
            turned = rotated(self.settings, self.way, values, cos, sin, target_type)
            turned = turned.swapaxes(1, 2) if self.settings.order == "htd" and x.placed.ndim > 2 else turned
            placed = dataclasses.replace(target.placed, dtype=target_type)
            settle(expected, after, placed, np.ascontiguousarray(turned).reshape(placed.shape))
        return expected


WRONG_OUT = object()


def code_of(given: Given) -> str:
    """Return the storage of an array, "" if it is none of ours."""
    dtype = given.placed.dtype if given.placed else None
    if dtype == [("bfloat16", np.uint16)]:
        return "bf16"
    return next((code for code, ours in OURS.items() if dtype == ours), "")


def fits(given: Given, settings: Settings, *, written: bool) -> bool:
    """Tell whether an array can be taken, seen by itself."""
    placed = given.placed
    if not given.plain or placed is None or not code_of(given) or not 2 <= placed.ndim <= 4:
        return False
    if placed.shape[-1] != settings.head_dim or (written and not given.writeable):
        return False
    if placed.size and (placed.strides[-1] != placed.dtype.itemsize or not placed.aligned()):
        return False
    return not (written and placed.overlaps_itself())


def some_settings(choices: Choices) -> Settings:
    head_dim, rotary_dim, rotary_offset = choices.pick(
        [(8, 8, 0), (8, 4, 2), (2, 2, 0), (64, 64, 0), (7, 4, 1), (40, 38, 2), (134, 130, 3), (24, 22, 0)]
    )
    layout = choices.pick(["interleaved", "half"])
    return Settings(
        head_dim,
        rotary_dim,
        rotary_offset,
        layout,
        choices.pick([layout, layout, "interleaved", "half"]),
        choices.pick(["thd", "htd"]),
        choices.pick([10_000.0, 5e5]),
        choices.pick([1.0, 1.0, 1.1386294361119891, 0.5]),
        choices.pick([None, None, None, 150]),
        choices.pick(["numpy", "numba", "numba"]),
    )


def some_call(choices: Choices) -> tuple[Call, World]:
    world, settings = World(choices), some_settings(choices)
    way = choices.pick(["rope", "at", "inverse", "shift", "apply_rope"])
    axes = choices.pick([3, 4, 2])
    tokens = 1 if axes == 2 else choices.pick([1, 2, 3, 5, 1, 0, 9])
    batch = choices.pick([2, 1, 3, 0]) if axes == 4 else None
    dtype = OURS[choices.pick(list(OURS))]
    hostile = choices.below(3) == 2

    def shape_of(heads: int) -> tuple[int, ...]:
        sizes = {"batch": batch or 0, "tokens": tokens, "heads": heads, "head_dim": settings.head_dim}
        if hostile and choices.rarely(6):
            sizes[choices.pick(list(sizes))] += choices.pick([1, -1]) if 0 not in sizes.values() else 1
        order = ("tokens", "heads") if settings.order == "thd" else ("heads", "tokens")
        shape = tuple(sizes[name] for name in ("batch", *order, "head_dim"))[-axes:]
        if axes == 2:
            shape = (heads, sizes["head_dim"])
        if hostile and choices.rarely(10):
            return choices.pick([(), shape[1:], (1, *shape), shape[-1:]])
        return shape

    def type_of() -> np.dtype[Any]:
        if hostile and choices.rarely(6):
            return choices.pick([*FOREIGN, *OURS.values()])
        return np.dtype([("bfloat16", np.uint16)]) if dtype == OURS["bf16"] and choices.rarely(4) else dtype

    def new(placed: Placed | None, shape: tuple[int, ...], kind: np.dtype[Any]) -> Given:
        if kind.hasobject:
            return Given(np.full(shape, 1.0, object))
        placed = placed or world.place(shape, kind, flawed=hostile and choices.rarely(3))
        return world.give(placed, hostile and choices.rarely(4))

    heads = [choices.pick([2, 1, 3, 4, 0, 7]), choices.pick([1, 2, 0, 3])]
    names = ["k"] if way == "shift" else ["q", "k"][: 1 + min(choices.below(3), 1)]
    shapes = [shape_of(count) for count in heads[: len(names)]]
    types = [type_of() for _ in names]
    places: list[Placed | None] = [None] * len(names)
    if len(names) == 2 and choices.rarely(3) and len({len(shape) for shape in shapes}) == 1 and len(shapes[0]) > 1:
        axis = -3 if settings.order == "htd" and len(shapes[0]) > 2 else -2
        others = [tuple(n for i, n in enumerate(shape) if i != len(shape) + axis) for shape in shapes]
        if others[0] == others[1] and types[0] == types[1] and not types[0].hasobject:
            places = list(world.packed(shapes, axis, types[0]))
    inputs = {n: new(*given) for n, *given in zip(names, places, shapes, types, strict=True)}
    if hostile and len(names) == 2 and choices.rarely(12):
        inputs["k"] = inputs["q"]
    outs: list[Given | None] = [None] * len(names)
    if "k" in inputs and inputs["k"].thing is None and len(names) == 2:
        del inputs["k"]
        outs.pop()
    out: Any = None
    if choices.rarely(4):
        for i, x in enumerate(inputs.values()):
            if x.placed is None or choices.rarely(4):
                continue
            conversions = [x.placed.dtype, *(OURS[to] for of, to in CONVERSIONS if of == code_of(x))]
            kind = choices.pick(conversions) if not hostile or choices.below(4) else type_of()
            shape = shape_of(heads[i]) if hostile and choices.rarely(6) else x.placed.shape
            outs[i] = x if choices.rarely(5) else new(None, shape, kind)
            if outs[i] is not None and outs[i].thing is None:  # type: ignore[union-attr]
                outs[i] = None
        things = [None if o is None else o.thing for o in outs]
        out = things[0] if len(things) == 1 else choices.pick([tuple, list])(things)
        if hostile and choices.rarely(8):
            out = WRONG_OUT
    where = (some_delta if way == "shift" else some_where)(choices, tokens, batch)
    fresh = choices.rarely(4)
    return Call(way, settings, fresh, inputs, outs, out, where, tokens), world


def outcome(call: Callable[[], Any], names: set[str]) -> Any:
    """Return what a call returns if nothing stands in its way; else see that it is refused by one of the names."""
    text = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            result = call()
        except (TypeError, ValueError) as error:
            text, result = str(error), None
    if not text:
        assert not names, f"taken, though there is something wrong with {names}"
        return result
    assert names, f"refused: {text!r}"
    assert text.isprintable(), f"not one line: {text!r}"
    assert "expected " in text, text
    assert len(text) < 400, text
    assert any(text.startswith((f"{n} ", f"{n}.", f"{n}[", f"{n},")) for n in names), f"{text!r} names none of {names}"
    return None


def check(call: Call, world: World) -> None:
    before = [memory.copy() for memory in world.memories]
    names = call.faults()
    result = outcome(call.run, names)
    expected = before if names else call.expect(before, world.memories)
    for wanted, memory in zip(expected, world.memories, strict=True):
        assert wanted.tobytes() == memory.tobytes()
    if not names:
        things = [x.thing if o is None else o.thing for x, o in zip(call.inputs.values(), call.outs, strict=True)]
        assert [id(r) for r in (result if len(things) == 2 else [result])] == [id(thing) for thing in things]


@hypothesis.settings(max_examples=CALLS // AT_ONCE)
@hypothesis.given(st.binary(min_size=AT_ONCE * BYTES, max_size=AT_ONCE * BYTES))
def test_any_call_of_a_rope_is_right_to_the_bit_or_refused_by_name_with_every_byte_as_it_was(data: bytes) -> None:
    for first in range(0, len(data), BYTES):
        call, world = some_call(Choices(data[first : first + BYTES]))
        try:
            check(call, world)
        except Exception:
            hypothesis.note(repr(call))
            raise


# --- the kernel itself, tables, ragged batches ---

KERNELS: dict[str, tuple[Callable[..., None], tuple[str, ...], str]] = {
    "rotate_interleaved": (rn.rotate_interleaved, ("f32", "f64"), "interleaved"),
    "rotate_half_split": (rn.rotate_half_split, ("f32", "f64"), "half"),
    "rotate_interleaved_f16": (rn.rotate_interleaved_f16, ("f16",), "interleaved"),
    "rotate_half_split_f16": (rn.rotate_half_split_f16, ("f16",), "half"),
    "rotate_interleaved_bf16": (rn.rotate_interleaved_bf16, ("bf16",), "interleaved"),
    "rotate_half_split_bf16": (rn.rotate_half_split_bf16, ("bf16",), "half"),
}


@hypothesis.settings(max_examples=CALLS // 10 + 60)
@hypothesis.given(st.binary(min_size=80, max_size=80))
def test_any_call_of_the_kernel_itself_is_right_to_the_bit_or_refused_by_name(data: bytes) -> None:
    choices = Choices(data)
    world = World(choices)
    kernel, storages, layout = KERNELS[choices.pick(list(KERNELS))]
    storage, hostile = choices.pick(storages), choices.below(3) == 2
    tokens, heads, pairs = choices.pick([1, 2, 3, 0, 5]), choices.pick([1, 2, 4, 0]), choices.pick([4, 1, 32, 0, 19])
    head_dim = 2 * pairs + choices.pick([0, 1, 6])
    table = OURS["f64" if storage == "f64" else "f32"]
    number = OURS[storage] if storage in ("f32", "f64") else np.dtype(np.uint16)
    arguments: dict[str, Given] = {}
    for name, shape, dtype in (
        ("x", (tokens, heads, head_dim), number),
        ("cos", (tokens, pairs), table),
        ("sin", (tokens, pairs), table),
    ):
        if hostile and choices.rarely(8):
            shape = choices.pick([shape[1:], (1, *shape), tuple(n + 1 for n in shape), (*shape[:-1], shape[-1] + 1)])
        if hostile and choices.rarely(8):
            dtype = choices.pick([*FOREIGN, *OURS.values()])
        if dtype.hasobject:
            arguments[name] = Given(np.full(shape, 1.0, object))
        else:
            placed = world.place(shape, dtype, flawed=hostile and choices.rarely(3))
            arguments[name] = world.give(placed, hostile and choices.rarely(4))
    before = [memory.copy() for memory in world.memories]
    x, cos, sin = (given.placed for given in arguments.values())
    names = {name for name, given in arguments.items() if not given.plain}
    right_types = {"x": number if len(storages) == 1 else None, "cos": table, "sin": table}
    for name, wanted in right_types.items():
        placed = arguments[name].placed
        if placed and placed.dtype not in ([wanted] if wanted else [OURS["f32"], OURS["f64"]]):
            names.add(name)
    if x and cos and sin:
        if x.dtype.itemsize == 8 or cos.dtype.itemsize == 8 or sin.dtype.itemsize == 8:
            names |= {n for n, p in (("cos", cos), ("sin", sin)) if p.dtype.itemsize != max(x.dtype.itemsize, 4)}
        if x.ndim != 3 or cos.ndim != 2 or sin.shape != cos.shape:
            names |= {"x", "cos", "sin"}
        elif cos.shape[0] != x.shape[0] or 2 * cos.shape[1] > x.shape[2]:
            names.add("cos")
        if not arguments["x"].writeable or (x.size and (x.strides[-1] != x.dtype.itemsize or not x.aligned())):
            names.add("x")
        if x.size and cos.size and x.overlaps_itself():
            names.add("x")
    try:
        outcome(lambda: kernel(*(given.thing for given in arguments.values())), names)
        expected = before
        if not names and x and cos and sin and x.size and cos.size:
            wide = (x if storage in ("f32", "f64") else dataclasses.replace(x, dtype=OURS[storage])).over(before)
            pairs = cos.shape[1]
            one_layout = Settings(x.shape[2], 2 * pairs, 0, layout, layout, "thd", 1e4, 1.0, None, "")
            c, s = cos.over(before)[None], sin.over(before)[None]
            turned = rotated(one_layout, "rope", wide[None], c, s, wide.dtype)[0]
            expected = [memory.copy() for memory in before]
            settle(expected, world.memories, dataclasses.replace(x, dtype=wide.dtype), turned)
        for wanted_bytes, memory in zip(expected, world.memories, strict=True):
            assert wanted_bytes.tobytes() == memory.tobytes()
    except Exception:
        hypothesis.note(f"{kernel.__name__}({arguments})")
        raise


@hypothesis.settings(max_examples=CALLS // 10 + 60)
@hypothesis.given(st.binary(min_size=24, max_size=24))
def test_any_number_of_rows_is_right_to_the_bit_or_refused_by_name(data: bytes) -> None:
    choices = Choices(data)
    settings = some_settings(choices)
    count = choices.pick([3, 0, 1, 64, 65, 150, 151, 1000])
    n: Any = choices.pick([count, np.int64(count)])
    wrong = choices.rarely(3)
    if wrong:
        n = choices.pick([w for w in WRONG_NUMBERS if w is not None or choices.below(2)])
    hypothesis.assume(not (isinstance(n, int) and n == FARTHEST + 1))  # taken, but no memory holds so many rows
    bound = FARTHEST if settings.max_position is None else settings.max_position
    if not wrong or isinstance(n, int):
        wrong = isinstance(n, bool) or not 0 <= n <= bound
    rope = rope_of(settings)
    rows = outcome(lambda: rope.tables(n), {"n"} if wrong else set())
    if not wrong:
        for got, wanted in zip(rows, rows_of(settings, np.arange(count), "rope", double=False), strict=True):
            assert got.tobytes() == wanted.tobytes()
            assert not got.flags.writeable


@hypothesis.settings(max_examples=CALLS // 10 + 60)
@hypothesis.given(st.binary(min_size=48, max_size=48))
def test_any_ragged_batch_is_counted_right_or_refused_by_name(data: bytes) -> None:
    choices = Choices(data)
    lengths = [choices.pick([2, 1, 0, 5, 70]) for _ in range(choices.below(5))]
    bounds = [0, *np.cumsum(lengths, dtype=np.int64).tolist()]
    starts = [some_place(choices, 100) for _ in lengths]
    given: Any = choices.pick([bounds, tuple(bounds), np.array(bounds), np.array(bounds, ">i8")])
    offset: Any = choices.pick([0, starts, tuple(starts), np.array(starts, np.int64), starts[0] if starts else 7])
    names = set()
    if choices.rarely(3):
        kind = choices.below(4)
        if kind == 0:
            given, names = (
                choices.pick([*NOT_NUMBERS, [], [[0, 1]], [0, 2, 1], [1], [0, True], [0, 2**63]]),
                {"cu_seqlens"},
            )
        elif kind == 1:
            offset, names = choices.pick([[[1]], [1.0], [2**54], [2**63], [True], *NOT_NUMBERS]), {"offset"}
        elif kind == 2:
            given, names = wrong_positions(choices, np.array(bounds)), {"cu_seqlens"}
        else:
            offset, names = [*starts, 1], {"offset"}
    got = outcome(lambda: rn.ragged_positions(given, offset), names)
    if not names:
        firsts = [offset] * len(lengths) if isinstance(offset, int) else list(offset)
        wanted = [int(first) + i for first, length in zip(firsts, lengths, strict=True) for i in range(length)]
        assert got.dtype == np.int64
        assert got.tolist() == wanted
