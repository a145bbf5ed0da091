"""`layout_out`: pairs read in one layout and written in the other, in the same pass."""

from __future__ import annotations

import pickle
from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, ORDERS, ROUNDING, assert_same_bits, bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_out import ARRANGEMENTS, BACKENDS, place

import rope_numba as rn

Array = NDArray[Any]

CROSSINGS = [("interleaved", "half"), ("half", "interleaved")]
# Each type in place both ways; of those that change the type on the way one each, as each is a kernel to compile.
MOVES = [(dtype, dtype, way) for dtype in DTYPES for way in CROSSINGS] + [
    ("float32", "bfloat16", CROSSINGS[0]),
    ("bfloat16", "float32", CROSSINGS[1]),
    ("float32", "float16", CROSSINGS[1]),
    ("float16", "float32", CROSSINGS[0]),
]


def permuted(x: Array, rope: rn.Rope, source: str, target: str) -> Array:
    """Return x with the channels of its rotary block in another layout, bit for bit."""
    widths: dict[str, Any] = {"rotary_dim": rope.rotary_dim, "rotary_offset": rope.rotary_offset}
    return rn.layouts.permute(x, rope.head_dim, axis=-1, source=source, target=target, **widths)


def without(rope: rn.Rope, layout: str) -> rn.Rope:
    """Return a rope that is the same but for its layouts, in NumPy."""
    own: dict[str, Any] = {name: getattr(rope, name) for name in ("rotary_offset", "order", "frequencies")}
    return rn.Rope(rope.head_dim, **own, layout=layout, backend="numpy")


def expected_of(rope: rn.Rope, x: Array, method: str, target: str, **where: Any) -> Array:
    """Return what is to be written: x widened, rotated in one layout, permuted to the other, and rounded once."""
    read, written = {
        "__call__": (rope.layout, rope.layout_out),
        "inverse": (rope.layout_out, rope.layout),
        "shift": (rope.layout_out, rope.layout_out),
    }[method]
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32, order="C")
        getattr(without(rope, read), method)(wide, **where)
        return permuted(wide, rope, read, written).astype(DTYPES[target])


