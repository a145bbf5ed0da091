"""How numbers lie in memory, and how they become vectors to compute on (LLVM).

The kernels know four storages. float32 and float64 are computed on as they are. float16 and bfloat16 are widened to
float32, exactly, and rounded once on the way back, to nearest, ties to even. Numba has no 16-bit floats on a CPU:
users' own jitted code gives them as uint16, and an entry is told nothing of an array's dtype (seen.py).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

F32, F64, F16, BF16 = range(4)
NAMES = ("f32", "f64", "f16", "bf16")
ITEMSIZE = (4, 8, 2, 2)
TABLE_ITEMSIZE = (4, 8, 4, 4)
CACHE_LINE = 64

_I16, _I32, _FLOAT, _DOUBLE, _HALF = ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.DoubleType(), ir.HalfType()


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """Return the type of a vector of that many elements."""
    return ir.VectorType(element, lanes)


def table_element(storage: int) -> ir.Type:
    """Return the type that cos and sin have, and that the rotation is computed in."""
    return _DOUBLE if storage == F64 else _FLOAT


def _constant(like: ir.Value, value: float) -> ir.Constant:
    return ir.Constant(like.type, [value] * like.type.count)


def _bits(builder: Any, floats: ir.Value) -> ir.Value:
    return builder.bitcast(floats, vector(_I32, floats.type.count))


def _floats(builder: Any, bits: ir.Value) -> ir.Value:
    return builder.bitcast(bits, vector(_FLOAT, bits.type.count))


def load(builder: Any, address: ir.Value, element: ir.Type, lanes: int, alignment: int) -> ir.Value:
    """Load a vector from an address that is aligned to its array's elements only."""
    pointer = builder.inttoptr(address, vector(element, lanes).as_pointer())
    return builder.load(pointer, align=alignment)


def store(builder: Any, value: ir.Value, address: ir.Value, alignment: int) -> None:
    """Store a vector to an address that is aligned to its array's elements only."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=alignment)


def fetch(builder: Any, address: ir.Value, length: int) -> None:
    """Have so many bytes brought into the second-level cache; at an address without memory nothing happens."""
    place, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place, number, number, number])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place], kind)
    to_read, second_level, data = number(0), number(2), number(1)
    for distance in range(0, length, CACHE_LINE):
        line = builder.inttoptr(builder.add(address, ir.Constant(address.type, distance)), place)
        builder.call(prefetch, [line, to_read, second_level, data])


def load_numbers(context: Any, builder: Any, storage: int, address: ir.Value, lanes: int) -> ir.Value:
    """Load consecutive elements, one to a lane, widened to the type that is computed in."""
    if storage in (F32, F64):
        return load(builder, address, table_element(storage), lanes, ITEMSIZE[storage])
    bits = load(builder, address, _I16, lanes, 2)
    if storage == F16 and has_half(context):
        return builder.fpext(builder.bitcast(bits, vector(_HALF, lanes)), vector(_FLOAT, lanes))
    wide = builder.zext(bits, vector(_I32, lanes))
    if storage == F16:
        return _half_to_float(builder, wide)
    return _floats(builder, builder.shl(wide, _constant(wide, 16)))


def store_numbers(context: Any, builder: Any, storage: int, value: ir.Value, address: ir.Value) -> None:
    """Store one lane to each of consecutive elements, rounded once to the storage's type."""
    lanes = value.type.count
    if storage == BF16:
        rounded = round_to_bfloat16(builder, value)
        value = builder.trunc(builder.lshr(rounded, _constant(rounded, 16)), vector(_I16, lanes))
    elif storage == F16 and has_half(context):
        value = builder.bitcast(builder.fptrunc(value, vector(_HALF, lanes)), vector(_I16, lanes))
    elif storage == F16:
        value = builder.trunc(_float_to_half(builder, value), vector(_I16, lanes))
    store(builder, value, address, ITEMSIZE[storage])


def load_packed_bfloat16(builder: Any, address: ir.Value, lanes: int) -> tuple[ir.Value, ir.Value]:
    """Load two bfloat16 numbers to a 32-bit lane and split them: those at even places, those at odd places."""
    both = load(builder, address, _I32, lanes, 2)
    even = builder.shl(both, _constant(both, 16))
    odd = builder.and_(both, _constant(both, 0xFFFF0000))
    return _floats(builder, even), _floats(builder, odd)


def store_packed_bfloat16(builder: Any, even: ir.Value, odd: ir.Value, address: ir.Value) -> None:
    """Store the upper halves of both vectors, of float32 bits rounded before, to even and odd places."""
    halves = vector(_I16, 2 * even.type.count)
    low = builder.bitcast(builder.lshr(even, _constant(even, 16)), halves)
    high = builder.bitcast(odd, halves)
    choices = [lane + halves.count * (lane % 2) for lane in range(halves.count)]
    both = builder.shuffle_vector(low, high, ir.Constant(vector(_I32, halves.count), choices))
    store(builder, both, address, 2)


def round_to_bfloat16(builder: Any, value: ir.Value) -> ir.Value:
    """Return float32 bits whose upper half is the bfloat16 nearest to value; the lower half is of no meaning.

    Adding just under half a unit of the last kept bit, plus that bit itself, carries exactly where rounding to
    nearest, ties to even, rounds up. That would carry a NaN whose lower half is all ones into another number. There is
    none: a NaN came from bfloat16, with a lower half of zeros, or was made by the rotation, with zeros, or stood in the
    tables, and those go through `with_plain_nans`.
    """
    bits = _bits(builder, value)
    last_kept = builder.and_(builder.lshr(bits, _constant(bits, 16)), _constant(bits, 1))
    return builder.add(bits, builder.add(last_kept, _constant(bits, 0x7FFF)))


