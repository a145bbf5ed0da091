"""`out=`: rotated from one array into another, of other strides and another type, rounded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, ORDERS, assert_same_bits, bits, needs_jit, normal, record_launches
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_fallback import WITHOUT_NUMBA, run

import rope_numba as rn

Array = NDArray[Any]

BACKENDS = ("numba", "numpy")
PAIRS = [
    ("float32", "float32"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
]


@dataclasses.dataclass
class Place:
    """Memory, and which part of it is an array of the four axes batch, tokens, heads and head_dim."""

    memory: Array
    view: Callable[[Array], Array]

    @property
    def array(self) -> Array:
        return self.view(self.memory)

    def copy(self) -> Place:
        return Place(self.memory.copy(), self.view)

    def outside(self) -> Array:
        """Return the bits of all memory that is not the array's."""
        mine = np.zeros(self.memory.shape, bool)
        self.view(mine)[...] = True
        return bits(self.memory)[~mine]


# How an array may lie in memory: the shape of what holds it, and the part of that.
Arrangement = Callable[[int, int, int, int], tuple[tuple[int, ...], Callable[[Array], Array]]]
ARRANGEMENTS: dict[str, Arrangement] = {
    "contiguous": lambda b, t, h, d: ((b, t, h, d), lambda x: x),
    "reversed": lambda b, t, h, d: ((b, t, h, d), lambda x: x[:, ::-1, ::-1]),
    "every second head": lambda b, t, h, d: ((b, t, 2 * h, d), lambda x: x[:, :, 1::2]),
    "heads outside tokens": lambda b, t, h, d: ((b, h, t, d), lambda x: x.swapaxes(1, 2)),
    "tokens outside the batch": lambda b, t, h, d: ((t, b, h, d), lambda x: x.swapaxes(0, 1)),
    "a slice of a cache": lambda b, t, h, d: ((b, t + 5, h, d), lambda x: x[:, 3 : 3 + t]),
    "channels of wider heads": lambda b, t, h, d: ((b, t, h, d + 6), lambda x: x[..., 2 : 2 + d]),
}


def anything(rng: np.random.Generator, size: int, dtype: str) -> Array:
    """Return numbers of all sizes, with infinities, NaNs, zeros and subnormals among them."""
    values = rng.standard_normal(size)
    wild = rng.random(size) < 0.2
    values[wild] *= 10.0 ** rng.integers(-45, 38, int(wild.sum()))
    special = rng.random(size) < 0.03
    values[special] = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0], int(special.sum()))
    with np.errstate(all="ignore"):
        return values.astype(DTYPES[dtype])


def place(rng: np.random.Generator, shape: tuple[int, int, int, int], dtype: str, how: str, start: int) -> Place:
    whole, part = ARRANGEMENTS[how](*shape)
    memory = anything(rng, start + int(np.prod(whole)), dtype)
    return Place(memory, lambda flat: part(flat[start:].reshape(whole)))


def rotated(rope: rn.Rope, x: Array, target: str, method: str = "__call__", **where: Any) -> Array:
    """Return what `out=` has to hold: x widened, rotated in place by NumPy, and rounded once."""
    settings_ = {name: getattr(rope, name) for name in ("rotary_offset", "layout", "order", "frequencies")}
    plain = rn.Rope(rope.head_dim, **settings_, backend="numpy")
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32, order="C")
        getattr(plain, method)(wide, **where)
        return wide.astype(DTYPES[target])


def ordered(x: Array, rank: int, order: str) -> Array:
    """Return an array of four axes with as many as asked, in the order of the rope."""
    x = x.swapaxes(1, 2) if order == "htd" and rank > 2 else x
    return x if rank == 4 else x[0] if rank == 3 else x[0, 0]


