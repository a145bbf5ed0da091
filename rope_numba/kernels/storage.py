"""How numbers lie in memory, and how they become vectors to compute on: a load and a store for each storage.

float32 and float64 are computed on as they are. float16 and bfloat16 are widened to float32, exactly, and rounded once
on the way back, to nearest, ties to even. Numba has no 16-bit floats on a CPU, so kernels read and write their bits.

A load takes an address and lanes, which says how many numbers to load (a constant, or any vector of as many). A store
takes an address and a vector. To add a storage, write the two functions and a line of the table at the end. Numbers of
another size in memory than 2, 4 or 8 bytes need an element of that size in vector.py too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import machine
from .compile import helper
from .machine import rarely_any
from .vector import (
    ELEMENT_BITS,
    alternate,
    as_f32,
    as_loaded,
    as_u16,
    as_u32,
    concat,
    evens_first,
    evens_of,
    first_zipped,
    loader,
    lower_half,
    lower_halves,
    narrow,
    odds_of,
    plain_nans,
    second_zipped,
    select,
    smaller_half,
    storer,
    upper_half,
    upper_halves,
    widen,
)

load_u16, store_u16 = loader("u16"), storer("u16")


class Lanes(NamedTuple):
    """In which order a storage's vectors hold consecutive channels. Each is a function of vectors.

    With EVENS_FIRST a vector of eight holds the channels 0 2 4 6 1 3 5 7.
    """

    order: Callable[..., Any]  # puts one number for each channel into that order
    evens: Callable[..., Any]  # of two vectors that follow each other in memory: their even channels
    odds: Callable[..., Any]  # and their odd channels
    first: Callable[..., Any]  # from even and odd channels, the first of those two vectors
    second: Callable[..., Any]  # and the second one


CONSECUTIVE = Lanes(as_loaded, evens_of, odds_of, first_zipped, second_zipped)
EVENS_FIRST = Lanes(evens_first, lower_halves, upper_halves, lower_halves, upper_halves)


class Storage(NamedTuple):
    """A way of keeping numbers in memory."""

    name: str
    memory: str  # the element of vector.py that has its bits: "f32", "f64", or "u16" where numbers are converted
    computed: str  # the element that cosines, sines and all arithmetic have
    load: Callable[..., Any]  # (address, lanes) -> vector
    store: Callable[..., Any]  # (address, vector)
    store_four: Callable[..., Any] | None = None  # (address, vector, ...) of four, if that is quicker than one by one
    lanes: Lanes = CONSECUTIVE

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return ELEMENT_BITS[self.memory] // 8

    @property
    def table_itemsize(self) -> int:
        """Bytes of a cosine."""
        return ELEMENT_BITS[self.computed] // 8


# ---- float16 without an instruction for it --------------------------------------------------------------------------


@helper
def _load_f16(address: int, lanes: Any) -> Any:
    """Widen float16: exact for every pattern."""
    half = widen(load_u16(address, lanes))
    # In the fields of float32, exponent and mantissa mean the number times 2**-112 (biases 15 and 127). Multiplying by
    # 2**112 undoes that, exactly, for subnormal numbers too. The largest exponent (infinity, NaN) stays the largest.
    magnitude = (half & 0x7FFF) << 13
    scaled = as_u32(as_f32(magnitude) * 2.0**112)
    finite_or_not = select(magnitude >= 0x7C00 << 13, magnitude | 0x7F800000, scaled)
    return as_f32(finite_or_not | ((half & 0x8000) << 16))


@helper
def _store_f16(address: int, value: Any) -> None:
    """Round to float16."""
    bits = as_u32(value)
    magnitude = bits & 0x7FFFFFFF
    # Normal results: move the exponent's bias from 127 to 15, add half a unit minus one and the last kept bit, and drop
    # 13 bits.
    normal = (magnitude + (((15 - 127) << 23) + 0xFFF) + ((magnitude >> 13) & 1)) >> 13
    # Subnormal results: the last place of 0.5 is 2**-24, the smallest float16. Adding 0.5 rounds to that, and without
    # the bits of 0.5 the sum's are the result.
    subnormal = as_u32(as_f32(magnitude) + 0.5) - 0x3F000000
    result = select(magnitude < 0x38800000, subnormal, normal)  # below 2**-14, the smallest normal float16
    result = select(magnitude >= 0x47800000, 0x7C00, result)  # from 2**16 on: infinite
    result = select(magnitude > 0x7F800000, 0x7E00, result)  # NaN
    store_u16(address, narrow(result | ((bits >> 16) & 0x8000)))


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


@helper
def _load_bf16(address: int, lanes: Any) -> Any:
    return as_f32(widen(load_u16(address, lanes)) << 16)


@helper
def _store_bf16(address: int, value: Any) -> None:
    """Round to bfloat16.

    Adding just under half a unit of the last kept bit, plus that bit itself, carries exactly where rounding to
    nearest, ties to even, rounds up. A NaN whose lower half is all ones would be carried into another number.
    """
    bits = as_u32(plain_nans(value))
    store_u16(address, narrow((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16))


@helper
def _load_packed_bf16(address: int, lanes: Any) -> Any:
    """Load bfloat16 numbers, those at even places before those at odd places: two share a 32-bit lane in memory."""
    both = as_u32(load_u16(address, lanes))
    return as_f32(concat(both << 16, both & 0xFFFF0000))


@helper
def _store_packed_bf16(address: int, value: Any) -> None:
    """Round to bfloat16 and store what `_load_packed_bf16` loads.

    NaNs are plain: they came from bfloat16, or were made by the rotation, or stood in the tables, which
    `panel.make_step` sees to.
    """
    bits = as_u32(value)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    store_u16(address, alternate(as_u16(lower_half(rounded) >> 16), as_u16(upper_half(rounded))))


@helper
def _store_four_packed_bf16(first: int, a: Any, second: int, b: Any, third: int, c: Any, fourth: int, d: Any) -> None:
    """Do the same for four vectors, with half the instructions.

    Adding half a unit of the last kept bit rounds right unless the bits below it are exactly that half. Of such a tie
    (1 result in 65,536) the sum's lower half is zero, and the last kept bit has to be cleared. One branch asks for all
    vectors whether there is any.
    """
    bits = as_u32(concat(concat(a, b), concat(c, d))) + 0x8000
    least = smaller_half(smaller_half(smaller_half(as_u16(bits))))
    if rarely_any((as_u32(least) & 0xFFFF) == 0):
        bits = select((bits & 0xFFFF) == 0, bits & 0xFFFE0000, bits)
    a, b = lower_half(lower_half(bits)), upper_half(lower_half(bits))
    c, d = lower_half(upper_half(bits)), upper_half(upper_half(bits))
    store_u16(first, alternate(as_u16(lower_half(a) >> 16), as_u16(upper_half(a))))
    store_u16(second, alternate(as_u16(lower_half(b) >> 16), as_u16(upper_half(b))))
    store_u16(third, alternate(as_u16(lower_half(c) >> 16), as_u16(upper_half(c))))
    store_u16(fourth, alternate(as_u16(lower_half(d) >> 16), as_u16(upper_half(d))))


# ---- The table ------------------------------------------------------------------------------------------------------

F32 = Storage("f32", "f32", "f32", loader("f32"), storer("f32"))
F64 = Storage("f64", "f64", "f64", loader("f64"), storer("f64"))
F16 = Storage("f16", "u16", "f32", loader("f16"), storer("f16"))
F16_BY_WHOLE_NUMBERS = Storage("f16", "u16", "f32", _load_f16, _store_f16)
BF16 = Storage("bf16", "u16", "f32", _load_bf16, _store_bf16)
# bfloat16 in place, where the same channels are written that were read: half the instructions.
PACKED_BF16 = Storage(
    "packed_bf16", "u16", "f32", _load_packed_bf16, _store_packed_bf16, _store_four_packed_bf16, EVENS_FIRST
)

STORAGES = {storage.name: storage for storage in (F32, F64, F16, BF16)}


def storage_of(name: str) -> Storage:
    """Return a storage by its name; that of float16 depends on the processor."""
    return F16_BY_WHOLE_NUMBERS if name == "f16" and not machine.has_half() else STORAGES[name]
