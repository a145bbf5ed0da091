"""What kernels ask of the processor and of Python besides arithmetic: tables in registers, hints, modes, the GIL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target

from .vector import ELEMENT_BITS, Vector, intrinsic, require_vector

CACHE_LINE = 64

_I64 = ir.IntType(64)


def _target() -> tuple[str, str, list[str]]:
    """Return triple, name and features of the processor that code is made for: all are part of Numba's cache key."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, name, features.split(",")


def processor() -> str:
    """Return LLVM's name of the processor that code is made for."""
    return _target()[1]


def register_bytes() -> int:
    """Return the size of the vector registers that code is made for."""
    features = _target()[2]
    if "+avx512f" in features and "+prefer-256-bit" not in features:
        return 64
    return 32 if "+avx2" in features else 16


def splits_vectors() -> bool:
    """Tell whether LLVM keeps a vector of two registers in two.

    Where 256 bits are preferred on a processor with AVX-512, LLVM takes one register of 512 for it all the same.
    """
    return register_bytes() == 64 or "+avx512f" not in _target()[2]


def has_half() -> bool:
    """Tell whether the processor that code is made for converts between float16 and float32 itself.

    Where it does not, LLVM would call helper functions that a JIT cannot find, which ends the process.
    """
    triple, _, features = _target()
    return triple.startswith(("aarch64", "arm64")) or "+f16c" in features


class Side(NamedTuple):
    """How a head lies in memory where it is read, or where it is written, in bytes."""

    itemsize: int  # of a channel
    pair_size: int  # from a pair to the next: twice itemsize where the members of a pair are neighbours


