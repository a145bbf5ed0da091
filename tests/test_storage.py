"""Loads and stores of every storage against NumPy: all patterns of 16 bits, ties, subnormals, infinities and NaNs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit
from numpy.typing import NDArray

from rope_numba.reference import bfloat16_to_float32, float32_to_bfloat16

pytestmark = needs_jit

Array = NDArray[Any]
# The number of lanes of a whole register, and the one that tails have; packed bfloat16 has no tail.
LANES = {
    "F32": (1, 8),
    "F64": (1, 4),
    "F16": (1, 8),
    "F16_BY_WHOLE_NUMBERS": (1, 8),
    "BF16": (1, 8),
    "PACKED_BF16": (2, 16),
}
CASES = [(name, lanes) for name, several in LANES.items() for lanes in several]
HALVES = [(name, lanes) for name, lanes in CASES if "16" in name]
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let NumPy convert signalling NaNs and numbers too large without a warning."""
    with np.errstate(all="ignore"):
        yield


def storage_of(name: str) -> Any:
    """Return a storage by the name it has in its module."""
    from rope_numba.kernels import storage

    return getattr(storage, name)


def lanes_of(name: str, x: Array, lanes: int) -> Array:
    """Return numbers in the order in which the vectors of a storage hold them."""
    if name != "PACKED_BF16":
        return x
    vectors = x.reshape(-1, lanes)
    return np.concatenate([vectors[:, ::2], vectors[:, 1::2]], axis=1).ravel()


def load_all(name: str, stored: Array, lanes: int) -> Array:
    """Return what a storage's load makes of all numbers of an array."""
    from numba import njit

    from rope_numba.kernels.vector import storer

    storage = storage_of(name)
    load, store, size, wide = storage.load, storer(storage.computed), storage.itemsize, storage.table_itemsize

    @njit
    def jitted(x: int, out: int, count: int) -> None:
        for first in range(0, count, lanes):
            store(out + first * wide, load(x + first * size, lanes))

    out = np.empty(stored.size, np.float64 if storage.computed == "f64" else np.float32)
    assert stored.size % lanes == 0
    jitted(stored.ctypes.data, out.ctypes.data, stored.size)
    return out


def store_all(name: str, values: Array, lanes: int, dtype: Any, *, by_four: bool) -> Array:
    """Return what a storage's store, or that of four vectors, makes of all numbers of an array."""
    from numba import njit

    from rope_numba.kernels.vector import loader

    storage = storage_of(name)
    load, store, store_four = loader(storage.computed), storage.store, storage.store_four
    size, wide = storage.itemsize, storage.table_itemsize

    @njit
    def one(x: int, out: int, count: int) -> None:
        for first in range(0, count, lanes):
            store(out + first * size, load(x + first * wide, lanes))

    @njit
    def four(x: int, out: int, count: int) -> None:
        for first in range(0, count, 4 * lanes):
            second, third, fourth = first + lanes, first + 2 * lanes, first + 3 * lanes
            store_four(
                out + first * size, load(x + first * wide, lanes),
                out + second * size, load(x + second * wide, lanes),
                out + third * size, load(x + third * wide, lanes),
                out + fourth * size, load(x + fourth * wide, lanes),
            )  # fmt: skip

    out = np.empty(values.size, dtype)
    assert values.size % (4 * lanes) == 0
    (four if by_four else one)(values.ctypes.data, out.ctypes.data, values.size)
    return out