def round_to_bfloat16_together(builder: Any, values: list[ir.Value]) -> list[ir.Value]:
    """Return the same for vectors of one type, with half the instructions.

    Adding half a unit of the last kept bit rounds right unless the bits below it are exactly that half. Of such a tie
    (1 result in 65,536) the sum's lower half is zero, and its last kept bit has to be cleared. One branch asks for all
    the vectors whether there is any.
    """
    halves = vector(_I16, 2 * values[0].type.count)
    rounded = [builder.add(bits, _constant(bits, 0x8000)) for bits in (_bits(builder, value) for value in values)]
    least = builder.bitcast(rounded[0], halves)
    for bits in rounded[1:]:
        words = builder.bitcast(bits, halves)
        least = builder.select(builder.icmp_unsigned("<", words, least), words, least)
    lower = builder.and_(builder.bitcast(least, rounded[0].type), _constant(rounded[0], 0xFFFF))
    ties = builder.bitcast(builder.icmp_unsigned("==", lower, _constant(lower, 0)), ir.IntType(values[0].type.count))
    before = builder.block
    with builder.if_then(builder.icmp_unsigned("!=", ties, ir.Constant(ties.type, 0)), likely=False):
        to_even = []
        for bits in rounded:
            tie = builder.icmp_unsigned("==", builder.and_(bits, _constant(bits, 0xFFFF)), _constant(bits, 0))
            to_even.append(builder.select(tie, builder.and_(bits, _constant(bits, 0xFFFE0000)), bits))
        rare = builder.block
    results = []
    for bits, mended in zip(rounded, to_even, strict=True):
        phi = builder.phi(bits.type)
        phi.add_incoming(bits, before)
        phi.add_incoming(mended, rare)
        results.append(phi)
    return results


def with_plain_nans(builder: Any, value: ir.Value) -> ir.Value:
    """Return float32 numbers whose NaNs have a lower half of zeros, as `round_to_bfloat16` needs them."""
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(nan, _floats(builder, _constant(_bits(builder, value), 0x7FC00000)), value)


def register_bytes(context: Any) -> int:
    """Return the size of the vector registers that code is made for."""
    features = context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features and "+prefer-256-bit" not in features:
        return 64
    return 32 if "+avx2" in features else 16


def has_half(context: Any) -> bool:
    """Tell whether the processor that code is made for converts between float16 and float32 itself.

    Where it does not, LLVM would call helper functions that a JIT cannot find, which ends the process. The triple
    and the features are part of the cache key, so that code made for one answer is never loaded for the other.
    """
    triple, _, features = context.codegen().magic_tuple()
    if triple.startswith(("aarch64", "arm64")):
        return True
    return "+f16c" in features.split(",")


def _half_to_float(builder: Any, half: ir.Value) -> ir.Value:
    """Widen float16 bits without the processor's help: exact for every pattern."""
    # Exponent and mantissa moved to float32's places read as the number times 2**-112; the product puts that
    # right, subnormals included. The largest exponent (infinity, NaN) has to stay the largest.
    magnitude = builder.shl(builder.and_(half, _constant(half, 0x7FFF)), _constant(half, 13))
    floats = _floats(builder, magnitude)
    scaled = _bits(builder, builder.fmul(floats, _constant(floats, 2.0**112)))
    special = builder.icmp_unsigned(">=", magnitude, _constant(half, 0x7C00 << 13))
    finite_or_not = builder.select(special, builder.or_(magnitude, _constant(half, 0x7F800000)), scaled)
    sign = builder.shl(builder.and_(half, _constant(half, 0x8000)), _constant(half, 16))
    return _floats(builder, builder.or_(finite_or_not, sign))


def _float_to_half(builder: Any, value: ir.Value) -> ir.Value:
    """Round to float16 bits without the processor's help: to nearest, ties to even."""
    bits = _bits(builder, value)
    magnitude = builder.and_(bits, _constant(bits, 0x7FFFFFFF))
    # Normal results: move the exponent's bias from 127 to 15 and round as for bfloat16, 13 bits lower.
    last_kept = builder.and_(builder.lshr(magnitude, _constant(bits, 13)), _constant(bits, 1))
    bias = _constant(bits, ((15 - 127) << 23) + 0xFFF & 0xFFFFFFFF)
    normal = builder.lshr(builder.add(builder.add(magnitude, bias), last_kept), _constant(bits, 13))
    # Subnormal results: one half has the unit of its last place at 2**-24, the smallest float16, so that adding it
    # rounds there, and the sum's lower bits are the result.
    floats = _floats(builder, magnitude)
    sum_bits = _bits(builder, builder.fadd(floats, _constant(floats, 0.5)))
    subnormal = builder.sub(sum_bits, _constant(bits, 0x3F000000))
    result = builder.select(builder.icmp_unsigned("<", magnitude, _constant(bits, 0x38800000)), subnormal, normal)
    infinite = builder.icmp_unsigned(">=", magnitude, _constant(bits, 0x47800000))
    result = builder.select(infinite, _constant(bits, 0x7C00), result)
    is_nan = builder.icmp_unsigned(">", magnitude, _constant(bits, 0x7F800000))
    result = builder.select(is_nan, _constant(bits, 0x7E00), result)
    sign = builder.and_(builder.lshr(bits, _constant(bits, 16)), _constant(bits, 0x8000))
    return builder.or_(result, sign)
