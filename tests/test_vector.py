"""Vectors of lanes in jitted code against NumPy: memory, arithmetic, conversions, orders, and errors of typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit
from numpy.typing import NDArray

pytestmark = needs_jit

Array = NDArray[Any]
DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64, "u16": np.uint16, "u32": np.uint32, "f16": np.float16}
FLOATING, WHOLE = ("f32", "f64"), ("u16", "u32")
# The number of lanes is a constant of jitted code, which costs 0.15 s to compile for each.
LANES = pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
SEVERAL_LANES = pytest.mark.parametrize("lanes", [2, 4, 16])


def numbers(element: str, lanes: int, seed: int = 0) -> Array:
    """Return a number for each lane: of every kind if they are floats, any bits if they are whole."""
    rng = np.random.default_rng(100 * seed + lanes)
    if element in WHOLE:
        return rng.integers(0, 1 << 8 * np.dtype(DTYPES[element]).itemsize, lanes).astype(DTYPES[element])
    x = rng.standard_normal(lanes) * 10.0 ** rng.integers(-3, 3, lanes)
    x[rng.random(lanes) < 0.2] = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0])
    return x.astype(DTYPES[element])


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of addresses, without what would slow that down; it is called with arrays."""
    from numba import njit

    compiled = njit(error_model="numpy")(function)
    return lambda *arrays: compiled(*(x.ctypes.data if isinstance(x, np.ndarray) else x for x in arrays))


def stored(function: Callable[..., Any], *arrays: Array, like: Array, results: int = 1) -> list[Array]:
    """Return what a jitted function writes, one result behind the other from the address that it takes last."""
    out = np.zeros((results + 1, like.size), like.dtype)
    jit(function)(*arrays, out)
    assert not out[-1].any(), "something was written behind the results"
    return list(out[:-1])


# ---- Memory ---------------------------------------------------------------------------------------------------------