def for_each_head(
    rotate: Any, store: Any, store_four: Any, element: str, widths: Sequence[int], read: Side, written: Side,
    *, in_place: bool, ahead: int = 0,
) -> Any:  # fmt: skip
    """Return the function that rotates some of the pairs in all heads of a and of b, or from a to b.

    It takes (tables, first, heads, prefetching): (cos, sin, n_pairs), the addresses of a token's cosines and sines and
    their number; the first pair; (a, n_a, a_stride, b, n_b, b_stride), of each array the address of its first head, the
    number of heads and the bytes from head to head. It stands for these lines, in which all of `widths` is unrolled, so
    that cosines and sines stay in registers from head to head:

        tables = [(load(cos, width), load(sin, width)) for width in widths]    # those of pair `first` and on
        for x, out in (heads of a, in place; then those of b), or (a head of a, the same head of b):
            for cos, sin in tables:
                one, other = rotate(cos, sin, one_in_x, other_in_x)            # or only one, the pairs themselves
                store(one_in_out, one)
                store(other_in_out, other)

    `one` and `other` are two runs of memory, of as many channels as the width has pairs, that hold the pairs. `other`
    is n_pairs channels behind `one`, or right behind it where the members of a pair are neighbours. The functions are
    jitted, and compiled for each width. What two equal widths in turn give is stored by one call of store_four, if that
    is not None. If `prefetching` is true, what lies `ahead` bytes behind a head is prefetched.
    """
    vectors = [Vector(element, width) for width in widths]
    size = ELEMENT_BITS[element] // 8

    @intrinsic
    def rotate_panel(typingctx: Any, tables: Any, first: Any, heads: Any, prefetching: Any) -> Any:
        def typed(function: Any, *arguments: Any) -> tuple[Any, Any]:
            kind = typingctx.resolve_value_type(function)
            return kind, kind.get_call_type(typingctx, arguments, {})

        rotates = {vector: typed(rotate, vector, vector, types.int64, types.int64) for vector in dict.fromkeys(vectors)}

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
            addresses, first, heads, prefetching = arguments
            cos, sin, n_pairs = _unpacked(builder, addresses)
            a, n_a, a_stride, b, n_b, b_stride = _unpacked(builder, heads)
            partner, b_partner = (builder.mul(n_pairs, _I64(side.itemsize)) for side in (read, written))
            # Tables that find no register lie on the stack: aligned, so that no load of them crosses a cache line (no
            # difference on Zen 1, which loads 32 bytes as two halves). Inlined into a caller, the loops would run out
            # of registers.
            builder.function.attributes.alignstack = register_bytes()
            builder.function.attributes.add("noinline")

            def call(function: tuple[Any, Any], given: list[ir.Value]) -> ir.Value:
                compiled = context.get_function(*function)
                context.add_linking_libs(getattr(compiled, "libs", ()))
                return compiled(builder, given)

            def load_tables(table: ir.Value) -> Iterator[ir.Value]:
                place = builder.add(table, builder.mul(first, _I64(size)))
                for vector in vectors:
                    yield builder.load(builder.inttoptr(place, vector.llvm.as_pointer()), align=size)
                    place = builder.add(place, _I64(vector.lanes * size))

            def places(head: ir.Value, before: int, vector: Vector, distance: ir.Value, side: Side) -> list[ir.Value]:
                one = builder.add(head, _I64(before * side.pair_size))
                apart = distance if side.pair_size == side.itemsize else _I64(vector.lanes * side.itemsize)
                return [one, builder.add(one, apart)]

            loaded = list(zip(load_tables(cos), load_tables(sin), strict=True))
            a_first = builder.add(a, builder.mul(first, _I64(read.pair_size)))
            b_first = builder.add(b, builder.mul(first, _I64(written.pair_size)))
            # In place, one loop over the heads of both arrays, so that the code of the steps stands once.
            with cgutils.for_range(builder, builder.add(n_a, n_b) if in_place else n_a) as loop:
                x = builder.add(a_first, builder.mul(loop.index, a_stride))
                if in_place:
                    in_b = builder.add(b_first, builder.mul(builder.sub(loop.index, n_a), b_stride))
                    x = out = builder.select(builder.icmp_signed("<", loop.index, n_a), x, in_b)
                else:
                    out = builder.add(b_first, builder.mul(loop.index, b_stride))
                if ahead:
                    with builder.if_then(prefetching):
                        _prefetch(builder, builder.add(x, _I64(ahead)), partner, sum(widths), read)
                waiting: list[tuple[ir.Value, ir.Value, Any]] = []
                before = 0
                for index, (vector, table) in enumerate(zip(vectors, loaded, strict=True)):
                    result = call(rotates[vector], [*table, *places(x, before, vector, partner, read)])
                    rotated = zip(
                        places(out, before, vector, b_partner, written),
                        _unpacked(builder, result),
                        rotates[vector][1].return_type,
                        strict=False,
                    )
                    before += vector.lanes
                    waiting += rotated
                    if store_four and len(waiting) == 2 and vectors[index + 1 : index + 2] == [vector]:
                        continue
                    if len(waiting) == 4:
                        kinds = [kind for _, _, value in waiting for kind in (types.int64, value)]
                        call(
                            typed(store_four, *kinds), [part for place, value, _ in waiting for part in (place, value)]
                        )
                    else:
                        for place, value, kind in waiting:
                            call(typed(store, types.int64, kind), [place, value])
                    waiting = []
            return context.get_dummy_value()

        return types.void(tables, types.int64, heads, types.boolean), codegen

    return rotate_panel


def _unpacked(builder: Any, packed: ir.Value) -> list[ir.Value]:
    """Return the members of a tuple."""
    return cgutils.unpack_tuple(builder, packed)  # type: ignore[no-any-return, no-untyped-call]


@intrinsic
def rarely_any(typingctx: Any, mask: Any) -> Any:
    """Tell whether a mask is true in any lane, which LLVM takes for unlikely."""
    require_vector(mask, ["bool"])

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        bits = builder.bitcast(arguments[0], ir.IntType(mask.lanes))
        answer = builder.icmp_unsigned("!=", bits, bits.type(0))
        kind = ir.FunctionType(answer.type, [answer.type] * 2)
        expect = builder.module.declare_intrinsic("llvm.expect", [answer.type], kind)
        return builder.call(expect, [answer, answer.type(0)])

    return types.boolean(mask), codegen