@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_out_is_rotated_in_float32_and_rounded_once(source: str, target: str, layout: str, data: st.DataObject) -> None:
    draw = data.draw
    order, rank = draw(st.sampled_from(ORDERS)), draw(st.sampled_from([2, 3, 4, 4]))
    batch = draw(st.integers(1, 3)) if rank == 4 else 1
    tokens, heads = draw(st.integers(1, 20)) if rank > 2 else 1, draw(st.integers(1, 7))
    pairs = draw(st.integers(1, 24) | st.sampled_from([32, 40, 64, 129]))
    before, behind = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    shape = (batch, tokens, heads, before + 2 * pairs + behind)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hows, starts = st.sampled_from(list(ARRANGEMENTS)), st.integers(0, 15)
    x = place(rng, shape, source, draw(hows), draw(starts))
    out = place(rng, shape, target, draw(hows), draw(starts))
    factor = draw(st.sampled_from([1.0, 1.1902380714238083, 0.7]))
    frequencies = rn.Frequencies(rn.frequencies.default(2 * pairs).inv_freq, factor)
    method = draw(st.sampled_from(["__call__", "inverse", "shift"]))
    where: dict[str, Any]
    if draw(st.booleans()):
        where = {"offset": draw(st.integers(-5000, 5000))}
    else:
        per_row = rank == 4 and draw(st.booleans())
        where = {"positions": rng.integers(-(2**20), 2**20, (batch, tokens) if per_row else (tokens,))}
    if method == "shift":
        where = {"delta": next(iter(where.values()))}
    own = {"frequencies": frequencies, "rotary_offset": before, "layout": layout, "order": order}
    input_before, outside = bits(x.memory).copy(), out.outside()
    for backend in BACKENDS:
        rope = rn.Rope(shape[-1], **own, backend=backend)
        expected = rotated(rope, ordered(x.array, rank, order).copy(), target, method, **where)
        written = out.copy()
        given_out = ordered(written.array, rank, order)
        got = getattr(rope, method)(ordered(x.array, rank, order), **where, out=given_out)
        assert got is given_out
        assert_same_bits(given_out, expected)
        assert np.array_equal(written.outside(), outside)
        assert np.array_equal(bits(x.memory), input_before)
        if source == target:  # channels outside the rotary block are the same bits, those of NaNs too
            for others in (slice(0, before), slice(before + 2 * pairs, None)):
                assert np.array_equal(bits(written.array[..., others]), bits(x.array[..., others]))


def every_number(source: str, target: str) -> Array:
    """Return all numbers of the 16-bit type there is, or what lies between two of them and next to there."""
    sixteen = source if source != "float32" else target
    with np.errstate(all="ignore"):
        known = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[sixteen])
        if source == sixteen:
            return known
        middle = known.astype(np.float32).view(np.uint32) + np.uint32(1 << (15 if target == "bfloat16" else 12))
        around = [middle + np.uint32(step) for step in (0, 1, 0xFFFFFFFF)]
        return np.concatenate(around).view(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair[0] != pair[1]])