@settings(max_examples=20)
@given(data=st.data())
@pytest.mark.parametrize(("source", "target", "way"), MOVES)
def test_it_is_the_rotation_and_then_the_permutation(
    source: str, target: str, way: tuple[str, str], data: st.DataObject
) -> None:
    draw = data.draw
    order, in_place = draw(st.sampled_from(ORDERS)), source == target and draw(st.booleans())
    batch, tokens, heads = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 14))
    pairs = draw(st.integers(1, 24) | st.sampled_from([32, 64, 129]))
    before, behind = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    shape = (batch, tokens, heads, before + 2 * pairs + behind)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hows, starts = st.sampled_from(list(ARRANGEMENTS)), st.integers(0, 15)
    x = place(rng, shape, source, draw(hows), draw(starts))
    out = place(rng, shape, target, draw(hows), draw(starts))
    factor = draw(st.sampled_from([1.0, 1.1902380714238083]))
    # The inverse reads what calling writes: with the layouts changed round it uses the same kernel.
    method = draw(st.sampled_from(["__call__", "inverse"]))
    inward, outward = way if method == "__call__" else way[::-1]
    where: dict[str, Any] = {"positions": rng.integers(-(2**20), 2**20, (batch, tokens))}
    if draw(st.booleans()):
        where = {"offset": draw(st.integers(-5000, 5000))}
    for backend in BACKENDS:
        rope = rn.Rope(
            shape[-1],
            frequencies=rn.Frequencies(rn.frequencies.default(2 * pairs).inv_freq, factor),
            rotary_offset=before,
            layout=inward,
            layout_out=outward,
            order=order,
            backend=backend,
        )
        read, written = x.copy(), out.copy()
        if in_place:
            written = read
        outside = written.outside()
        given_x, given_out = (a.array.swapaxes(1, 2) if order == "htd" else a.array for a in (read, written))
        expected = expected_of(rope, given_x.copy(), method, target, **where)
        got = getattr(rope, method)(given_x, **where, **({} if in_place else {"out": given_out}))
        assert got is (given_x if in_place else given_out)
        assert_same_bits(got, expected)
        assert np.array_equal(written.outside(), outside)
        if not in_place:
            assert np.array_equal(bits(read.memory), bits(x.memory))
        if source == target:
            for others in (slice(0, before), slice(before + 2 * pairs, None)):
                assert np.array_equal(bits(written.array[..., others]), bits(x.array[..., others]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ORDERS)
def test_q_and_k_cross_together_in_place_and_into_a_cache(order: str, backend: str) -> None:
    rope = rn.Rope(64, layout="interleaved", layout_out="half", order=order, backend=backend)
    q, k = (normal((5, heads, 64), seed=heads) for heads in (4, 2))
    if order == "htd":
        q, k = (np.ascontiguousarray(x.swapaxes(0, 1)) for x in (q, k))
    expected = [expected_of(rope, x, "__call__", "float32", offset=7) for x in (q, k)]
    for call in (
        lambda a, b: rope(a, b, offset=7),
        lambda a, b: rope.at(offset=7, tokens=5)(a, b),
        lambda a, b: rn.apply_rope(a, b, offset=7, layout_out="half", order=order, backend=backend),
        lambda a, b: rope(a, b, offset=7, out=(a, None)),
    ):
        a, b = q.copy(), k.copy()
        back = call(a, b)
        assert back[0] is a
        assert back[1] is b
        assert_same_bits(a, expected[0])
        assert_same_bits(b, expected[1])
    cache, a = np.zeros(k.shape, ml_dtypes.bfloat16), q.copy()
    rope(a, k, offset=7, out=(None, cache))
    assert_same_bits(a, expected[0])
    assert_same_bits(cache, expected[1].astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("way", CROSSINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_inverse_undoes_it_layout_and_magnitude_included(dtype: str, way: tuple[str, str]) -> None:
    frequencies = rn.Frequencies(rn.frequencies.default(48).inv_freq, 1.25)
    rope = rn.Rope(64, frequencies=frequencies, rotary_offset=6, layout=way[0], layout_out=way[1], backend="numpy")
    x = normal((3, 4, 64), dtype)
    before = x.astype(np.float64)
    rope(x, offset=900)
    assert np.abs(x.astype(np.float64) - before).max() > 0.5
    rope.inverse(x, offset=900)
    # Two roundings to the type and the arithmetic of two rotations, of numbers of size up to 4 in a pair.
    tolerance = 4 * (2 * ROUNDING[dtype] + 16 * ROUNDING["float64" if dtype == "float64" else "float32"])
    np.testing.assert_allclose(x.astype(np.float64), before, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", CROSSINGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shift_reads_and_writes_the_layout_that_was_written(dtype: str, way: tuple[str, str], backend: str) -> None:
    rope = rn.Rope(64, layout=way[0], layout_out=way[1], backend=backend)
    k = rope(normal((3, 4, 64), dtype), offset=40)
    plain = rn.Rope(64, layout=way[1], backend="numpy")
    expected = plain.shift(k.copy(), -33)
    assert_same_bits(rope.shift(k, -33, out=np.zeros_like(k)), expected)
    assert_same_bits(rope.shift(k, -33), expected)
    # And that is, but for roundings, what rotating at the new position writes.
    scratch = rope(normal((3, 4, 64), dtype), offset=7).astype(np.float64)
    rounding = 3 * (ROUNDING[dtype] + 4 * ROUNDING["float32"]) * 6.0  # of numbers of size up to 6 in a pair
    np.testing.assert_allclose(k.astype(np.float64), scratch, atol=rounding)


@pytest.mark.parametrize("order", ORDERS)
def test_large_work_in_place_has_the_same_bits_on_any_number_of_threads(order: str) -> None:
    shape = (131, 40, 128) if order == "thd" else (40, 131, 128)
    x = normal(shape, "bfloat16")
    rope = rn.Rope(128, rotary_dim=96, rotary_offset=16, layout="half", layout_out="interleaved", order=order)
    expected = expected_of(rope, x, "__call__", "bfloat16", offset=77)
    before = numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            assert_same_bits(rope(x.copy(), offset=77), expected)
    finally:
        numba.set_num_threads(before)


def test_scores_do_not_ask_which_layout_was_written() -> None:
    plain, crossing = rn.Rope(64, layout="half"), rn.Rope(64, layout="half", layout_out="interleaved")
    scores = []
    for rope in (plain, crossing):
        q, k = rope(normal((5, 1, 64), "float64"), normal((5, 1, 64), "float64", seed=1), offset=100)
        scores.append(q[:, 0] @ k[:, 0].T)
    np.testing.assert_allclose(*scores, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_layout_in_and_out_is_the_plain_rope(layout: str) -> None:
    plain, same = rn.Rope(64, layout=layout), rn.Rope(64, layout=layout, layout_out=layout)
    assert plain == same
    assert hash(plain) == hash(same)
    assert repr(plain) == repr(same)
    assert plain.layout_out == layout


@pytest.mark.parametrize("way", CROSSINGS)
def test_a_rope_that_writes_another_layout_is_a_value_of_its_own(way: tuple[str, str]) -> None:
    rope = rn.Rope(64, layout=way[0], layout_out=way[1])
    others = {rn.Rope(64, layout=way[0]), rn.Rope(64, layout=way[1]), rn.Rope(64, layout=way[1], layout_out=way[0])}
    assert rope not in others
    assert len({rope, rn.Rope(64, layout=way[0], layout_out=way[1])}) == 1
    assert repr(rope) == f"Rope(head_dim=64, theta=10000.0, layout={way[0]!r}, layout_out={way[1]!r}, order='thd')"
    back = pickle.loads(pickle.dumps(rope))
    assert back == rope
    assert repr(back) == repr(rope)
    x, twin = normal((3, 4, 64)), normal((3, 4, 64))
    pickle.loads(pickle.dumps(rope.at(offset=5, tokens=3)))(x)
    rope(twin, offset=5)
    assert_same_bits(x, twin)
    with pytest.raises(AttributeError, match="a Rope cannot be changed"):
        rope.layout_out = way[0]


def test_explain_says_which_layout_is_written() -> None:
    crossing = rn.Rope(64, layout="half", layout_out="interleaved")
    (line,) = (line for line in crossing.explain().splitlines() if line.strip().startswith("layout_out"))
    assert "interleaved" in line
    assert "layout_out" not in rn.Rope(64, layout="half").explain()


@pytest.mark.parametrize("layout_out", ["neo", "", 1, ["half"]])
def test_another_layout_out_is_refused(layout_out: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        rn.Rope(64, layout_out=layout_out)
    assert str(refused.value) == f"layout_out is {layout_out!r}; expected 'interleaved' or 'half'"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_rotated_is_refused_and_not_permuted_either(backend: str) -> None:
    rope = rn.Rope(64, layout="half", layout_out="interleaved", backend=backend)
    whole = normal((4, 4, 64))
    with pytest.raises(ValueError, match="k shares memory with q"):
        rope(whole[:, :3], whole[:, 2:], offset=1)
    with pytest.raises(ValueError, match="out shares memory with q"):
        rope(whole[:2], offset=1, out=whole[1:3])
    assert_same_bits(whole, normal((4, 4, 64)))
    view = whole[...]
    view.flags.writeable = False
    with pytest.raises(ValueError, match="q is read-only"):
        rope(view, offset=1)
    assert_same_bits(whole, normal((4, 4, 64)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_later_calls_have_the_bits_of_the_first_and_refuse_what_it_refuses(dtype: str, order: str) -> None:
    rope = rn.Rope(8, layout="interleaved", layout_out="half", order=order)
    step = rope.at(offset=7, tokens=3)
    fallback = rn.Rope(8, layout="interleaved", layout_out="half", order=order, backend="numpy").at(offset=7, tokens=3)
    shapes = ((3, 4), (3, 2)) if order == "thd" else ((4, 3), (2, 3))
    q, k = (normal((*shape, 8), dtype) for shape in shapes)
    expected = fallback(q.copy(), k.copy())
    for _ in range(3):
        for result, wanted in zip(step(q.copy(), k.copy()), expected, strict=True):
            assert_same_bits(result, wanted)
        assert_same_bits(step(q.copy()), expected[0])
    frozen, before = k.copy(), q.copy()
    frozen.flags.writeable = False
    for bad, text in ((frozen, "k is read-only"), (q, "k shares memory with q"), (k[..., :4], "k has head_dim 4")):
        with pytest.raises(ValueError, match=text):
            step(q, bad)
        assert_same_bits(q, before)