def hard_values() -> Array:
    """Return float32 numbers at every place where rounding to 16 bits decides something, and random ones."""
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        exact = np.concatenate([ALL_16_BITS.view(np.float16).astype(np.float32), bfloat16_to_float32(ALL_16_BITS)])
    # The neighbours of every number of 16 bits, its ties, and the neighbours of those.
    offsets = np.array([0, 1, -1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.int64)
    around = (exact.view(np.uint32).astype(np.int64)[:, None] + offsets).ravel() & 0xFFFFFFFF
    # Subnormal numbers of float16 and the ties between them, which lie closer to each other the smaller they are.
    small = (np.arange(1 << 13) * np.float32(2.0**-26)).astype(np.float32)
    small = np.concatenate([small, np.nextafter(small, np.float32(1)), np.nextafter(small, np.float32(-1))])
    small = np.concatenate([small, -small]).view(np.uint32)
    random = rng.integers(0, 1 << 32, 1 << 18)
    bits = np.concatenate([around, small, random]).astype(np.uint32)
    return np.resize(bits, -(-bits.size // 64) * 64).view(np.float32)


HARD_VALUES = hard_values()


@pytest.mark.parametrize(("name", "lanes"), HALVES)
def test_every_pattern_of_16_bits_is_widened_exactly(name: str, lanes: int) -> None:
    numbers = bfloat16_to_float32(ALL_16_BITS) if "BF16" in name else ALL_16_BITS.view(np.float16).astype(np.float32)
    assert_same_bits(load_all(name, ALL_16_BITS, lanes), lanes_of(name, numbers, lanes))


@pytest.mark.parametrize(
    ("name", "lanes", "by_four"), [(*case, False) for case in HALVES] + [("PACKED_BF16", 16, True)]
)
def test_float32_is_rounded_to_16_bits_as_numpy_rounds_it(name: str, lanes: int, by_four: bool) -> None:
    values, dtype = HARD_VALUES, ml_dtypes.bfloat16 if "BF16" in name else np.float16
    if name == "PACKED_BF16":  # whose NaNs are plain: `make_step` sees to that
        values = np.where(np.isnan(values), np.float32(np.nan), values)
    expected = float32_to_bfloat16(values).view(dtype) if "BF16" in name else values.astype(np.float16)
    found = store_all(name, lanes_of(name, values, lanes), lanes, dtype, by_four=by_four)
    assert_same_bits(found, expected)
    assert np.isnan(expected.astype(np.float32)).sum() == np.isnan(values).sum() > 1000


@pytest.mark.parametrize("by_four", [False, True], ids=["one", "four"])
def test_one_tie_in_any_lane_of_packed_bfloat16_goes_to_the_even_neighbour(by_four: bool) -> None:
    # Vectors are rounded in a branch of its own if there is any tie: here there is one.
    for tie in (0x3F808000, 0x3F818000, 0xBF808000, 0x00008000, 0x7F7F8000):
        values = np.full((32, 32), 1.2345, np.float32)
        values.view(np.uint32)[np.arange(32), np.arange(32)] = tie
        expected = float32_to_bfloat16(values.ravel()).view(ml_dtypes.bfloat16)
        found = store_all("PACKED_BF16", lanes_of("PACKED_BF16", values, 16), 16, ml_dtypes.bfloat16, by_four=by_four)
        assert_same_bits(found, expected)


@pytest.mark.parametrize(("name", "lanes"), [case for case in CASES if case[0] in ("F32", "F64")])
def test_float32_and_float64_are_loaded_and_stored_bit_for_bit(name: str, lanes: int) -> None:
    values = HARD_VALUES[-1 << 16 :].astype({"F32": np.float32, "F64": np.float64}[name])
    assert load_all(name, values, lanes).tobytes() == values.tobytes()
    assert store_all(name, values, lanes, values.dtype, by_four=False).tobytes() == values.tobytes()


@pytest.mark.parametrize(("name", "lanes"), HALVES)
def test_what_was_widened_is_stored_as_it_was(name: str, lanes: int) -> None:
    storage_dtype: Callable[..., Any] = ml_dtypes.bfloat16 if "BF16" in name else np.float16
    numbers = load_all(name, ALL_16_BITS, lanes)
    for by_four in (False, True)[: 1 if storage_of(name).store_four is None else 2]:
        found = store_all(name, numbers, lanes, storage_dtype, by_four=by_four)
        assert_same_bits(found, ALL_16_BITS.view(storage_dtype))