def test_every_number_is_rounded_to_nearest_even_and_every_nan_stays_one(source: str, target: str, layout: str) -> None:
    numbers = every_number(source, target)
    if source == "float32":  # the largest NaNs would carry into another number, the smallest would lose what they are
        nans = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FBFFFFF] * 2, np.uint32).view(np.float32)
        numbers = np.concatenate([numbers, np.repeat(nans, 4)])
    # One rotated pair of zeros, behind it the numbers as they are; and the numbers as pairs, with and without a turn.
    beside = np.zeros((numbers.size // 8, 1, 10), DTYPES[source])
    beside[..., 2:] = numbers[: numbers.size // 8 * 8].reshape(-1, 1, 8)
    for x, rotary_dim in ((beside, 2), (numbers[: numbers.size // 8 * 8].reshape(-1, 1, 8), 8)):
        for position in (0, 3):
            where = {"positions": np.full(x.shape[0], position)}
            rope = rn.Rope(x.shape[-1], rotary_dim=rotary_dim, layout=layout)
            out = rope(x, **where, out=np.zeros(x.shape, DTYPES[target]))
            with np.errstate(all="ignore"):  # the comparison widens signalling NaNs
                assert_same_bits(out, rotated(rope, x, target, **where))
                assert np.isnan(out.astype(np.float64)).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ORDERS)
def test_q_is_rotated_in_place_while_k_goes_into_a_slice_of_a_bfloat16_cache(order: str, backend: str) -> None:
    rope = rn.Rope(64, layout="half", order=order, backend=backend)
    q, k = normal((2, 5, 4, 64)), normal((2, 5, 2, 64), seed=1)
    cache = normal((2, 40, 2, 64), "bfloat16", seed=2)
    if order == "htd":
        q, k, cache = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, cache))
    expected_q = rotated(rope, q, "float32", offset=11)
    expected_cache, k_before = cache.copy(), k.copy()
    slots = (slice(None), slice(11, 16)) if order == "thd" else (slice(None), slice(None), slice(11, 16))
    expected_cache[slots] = rotated(rope, k, "bfloat16", offset=11)
    written = cache[slots]
    back = rope(q, k, offset=11, out=(None, written))
    assert back[0] is q
    assert back[1] is written
    assert_same_bits(q, expected_q)
    assert_same_bits(cache, expected_cache)
    assert_same_bits(k, k_before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_call_takes_out(backend: str) -> None:
    rope = rn.Rope(64, layout="half", frequencies=rn.Frequencies([1.0, 0.1, 0.03], 1.25), backend=backend)
    q, k = normal((3, 4, 64)), normal((3, 2, 64), seed=1)
    for way in (
        lambda out: rope(q, k, offset=5, out=out),
        lambda out: rope(q, k, positions=[5, 6, 7], out=out),
        lambda out: rope.at(offset=5, tokens=3)(q, k, out=out),
        lambda out: rn.apply_rope(
            q, k, offset=5, layout="half", frequencies=rope.frequencies, backend=backend, out=out
        ),
    ):
        out = np.empty((3, 4, 64), np.float16), np.empty((3, 2, 64), np.float16)
        back = way(out)
        assert back[0] is out[0]
        assert back[1] is out[1]
        for x, written in zip((q, k), out, strict=True):
            assert_same_bits(written, rotated(rope, x, "float16", offset=5))
    out = np.empty((3, 4, 64), np.float16), np.empty((3, 2, 64), np.float16)
    rope.inverse(q, k, offset=5, out=out)
    for x, written in zip((q, k), out, strict=True):
        assert_same_bits(written, rotated(rope, x, "float16", "inverse", offset=5))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_out_may_be_the_input_itself(dtype: str, backend: str) -> None:
    rope = rn.Rope(64, layout="half", backend=backend)
    expected = rotated(rope, normal((3, 4, 64), dtype), dtype, offset=9)
    q = normal((3, 4, 64), dtype)
    assert rope(q, offset=9, out=q) is q
    assert_same_bits(q, expected)
    q = normal((3, 4, 64), dtype)
    view = q[...]
    assert rope(q, offset=9, out=view) is view
    assert_same_bits(q, expected)
    q, k = normal((3, 4, 64), dtype), normal((3, 4, 64), dtype)
    rope(q, k, offset=9, out=(q, None))
    assert_same_bits(q, expected)
    assert_same_bits(k, expected)
    rope(q, k, offset=2, out=(None, None))
    assert_same_bits(q, rotated(rope, expected, dtype, offset=2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_is_the_input_whatever_the_stride_of_an_axis_of_length_1(backend: str) -> None:
    rope = rn.Rope(8, layout="half", backend=backend)
    cache = normal((7, 2, 8))
    expected = rotated(rope, cache[5:6], "float32", offset=3)
    rope(cache[5:6], offset=3, out=cache[5][None])
    assert_same_bits(cache[5:6], expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
def test_a_read_only_input_is_rotated_into_another_array(target: str, backend: str) -> None:
    rope = rn.Rope(64, layout="half", backend=backend)
    q = normal((3, 4, 64))
    expected = rotated(rope, q, target, offset=9)
    q.flags.writeable = False
    assert_same_bits(rope(q, offset=9, out=np.empty((3, 4, 64), DTYPES[target])), expected)
    broadcast = np.broadcast_to(normal((1, 1, 64)), (3, 4, 64))
    expected = rotated(rope, broadcast, target, offset=9)
    assert_same_bits(rope(broadcast, offset=9, out=np.empty((3, 4, 64), DTYPES[target])), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_only_view_of_a_writeable_out_is_rotated_in_it(backend: str) -> None:
    rope = rn.Rope(64, layout="half", backend=backend)
    q = normal((3, 4, 64))
    expected, view = rotated(rope, q, "float32", offset=9), q[...]
    view.flags.writeable = False
    assert rope(view, offset=9, out=q) is q
    assert_same_bits(q, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_may_be_a_file_in_memory(backend: str, tmp_path: Path) -> None:
    rope = rn.Rope(64, layout="half", backend=backend)
    cache = np.memmap(tmp_path / "cache", DTYPES["float16"], "w+", shape=(3, 4, 64))
    q = normal((3, 4, 64))
    assert rope(q, offset=9, out=cache) is cache
    assert_same_bits(
        np.fromfile(tmp_path / "cache", np.float16).reshape(3, 4, 64), rotated(rope, q, "float16", offset=9)
    )


# Threads: one kernel compiled for each case, so a few that differ in all that a share of the work does.
LARGE = [
    ("float32", "bfloat16", "half", "thd", {"offset": 70}),
    ("float16", "float32", "interleaved", "htd", {"positions": np.arange(2 * 67).reshape(2, 67) % 71}),
]


@needs_jit
@pytest.mark.parametrize(("source", "target", "layout", "order", "where"), LARGE)
def test_large_work_has_the_same_bits_on_any_number_of_threads(
    source: str, target: str, layout: str, order: str, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rope_numba.kernels import launch

    launches = record_launches(monkeypatch)
    shape = (2, 67, 40, 128) if order == "thd" else (2, 40, 67, 128)
    x = anything(np.random.default_rng(0), int(np.prod(shape)), source).reshape(shape)
    rope = rn.Rope(128, rotary_dim=96, rotary_offset=16, layout=layout, order=order)
    threads = numba.get_num_threads()
    try:
        for count in range(1, threads + 1):
            launches.clear()
            numba.set_num_threads(count)
            out = np.zeros(shape, DTYPES[target])
            assert_same_bits(rope(x, **where, out=out), rotated(rope, x, target, **where))
            assert bool(launches) == (count > 1 and launch.can_run_parallel())
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "shape", [(0, 4, 64), (3, 0, 64), (0, 3, 4, 64), (2, 0, 4, 64), (2, 3, 0, 64)], ids=lambda shape: f"{shape}"
)
def test_empty_arrays_are_fine(shape: tuple[int, ...], backend: str) -> None:
    rope = rn.Rope(64, layout="half", backend=backend)
    x, out = np.empty(shape, np.float32), np.empty(shape, np.float16)
    assert rope(x, offset=3, out=out) is out
    assert rope(x, x.copy(), offset=3, out=(None, out)) == (x, out)
    if shape[-3]:
        q = normal((*shape[:-2], 2, 64))
        expected = rotated(rope, q, "float32", offset=3)
        rope(q, x, offset=3, out=(None, out))
        assert_same_bits(q, expected)


# ---- Refused, by name, with nothing written -------------------------------------------------------------------------


def memory() -> Array:
    return normal((6, 6, 8))


OVERLAPS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "one head further": (lambda m: m[:3, :2], lambda m: m[:3, 1:3]),
    "one token further": (lambda m: m[:3], lambda m: m[1:4]),
    "the tokens turned round": (lambda m: m[:3], lambda m: m[2::-1]),
    "tokens for heads": (lambda m: m[:4, :4], lambda m: m[:4, :4].swapaxes(0, 1)),
    "in another type": (lambda m: m[:, :3], lambda m: m.view(np.float16)[:, :3, :8]),
    "of heads among its own": (lambda m: m[:, ::2], lambda m: m[:, :3]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_out_that_shares_some_of_the_input_is_refused(overlap: str, backend: str) -> None:
    x_of, out_of = OVERLAPS[overlap]
    whole = memory()
    x, out = x_of(whole), out_of(whole)
    rope = rn.Rope(8, backend=backend)
    for name, call in (
        ("q", lambda: rope(x, offset=3, out=out)),
        ("k", lambda: rope.shift(x, 3, out=out)),
    ):
        with pytest.raises(ValueError, match="shares memory") as refused:
            call()
        assert str(refused.value) == f"out shares memory with {name}; expected {name} itself, or no element in common"
        assert np.array_equal(whole, memory())
    q = normal(x.shape)
    with pytest.raises(ValueError, match="shares memory") as refused:
        rope(q, x, offset=3, out=(None, out))
    assert str(refused.value) == "out[1] shares memory with k; expected k itself, or no element in common"
    assert np.array_equal(whole, memory())
    assert np.array_equal(q, normal(x.shape))


DEFER: dict[str, tuple[Callable[[Array], tuple[Array, Array, Any]], str]] = {
    "q goes where k comes from": (lambda m: (m[:, :2], m[:, 2:4], (m[:, 2:4], None)), "out[0] shares memory with k"),
    "q and k change places": (lambda m: (m[:, :2], m[:, 2:4], (m[:, 2:4], m[:, :2])), "out[0] shares memory with k"),
    "both go to one place": (lambda m: (m[:, :1], m[:, 1:2], (m[:, 2:3], m[:, 2:3])), "out[0] shares memory with k"),
    "k goes where q stays": (lambda m: (m[:, :1], m[:, 2:3], (None, m[:, :1])), "q shares memory with k or where"),
    "q is k": (lambda m: (m[:, :2], m[:, :2], (m[:, 2:4], None)), "k shares memory with q"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", DEFER)
def test_q_and_k_that_meet_where_they_go_are_refused(case: str, backend: str) -> None:
    whole = memory()
    arrays, text = DEFER[case]
    q, k, out = arrays(whole)
    with pytest.raises(ValueError, match="shares memory") as refused:
        rn.Rope(8, backend=backend)(q, k, offset=3, out=out)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert np.array_equal(whole, memory())


def wrong_pairs() -> list[tuple[str, str]]:
    return [(source, target) for source in DTYPES for target in DTYPES if (source, target) not in PAIRS]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("source", "target"), wrong_pairs())
def test_types_that_do_not_become_one_another_are_refused(source: str, target: str, backend: str) -> None:
    rope = rn.Rope(8, backend=backend)
    x, out = normal((3, 2, 8), source), normal((3, 2, 8), target, seed=1)
    q, kept = normal((3, 2, 8), source), (x.copy(), out.copy())
    for name, call in (
        ("out", lambda: rope(x, offset=3, out=out)),
        ("out", lambda: rope.shift(x, 3, out=out)),
        ("out[1]", lambda: rope(q, x, offset=3, out=(None, out))),
    ):
        with pytest.raises(TypeError) as refused:
            call()
        assert str(refused.value).startswith(f"{name}.dtype is {target}; expected ")
        assert str(refused.value).endswith(f" is {source}")
        assert_same_bits(x, kept[0])
        assert_same_bits(out, kept[1])
        assert_same_bits(q, kept[0])


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


OUTS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "heads": (lambda: np.ones((3, 1, 8), np.float32), ValueError, " has shape (3, 1, 8); expected (3, 2, 8), as"),
    "axes": (lambda: np.ones((1, 3, 2, 8), np.float32), ValueError, " has shape (1, 3, 2, 8); expected (3, 2, 8), as"),
    "read-only": (lambda: read_only(np.ones((3, 2, 8), np.float32)), ValueError, " is read-only; expected a writeable"),
    "channels": (lambda: np.ones((3, 2, 16), np.float32)[..., ::2], ValueError, " has stride 8 bytes on its last axis"),
    "broadcast": (
        lambda: np.lib.stride_tricks.as_strided(np.ones((3, 8), np.float32), (3, 2, 8), (32, 0, 4)),
        ValueError,
        " has stride 0 on its heads axis; expected memory of its own for each element",
    ),
    "overlapping": (
        lambda: np.lib.stride_tricks.as_strided(np.ones(40, np.float32), (3, 2, 8), (32, 16, 4)),
        ValueError,
        " has elements that overlap (strides (32, 16, 4)); expected memory of its own for each element",
    ),
    "list": (lambda: [[1.0]], TypeError, " is a list; expected a NumPy array"),
    "integers": (lambda: np.ones((3, 2, 8), np.int64), TypeError, ".dtype is int64; expected "),
    "masked": (lambda: np.ma.ones((3, 2, 8), np.float32), TypeError, " is a MaskedArray; expected a plain"),
    "foreign": (lambda: np.ones((3, 2, 8), ">f4"), TypeError, ".dtype is >f4, of foreign byte order; expected"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", OUTS)
def test_a_wrong_out_is_refused_by_its_name(case: str, backend: str) -> None:
    make, error, text = OUTS[case]
    rope = rn.Rope(8, backend=backend)
    for name, call in (
        ("out", lambda q, _, out: rope(q, offset=3, out=out)),
        ("out", lambda q, _, out: rope.shift(q, 3, out=out)),
        ("out[0]", lambda q, k, out: rope.at(offset=3, tokens=3)(q, k, out=(out, None))),
        ("out[1]", lambda q, k, out: rope.inverse(q, k, offset=3, out=(None, out))),
    ):
        q, k, out = normal((3, 2, 8)), normal((3, 2, 8), seed=1), make()
        with pytest.raises(error) as refused:
            call(q, k, out)
        assert str(refused.value).startswith(name + text)
        assert "\n" not in str(refused.value)
        assert_same_bits(q, normal((3, 2, 8)))
        assert_same_bits(k, normal((3, 2, 8), seed=1))
        assert np.array_equal(np.asarray(out), np.asarray(make()))


@pytest.mark.parametrize("out", [np.ones((3, 2, 8), np.float32), (None,), (None, None, None), 7, {}], ids=str)
def test_for_q_and_k_out_is_two(out: Any) -> None:
    q, k = normal((3, 2, 8)), normal((3, 2, 8), seed=1)
    with pytest.raises(TypeError, match=r"expected \(q_out, k_out\), None meaning in place"):
        rn.Rope(8)(q, k, offset=3, out=out)
    assert_same_bits(q, normal((3, 2, 8)))


def test_a_wrong_q_is_named_as_ever_where_there_is_an_out() -> None:
    out = np.ones((3, 2, 8), np.float32)
    for q, text in (
        (np.ones((3, 2, 6), np.float32), "q has head_dim 6 (its last axis); expected 8"),
        (np.ones((4, 2, 8), np.float32), "q has 4 tokens; expected 3, the number of positions"),
    ):
        with pytest.raises(ValueError, match="q has") as refused:
            rn.Rope(8)(q, positions=[0, 1, 2], out=out)
        assert str(refused.value) == text
    assert (out == 1).all()


# ---- Where the compiled kernels cannot be used ----------------------------------------------------------------------

EVERY_MOVE = """
import sys
import numpy as np
import rope_numba as rn

def check(backend):
    q = np.random.default_rng(0).standard_normal((60, 4, 128)).astype(np.float32)
    results = []
    for name in (backend, "numpy"):
        rope = rn.Rope(128, rotary_dim=96, layout="half", layout_out="interleaved", backend=name)
        out, shifted, inside = np.zeros(q.shape, np.float16), np.zeros_like(q), q.copy()
        for _ in range(2):  # the second time without every check
            rope(q, offset=9, out=out)
        rope.shift(q, -3, out=shifted)
        rope(inside, offset=9)
        results.append((out, shifted, inside))
    assert all((a.view(np.uint8) == b.view(np.uint8)).all() for a, b in zip(*results))
    return not (results[0][0] == q.astype(np.float16)).all()
"""


def test_with_jit_disabled_out_has_the_same_bits() -> None:
    done = run(
        EVERY_MOVE + "print(check('numba'), 'rope_numba.kernels.out_of_place' in sys.modules)", NUMBA_DISABLE_JIT="1"
    )
    assert done.stdout.strip() == "True True", done.stderr


def test_without_numba_out_has_the_same_bits() -> None:
    # What is compared with is what the test above compares the kernels with: here both sides are NumPy's.
    done = run(
        WITHOUT_NUMBA + EVERY_MOVE + "print(check('numpy'), 'numba' in sys.modules)\n"
        "x = np.array([[1, 0, 0, 0]], np.float32)\n"
        "print(rn.Rope(4, layout_out='half', backend='numpy').shift(x, 1, out=np.zeros((1, 4), np.float16)).tolist())"
    )
    half = np.cos(1.0).astype(np.float16), np.sin(1.0).astype(np.float16)
    assert done.stdout.splitlines() == ["True False", f"[[{float(half[0])}, 0.0, {float(half[1])}, 0.0]]"], done.stderr


@pytest.mark.parametrize("while_compiling", [False, True])
def test_a_forked_child_moves_with_the_same_bits(while_compiling: bool) -> None:
    code = f"""
import os, threading
from numba.core.compiler_lock import global_compiler_lock
held, forked = threading.Event(), threading.Event()
def compile_for_long():
    with global_compiler_lock:
        held.set()
        forked.wait()
thread = threading.Thread(target=compile_for_long)
if {while_compiling}:
    import rope_numba.kernels.launch
    thread.start(); held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if check("numba") else 3)
forked.set()
if {while_compiling}:
    thread.join()
print(os.waitpid(child, 0)[1], check("numba"))
"""
    done = run(EVERY_MOVE + code)
    assert done.stdout.strip() == "0 True", done.stderr