def _prefetch(builder: Any, address: ir.Value, partner: ir.Value, pairs: int, side: Side) -> None:
    """Bring some pairs of a head into the second-level cache; without memory at an address nothing happens."""
    pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    to_read, second_level, data = number(0), number(2), number(1)
    halves = [address, builder.add(address, partner)] if side.pair_size == side.itemsize else [address]
    for half in halves:
        for distance in range(0, pairs * side.pair_size, CACHE_LINE):
            line = builder.inttoptr(builder.add(half, _I64(distance)), pointer)
            builder.call(function, [line, to_read, second_level, data])


# ---- Floating-point mode --------------------------------------------------------------------------------------------

# A thread's mode says how it rounds, whether subnormal numbers count as zero, and which exceptions end the process: in
# the register MXCSR of x86-64, in FPCR of aarch64. Default is IEEE 754's: to nearest, with subnormals, no exceptions.


@intrinsic
def enter_ieee_mode(typingctx: Any) -> Any:
    """Set this thread's floating-point mode to IEEE 754's default; returns what `leave_ieee_mode` takes.

    LLVM orders no arithmetic against the mode: what computes between the two has to be a function that is not inlined.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        before = _read_mode(builder)
        with builder.if_then(_differs(builder, before), likely=False):
            _write_mode(builder, _I64(_default_mode()))
        return before

    return types.int64(), codegen


@intrinsic
def leave_ieee_mode(typingctx: Any, before: Any) -> Any:
    """Set this thread's floating-point mode to what it was."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        with builder.if_then(_differs(builder, arguments[0]), likely=False):
            _write_mode(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _differs(builder: Any, mode: ir.Value) -> ir.Value:
    is_x86 = _target()[0].startswith("x86_64")
    control = builder.and_(mode, _I64(0xFFC0)) if is_x86 else mode  # the other bits of MXCSR note what has happened
    return builder.icmp_signed("!=", control, _I64(_default_mode()))


def _default_mode() -> int:
    return 0x1F80 if _target()[0].startswith("x86_64") else 0


def _read_mode(builder: Any) -> ir.Value:
    """Return the mode, as 64 bits; on processors of other kinds a constant."""
    if _target()[0].startswith("x86_64"):
        slot = cgutils.alloca_once(builder, ir.IntType(32))  # type: ignore[no-untyped-call]
        builder.call(_intrinsic(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), slot.type), [slot])
        return builder.zext(builder.load(slot), _I64)
    if _target()[0].startswith(("aarch64", "arm64")):
        return builder.call(_intrinsic(builder, "llvm.aarch64.get.fpcr", _I64), [])
    return _I64(_default_mode())


def _write_mode(builder: Any, mode: ir.Value) -> None:
    if _target()[0].startswith("x86_64"):
        slot = cgutils.alloca_once(builder, ir.IntType(32))  # type: ignore[no-untyped-call]
        builder.store(builder.trunc(mode, ir.IntType(32)), slot)
        builder.call(_intrinsic(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), slot.type), [slot])
    elif _target()[0].startswith(("aarch64", "arm64")):
        builder.call(_intrinsic(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), _I64), [mode])


def _intrinsic(builder: Any, name: str, returned: Any, *arguments: Any) -> ir.Value:
    """Return a function of LLVM's own."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(returned, arguments), name)  # type: ignore[no-untyped-call]


# ---- The GIL --------------------------------------------------------------------------------------------------------

# Python's own functions, which every process of CPython has. The first returns a pointer, which the second takes.
release_gil: Any = types.ExternalFunction("PyEval_SaveThread", types.intp())
take_gil: Any = types.ExternalFunction("PyEval_RestoreThread", types.void(types.intp))


# ---- Numba's threads ------------------------------------------------------------------------------------------------

# How many threads the next loop over `prange` in this thread takes. Processes that run parallel code have both.
get_n_threads: Any = types.ExternalFunction("get_num_threads", types.intp())
set_n_threads: Any = types.ExternalFunction("set_num_threads", types.void(types.intp))