@LANES
@pytest.mark.parametrize("element", [*FLOATING, *WHOLE])
def test_a_store_writes_the_bits_that_a_load_read_and_no_others(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import loader, storer

    load, store = loader(element), storer(element)

    def copy(x: int, out: int) -> None:
        one = load(x, lanes)  # lanes by a constant
        store(out, load(x, one))  # and by another vector

    x = numbers(element, lanes)
    if element in FLOATING:
        x.view(f"u{x.itemsize}")[0] = np.array(np.nan, x.dtype).view(f"u{x.itemsize}") + 1  # the payload of a NaN
    out = np.zeros(lanes + 2, x.dtype)
    jit(copy)(x, out[1:])  # an element behind where an array begins: aligned for the element only
    assert out[1:-1].tobytes() == x.tobytes()
    assert out[0] == out[-1] == 0


@LANES
def test_float16_is_widened_and_rounded_by_the_processor(lanes: int) -> None:
    from rope_numba.kernels import machine
    from rope_numba.kernels.vector import loader, storer

    if not machine.has_half():
        pytest.skip("no instruction for it")
    load, store, load_f32, store_f32 = loader("f16"), storer("f16"), loader("f32"), storer("f32")

    def convert(halves: int, singles: int, from_halves: int, from_singles: int) -> None:
        store_f32(from_halves, load(halves, lanes))
        store(from_singles, load_f32(singles, lanes))

    halves, singles = numbers("f16", lanes), numbers("f32", lanes, seed=1) * np.float32(1e-6)
    from_halves, from_singles = np.zeros(lanes, np.float32), np.zeros(lanes, np.float16)
    jit(convert)(halves, singles, from_halves, from_singles)
    assert_same_bits(from_halves, halves.astype(np.float32))
    assert_same_bits(from_singles, singles.astype(np.float16))


@pytest.mark.parametrize("element", [*FLOATING, *WHOLE])
def test_llvm_is_promised_an_elements_alignment_and_no_memory_that_never_changes(element: str) -> None:
    from numba import int64, njit

    from rope_numba.kernels.vector import loader, storer

    load, store = loader(element), storer(element)

    @njit((int64, int64))
    def copy(x: int, out: int) -> None:
        store(out, load(x, 8))

    (code,) = copy.inspect_llvm().values()
    accesses = [line for line in code.splitlines() if " load <8 x" in line or " store <8 x" in line]
    assert len(accesses) >= 2
    for access in accesses:
        assert access.rstrip().endswith(f"align {np.dtype(DTYPES[element]).itemsize}")  # and no metadata follow


# ---- Arithmetic -----------------------------------------------------------------------------------------------------


@LANES
@pytest.mark.parametrize("element", FLOATING)
def test_floating_point_operators_round_each_lane_once_as_numpy_does(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import loader, storer

    load, store = loader(element), storer(element)
    size = lanes * np.dtype(DTYPES[element]).itemsize

    def compute(x: int, y: int, z: int, out: int) -> None:
        a, b, c = load(x, lanes), load(y, lanes), load(z, lanes)
        store(out, a + b)
        store(out + size, a - b)
        store(out + 2 * size, a * b)
        store(out + 3 * size, -a)
        store(out + 4 * size, a * b - a * c)  # not fused
        store(out + 5 * size, (a + b) - a)  # not reassociated
        store(out + 6 * size, a + 0.1)  # a number for every lane, rounded to the element
        store(out + 7 * size, a - np.float32(0.1))
        store(out + 8 * size, a * 3.7)

    x, y, z = (numbers(element, lanes, seed) for seed in range(3))
    found = stored(compute, x, y, z, like=x, results=9)
    number = DTYPES[element]
    with np.errstate(all="ignore"):
        expected = [x + y, x - y, x * y, -x, x * y - x * z, (x + y) - x]
        expected += [x + number(0.1), x - number(np.float32(0.1)), x * number(3.7)]
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)
    assert (np.signbit(found[3]) != np.signbit(x)).all()  # of zeros and NaNs too


@LANES
@pytest.mark.parametrize("element", WHOLE)
def test_operators_of_whole_numbers_are_unsigned_and_wrap_around(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import loader, storer

    load, store = loader(element), storer(element)
    bits = 8 * np.dtype(DTYPES[element]).itemsize
    size, top = lanes * bits // 8, bits - 1

    def compute(x: int, y: int, z: int, out: int) -> None:
        a, b, shifts = load(x, lanes), load(y, lanes), load(z, lanes)
        store(out, a + b)
        store(out + size, a - b)
        store(out + 2 * size, a * b)
        store(out + 3 * size, a & b)
        store(out + 4 * size, a | b)
        store(out + 5 * size, a << shifts)
        store(out + 6 * size, a >> shifts)
        store(out + 7 * size, a + (-3))  # numbers for every lane, modulo 2**bits
        store(out + 8 * size, a - 0x1_0000_0007)
        store(out + 9 * size, a * 5)
        store(out + 10 * size, a & 0x7F0F)
        store(out + 11 * size, a | np.uint8(0x81))
        store(out + 12 * size, a << np.int16(3))
        store(out + 13 * size, a >> top)

    x, y, z = numbers(element, lanes), numbers(element, lanes, seed=1), numbers(element, lanes, seed=2) % bits
    x[0] = (1 << bits) - 1
    found = stored(compute, x, y, z, like=x, results=14)
    number = DTYPES[element]
    with np.errstate(all="ignore"):
        expected = [x + y, x - y, x * y, x & y, x | y, x << z, x >> z, x - number(3), x - number(7), x * number(5)]
        expected += [x & number(0x7F0F), x | number(0x81), x << number(3), x >> number(top)]
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@LANES
@pytest.mark.parametrize("element", WHOLE)
def test_comparisons_are_unsigned_and_select_takes_lanes_by_them(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import loader, select, storer

    load, store = loader(element), storer(element)
    bits = 8 * np.dtype(DTYPES[element]).itemsize
    size, middle = lanes * bits // 8, 1 << bits - 1

    def compute(x: int, y: int, out: int) -> None:
        a, b = load(x, lanes), load(y, lanes)
        store(out, select(a < b, a, b))
        store(out + size, select(a > b, 1, b))  # a number for every lane
        store(out + 2 * size, select(a >= b, a, b + 1))
        store(out + 3 * size, select(a == b, 0x10007, a))
        store(out + 4 * size, select(a < middle, a, b))
        store(out + 5 * size, select(a > middle, a, b))
        store(out + 6 * size, select(a >= middle, a, b))
        store(out + 7 * size, select(a == middle, a, b))

    x, y, one = numbers(element, lanes), numbers(element, lanes, seed=1), DTYPES[element](1)
    x[-1] = y[-1] = middle
    found = stored(compute, x, y, like=x, results=8)
    expected = [np.minimum(x, y), np.where(x > y, one, y), np.where(x >= y, x, y + one)]
    expected += [np.where(x == y, DTYPES[element](0x10007 % (1 << bits)), x)]
    expected += [np.where(mask, x, y) for mask in (x < middle, x > middle, x >= middle, x == middle)]
    for found_one, other in zip(found, expected, strict=True):
        assert_same_bits(found_one, other)


@pytest.mark.parametrize("element", FLOATING)
def test_select_takes_lanes_of_floating_point_vectors_and_numbers(element: str) -> None:
    from rope_numba.kernels.vector import loader, select, storer

    load, load_u16, store = loader(element), loader("u16"), storer(element)
    size = 4 * np.dtype(DTYPES[element]).itemsize

    def compute(x: int, y: int, chosen: int, out: int) -> None:
        a, b, mask = load(x, 4), load(y, 4), load_u16(chosen, 4) == 1
        store(out, select(mask, a, b))
        store(out + size, select(mask, 0.1, b))

    x, y, chosen = numbers(element, 4), numbers(element, 4, seed=1), np.array([1, 0, 0, 1], np.uint16)
    found = stored(compute, x, y, chosen, like=x, results=2)
    assert_same_bits(found[0], np.where(chosen == 1, x, y))
    assert_same_bits(found[1], np.where(chosen == 1, DTYPES[element](0.1), y))


@LANES
def test_rarely_any_is_true_where_one_lane_of_a_mask_is(lanes: int) -> None:
    from rope_numba.kernels.machine import rarely_any
    from rope_numba.kernels.vector import loader

    load = loader("u32")

    def compute(x: int) -> bool:
        return rarely_any(load(x, lanes) == 7)

    any_seven = jit(compute)
    x = np.zeros(lanes + 1, np.uint32)
    x[-1] = 7
    assert any_seven(x) is False
    for lane in range(lanes):
        x[:-1] = 0
        x[lane] = 7
        assert any_seven(x) is True
    x[:] = 7
    assert any_seven(x) is True


@pytest.mark.parametrize("element", FLOATING)
def test_plain_nans_have_one_bit_of_the_mantissa_and_other_numbers_keep_theirs(element: str) -> None:
    from rope_numba.kernels.vector import loader, plain_nans, storer

    load, store = loader(element), storer(element)

    def compute(x: int, out: int) -> None:
        store(out, plain_nans(load(x, 8)))

    x = np.array([np.nan] * 3 + [np.inf, -np.inf, -0.0, 1e-42, 3.5], DTYPES[element])
    plain = x.view(f"u{x.itemsize}")[0]
    x.view(f"u{x.itemsize}")[1:3] = plain + 1, np.array(-np.inf, x.dtype).view(plain.dtype) + 1  # quiet; signalling
    (found,) = stored(compute, x, like=x)
    assert np.isnan(found[:3]).all()
    assert (found.view(plain.dtype)[:3] == plain).all()
    assert found[3:].tobytes() == x[3:].tobytes()


@LANES
@pytest.mark.parametrize("element", FLOATING)
def test_sum_lanes_adds_the_upper_half_to_the_lower_half_until_one_lane_is_left(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import loader, sum_lanes

    load = loader(element)

    def compute(x: int) -> Any:
        return sum_lanes(load(x, lanes))

    def by_halves(x: Array) -> Any:
        return x[0] if x.size == 1 else by_halves(x[: x.size // 2] + x[x.size // 2 :])

    def by_neighbours(x: Array) -> Any:
        return x[0] if x.size == 1 else by_neighbours(x[::2] + x[1::2])

    add_up = jit(compute)
    rng = np.random.default_rng(lanes)
    differ = 0
    for _ in range(50):
        x = (rng.standard_normal(lanes) * 10.0 ** rng.integers(-8, 8, lanes)).astype(DTYPES[element])
        assert add_up(x) == by_halves(x)
        differ += by_halves(x) not in (np.cumsum(x, dtype=x.dtype)[-1], by_neighbours(x))
    assert differ or lanes <= 2  # the order matters for these numbers
    if lanes == 4:
        large = DTYPES[element](2.0**60)
        assert add_up(np.array([large, 1, -large, 1], DTYPES[element])) == 2  # (large - large) + (1 + 1)
        assert add_up(np.array([large, -large, 1, 1], DTYPES[element])) == 0  # (large + 1) + (-large + 1)


# ---- Conversions ----------------------------------------------------------------------------------------------------


@SEVERAL_LANES
def test_bits_are_read_as_other_elements_as_numpy_views_them(lanes: int) -> None:
    from rope_numba.kernels.vector import as_f32, as_u16, as_u32, loader, storer

    load_f32, load_f64, load_u16, load_u32 = (loader(element) for element in ("f32", "f64", "u16", "u32"))
    store_f32, store_u16, store_u32 = (storer(element) for element in ("f32", "u16", "u32"))
    size = 8 * lanes

    def compute(x: int, out: int) -> None:
        store_f32(out, as_f32(load_u32(x, lanes)))
        store_f32(out + size, as_f32(load_u16(x, lanes)))
        store_f32(out + 2 * size, as_f32(load_f64(x, lanes)))
        store_u16(out + 3 * size, as_u16(load_u32(x, lanes)))
        store_u16(out + 4 * size, as_u16(load_f64(x, lanes)))
        store_u32(out + 5 * size, as_u32(load_f32(x, lanes)))
        store_u32(out + 6 * size, as_u32(load_u16(x, lanes)))
        store_u32(out + 7 * size, as_u32(load_f64(x, lanes)))

    x = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    found = stored(compute, x, like=x, results=8)
    for one, itemsize in zip(found, (4, 2, 8, 4, 8, 4, 2, 8), strict=True):
        assert (one[: itemsize * lanes] == x[: itemsize * lanes]).all()
        assert not one[itemsize * lanes :].any()


@LANES
def test_widen_keeps_whole_numbers_and_narrow_keeps_their_lower_halves(lanes: int) -> None:
    from rope_numba.kernels.vector import loader, narrow, storer, widen

    load_u16, load_u32, store_u16, store_u32 = loader("u16"), loader("u32"), storer("u16"), storer("u32")

    def compute(x: int, y: int, narrowed: int, widened: int) -> None:
        store_u16(narrowed, narrow(load_u32(x, lanes)))
        store_u32(widened, widen(load_u16(y, lanes)))

    x, y = numbers("u32", lanes), numbers("u16", lanes)
    narrowed, widened = np.zeros(lanes, np.uint16), np.zeros(lanes, np.uint32)
    jit(compute)(x, y, narrowed, widened)
    assert (narrowed == x.astype(np.uint16)).all()
    assert (widened == y).all()


# ---- Orders of lanes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", [*FLOATING, *WHOLE])
@SEVERAL_LANES
def test_orders_of_one_vector_are_numpys_indices(element: str, lanes: int) -> None:
    from rope_numba.kernels.vector import (
        as_loaded,
        evens_first,
        loader,
        lower_half,
        storer,
        swap_neighbours,
        upper_half,
    )

    load, store = loader(element), storer(element)
    itemsize = np.dtype(DTYPES[element]).itemsize
    size = lanes * itemsize

    def compute(x: int, out: int) -> None:
        a = load(x, lanes)
        store(out, as_loaded(a))
        store(out + size, swap_neighbours(a))
        store(out + 2 * size, evens_first(a))
        store(out + 3 * size, upper_half(a))
        store(out + 3 * size + size // 2, lower_half(a))

    x = np.arange(1, lanes + 1, dtype=DTYPES[element])
    found = stored(compute, x, like=x, results=4)
    half = lanes // 2
    expected = [x, x.reshape(-1, 2)[:, ::-1].ravel(), np.r_[x[::2], x[1::2]], np.r_[x[half:], x[:half]]]
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("element", ["f32", "u16"])
@SEVERAL_LANES
def test_orders_of_two_vectors_are_numpys_indices(element: str, lanes: int) -> None:
    from rope_numba.kernels import vector

    load, store = vector.loader(element), vector.storer(element)
    size = lanes * np.dtype(DTYPES[element]).itemsize

    def compute(x: int, y: int, out: int) -> None:
        a, b = load(x, lanes), load(y, lanes)
        store(out, vector.first_of(a, b))
        store(out + size, vector.second_of(a, b))
        store(out + 2 * size, vector.evens_of(a, b))
        store(out + 3 * size, vector.odds_of(a, b))
        store(out + 4 * size, vector.lower_halves(a, b))
        store(out + 5 * size, vector.upper_halves(a, b))
        store(out + 6 * size, vector.alternate(a, b))
        store(out + 7 * size, vector.first_zipped(a, b))
        store(out + 8 * size, vector.second_zipped(a, b))
        store(out + 9 * size, vector.interleave(a, b))  # twice as long, as the next one
        store(out + 11 * size, vector.concat(a, b))

    x, y = np.arange(1, lanes + 1, dtype=DTYPES[element]), np.arange(101, lanes + 101, dtype=DTYPES[element])
    found = stored(compute, x, y, like=x, results=13)
    both, zipped, half = np.r_[x, y], np.stack([x, y], axis=1).ravel(), lanes // 2
    expected = [x, y, both[::2], both[1::2], np.r_[x[:half], y[:half]], np.r_[x[half:], y[half:]]]
    expected += [np.stack([x[::2], y[1::2]], axis=1).ravel(), zipped[:lanes], zipped[lanes:]]
    expected += [zipped[:lanes], zipped[lanes:], x, y]
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def test_orders_take_vectors_of_one_lane_where_they_have_a_meaning() -> None:
    from rope_numba.kernels import vector

    load, store = vector.loader("f32"), vector.storer("f32")

    def compute(x: int, y: int, out: int) -> None:
        a, b = load(x, 1), load(y, 1)
        store(out, vector.as_loaded(vector.evens_first(a)))
        store(out + 4, vector.first_of(a, b))
        store(out + 8, vector.second_of(a, b))
        store(out + 12, vector.evens_of(a, b))
        store(out + 16, vector.odds_of(a, b))
        store(out + 20, vector.first_zipped(a, b))
        store(out + 24, vector.second_zipped(a, b))
        store(out + 28, vector.interleave(a, b))
        store(out + 36, vector.concat(a, b))

    x, y = np.float32([1]), np.float32([2])
    assert np.ravel(stored(compute, x, y, like=x, results=11)).tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]


# ---- Errors of typing -----------------------------------------------------------------------------------------------


def test_wrong_uses_are_typing_errors() -> None:
    import operator

    from numba.core.errors import TypingError

    from rope_numba.kernels import vector
    from rope_numba.kernels.machine import rarely_any

    f32, f64, u16, u32 = (vector.loader(element) for element in ("f32", "f64", "u16", "u32"))
    store_f32, store_f16 = vector.storer("f32"), vector.storer("f16")
    select = vector.select

    wrong: list[Callable[[int], Any]] = [
        # memory
        lambda x: f32(x, x),  # lanes that are not constant
        lambda x: f32(x, 4.0),
        lambda x: f32(x, x > 1),
        lambda x: f32(x, 0),
        lambda x: f32(x, 3),
        lambda x: f32(x, -4),
        lambda x: f32(1.5, 4),
        lambda x: f32(f32(x, 4), 4),
        lambda x: store_f32(x, 1.0),
        lambda x: store_f32(x, f64(x, 4)),
        lambda x: store_f32(x, u32(x, 4)),
        lambda x: store_f32(1.5, f32(x, 4)),
        lambda x: store_f16(x, f64(x, 4)),
        lambda x: store_f16(x, u16(x, 4)),
        # operators
        lambda x: f32(x, 4) + 1,
        lambda x: u32(x, 4) + 1.0,
        lambda x: 1.0 + f32(x, 4),  # numbers stand on the right
        lambda x: f32(x, 4) + True,
        lambda x: u32(x, 4) + True,
        lambda x: u16(x, 4) + u32(x, 4),
        lambda x: f32(x, 4) * f64(x, 4),
        lambda x: f32(x, 4) / f32(x, 4),
        lambda x: f32(x, 4) < f32(x, 4),
        lambda x: u32(x, 4) != u32(x, 4),
        lambda x: u32(x, 4) == f32(x, 4),
        lambda x: -u32(x, 4),
        lambda x: -(u32(x, 4) == 1),
        lambda x: (u32(x, 4) == 1) & (u32(x, 4) == 2),
        # functions
        lambda x: select(u32(x, 4), u32(x, 4), u32(x, 4)),
        lambda x: select(u32(x, 8) == 1, u32(x, 4), u32(x, 4)),
        lambda x: select(u32(x, 4) == 1, u32(x, 8), u32(x, 4)),
        lambda x: select(u32(x, 4) == 1, u16(x, 4), u32(x, 4)),
        lambda x: select(u32(x, 4) == 1, 1.0, u32(x, 4)),
        lambda x: select(u32(x, 4) == 1, 1, f32(x, 4)),
        lambda x: select(u32(x, 4) == 1, u32(x, 4), 1),
        lambda x: select(True, u32(x, 4), u32(x, 4)),
        lambda x: rarely_any(u32(x, 4)),
        lambda x: rarely_any(True),
        lambda x: vector.plain_nans(u32(x, 4)),
        lambda x: vector.sum_lanes(u32(x, 4)),
        lambda x: vector.sum_lanes(1.0),
        lambda x: vector.widen(u32(x, 4)),
        lambda x: vector.narrow(u16(x, 4)),
        lambda x: vector.as_u32(1.0),
        lambda x: vector.as_u32(u32(x, 4) == 1),
        lambda x: vector.as_u32(u16(x, 1)),  # half a lane
        # orders
        lambda x: vector.as_loaded(u32(x, 4) == 1),
        lambda x: vector.swap_neighbours(f32(x, 1)),
        lambda x: vector.lower_half(f32(x, 1)),
        lambda x: vector.upper_half(f32(x, 1)),
        lambda x: vector.lower_halves(f32(x, 1), f32(x, 1)),
        lambda x: vector.upper_halves(f32(x, 1), f32(x, 1)),
        lambda x: vector.interleave(f32(x, 4), f32(x, 8)),
        lambda x: vector.concat(f32(x, 4), u32(x, 4)),
        lambda x: vector.alternate(f32(x, 4), 1.0),
    ]
    for operation in (operator.and_, operator.or_, operator.lshift, operator.rshift):
        wrong.append(applied(operation, f32, f32, 4))
    for operation in (operator.add, operator.sub, operator.mul, operator.and_, operator.lshift, operator.eq):
        wrong.append(applied(operation, u32, u32, 8))
    for right_use in (applied(operator.mul, f32, f32, 4), lambda x: vector.upper_half(f32(x, 2))):
        compile_only(right_use)
    faults = {}
    for number, use in enumerate(wrong):
        try:
            compile_only(use)
        except TypingError:
            continue
        except Exception as error:
            faults[number, use.__code__.co_firstlineno] = repr(error)
        else:
            faults[number, use.__code__.co_firstlineno] = "accepted"
    assert not faults


def applied(operation: Callable[..., Any], load: Any, load_other: Any, other_lanes: int) -> Callable[[int], Any]:
    """Return a function that applies an operator to a vector of 4 lanes and another one."""
    return lambda x: operation(load(x, 4), load_other(x, other_lanes))


def compile_only(function: Callable[[int], Any]) -> None:
    """Compile a function of an address and do not run it."""
    from numba import int64, njit

    njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function).compile((int64,))
