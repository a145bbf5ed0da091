"""One head's channels from one place to another: rotated on the way, or only converted (LLVM).

What is read and what is written may differ in storage and in layout. Both functions here work on addresses; in place
is allowed where layouts are the same, as each step loads all its channels before it stores them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import storage as st
from .panel import INTERLEAVED

_I64 = ir.IntType(64)


@intrinsic(prefer_literal=True)
def pairs_address(typingctx: Any, source: Any, target: Any, layout_in: Any, layout_out: Any) -> Any:
    """Return the address of a function that rotates all pairs of one token's heads from x to out.

    It takes (pairs, cos, sin, x, x_stride, out, out_stride, heads): cos, sin, x and out are addresses, of the token's
    rows, and of the first channel of the rotary block in its first head. Strides are bytes from head to head.
    """
    code_in, code_out = source.literal_value, target.literal_value
    shape_in, shape_out = layout_in.literal_value, layout_out.literal_value

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        function = _new_function(builder, "carry_pairs", 8)
        body = ir.IRBuilder(function.append_basic_block())
        _write_pairs(context, body, code_in, code_out, shape_in, shape_out, function.args)
        return builder.ptrtoint(function, _I64)

    return types.int64(source, target, layout_in, layout_out), codegen


@intrinsic(prefer_literal=True)
def channels_address(typingctx: Any, source: Any, target: Any) -> Any:
    """Return the address of a function (x, out, count) that converts consecutive channels; x and out are addresses."""
    codes = source.literal_value, target.literal_value

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        function = _new_function(builder, "carry_channels", 3)
        _write_channels(context, ir.IRBuilder(function.append_basic_block()), *codes, function.args)
        return builder.ptrtoint(function, _I64)

    return types.int64(source, target), codegen


def _new_function(builder: Any, name: str, arguments: int) -> ir.Function:
    """Begin a function of its own, not inlined, so that its loops have all registers."""
    kind = ir.FunctionType(ir.VoidType(), [_I64] * arguments)
    function = ir.Function(builder.module, kind, builder.module.get_unique_name(name))
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function


def _write_pairs(
    context: Any, builder: Any, source: int, target: int, layout_in: int, layout_out: int, arguments: Any
) -> None:
    """Write the body that rotates the pairs of some heads: heads inside steps, so that tables are loaded once."""
    pairs, cos, sin, x, x_stride, out, out_stride, heads = arguments
    element, table_size = st.table_element(source), st.TABLE_ITEMSIZE[source]
    ends = ((source, layout_in), (target, layout_out))
    partners = [builder.mul(pairs, _constant(st.ITEMSIZE[storage])) for storage, _ in ends]

    def rotate(width: int, first: ir.Value) -> None:
        table = builder.mul(first, _constant(table_size))
        c, s = (st.load(builder, builder.add(rows, table), element, width, table_size) for rows in (cos, sin))
        places = [
            builder.mul(first, _constant(st.ITEMSIZE[storage] * (2 if layout == INTERLEAVED else 1)))
            for storage, layout in ends
        ]
        with cgutils.for_range(builder, heads) as loop:
            read = builder.add(builder.add(x, places[0]), builder.mul(loop.index, x_stride))
            write = builder.add(builder.add(out, places[1]), builder.mul(loop.index, out_stride))
            low, high = _load_couple(context, builder, source, layout_in, width, read, partners[0])
            new_low = builder.fsub(builder.fmul(low, c), builder.fmul(high, s))
            new_high = builder.fadd(builder.fmul(low, s), builder.fmul(high, c))
            _store_couple(context, builder, target, layout_out, new_low, new_high, write, partners[1], source)

    _in_steps(context, builder, source, pairs, rotate)
    builder.ret_void()


def _write_channels(context: Any, builder: Any, source: int, target: int, arguments: Any) -> None:
    """Write the body that converts channels."""
    x, out, count = arguments

    def convert(width: int, first: ir.Value) -> None:
        read = builder.add(x, builder.mul(first, _constant(st.ITEMSIZE[source])))
        write = builder.add(out, builder.mul(first, _constant(st.ITEMSIZE[target])))
        if source == target:  # bits, whatever they mean
            integer = ir.IntType(8 * st.ITEMSIZE[source])
            st.store(builder, st.load(builder, read, integer, width, st.ITEMSIZE[source]), write, st.ITEMSIZE[target])
        else:
            _store(context, builder, target, st.load_numbers(context, builder, source, read, width), write, source)

    _in_steps(context, builder, source, count, convert)
    builder.ret_void()


def _in_steps(context: Any, builder: Any, storage: int, count: ir.Value, step: Any) -> None:
    """Cut a count into steps of a register each, and what is left into one step for each bit of its number."""
    width = st.register_bytes(context) // st.TABLE_ITEMSIZE[storage]
    with cgutils.for_range(builder, builder.udiv(count, _constant(width))) as loop:
        step(width, builder.mul(loop.index, _constant(width)))
    while width > 1:
        width //= 2
        asked = builder.and_(count, _constant(width))
        with builder.if_then(builder.icmp_unsigned("!=", asked, _constant(0))):
            step(width, builder.and_(count, _constant(-2 * width)))


def _load_couple(
    context: Any, builder: Any, storage: int, layout: int, width: int, address: ir.Value, partner: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Load the lower and the higher members of some pairs."""
    if layout == INTERLEAVED:
        both = st.load_numbers(context, builder, storage, address, 2 * width)
        even, odd = ([2 * lane + member for lane in range(width)] for member in (0, 1))
        return _pick(builder, both, both, even), _pick(builder, both, both, odd)
    high = builder.add(address, partner)
    return (
        st.load_numbers(context, builder, storage, address, width),
        st.load_numbers(context, builder, storage, high, width),
    )


def _store_couple(
    context: Any,
    builder: Any,
    storage: int,
    layout: int,
    low: ir.Value,
    high: ir.Value,
    address: ir.Value,
    partner: ir.Value,
    source: int,
) -> None:
    """Store the lower and the higher members of some pairs."""
    if layout == INTERLEAVED:
        width = low.type.count
        zipped = [lane // 2 + (lane % 2) * width for lane in range(2 * width)]
        _store(context, builder, storage, _pick(builder, low, high, zipped), address, source)
        return
    _store(context, builder, storage, low, address, source)
    _store(context, builder, storage, high, builder.add(address, partner), source)


def _store(context: Any, builder: Any, storage: int, value: ir.Value, address: ir.Value, source: int) -> None:
    """Store numbers; a NaN that came from float32 may have any bits, and has to stay one in bfloat16."""
    if storage == st.BF16 and source == st.F32:
        value = st.with_plain_nans(builder, value)
    st.store_numbers(context, builder, storage, value, address)


def _pick(builder: Any, first: ir.Value, second: ir.Value, choices: list[int]) -> ir.Value:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(choices)), choices)
    return builder.shuffle_vector(first, second, mask)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)
