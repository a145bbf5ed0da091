"""A token's row of pairs, of any width, cut into panels of fixed widths: one intrinsic (LLVM)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .panel import INTERLEAVED, Panel
from .storage import F32, F64, ITEMSIZE, TABLE_ITEMSIZE, register_bytes

# The widest panel is the row of a 256-channel head: walking the heads once, not twice for 64 pairs each, measured
# 32 against 38 us for 64 tokens of 16+4 heads (AVX2).
WIDEST = 128

# NumPy's arrays start 16 bytes past a multiple of 64, so every second vector would lie across two cache lines. A panel
# that begins there takes short steps up to the next multiple of a register, and whole registers from there on.
NUMPY_STARTS = 16

# The processor fetches ahead by itself where memory is walked in its order. It does not foresee what comes next where
# halves lie so many bytes apart or more, nor in heads of two of the widest panels, nor where tokens lie inside heads
# (`fetch`). There it is told, so many bytes before. Measured on AVX2, one thread, 4096 tokens, as times the stream:
# 16+4 heads x 256 in float32, half, from 2.6 to 1.4 (64 tokens: from 1.33 to 1.21; one: 50 ns more); 4 x 512,
# interleaved, from 4.4 to 2.7; 32+8 x 128 with heads outside tokens from 1.5 to 1.25. Told without need it loses: 32+8
# x 128 with tokens outside heads 1.2 instead of 1.0.
FAR_APART = 512
AHEAD = 8192
# In pairs. For narrower panels it never is, nor for 16-bit ones below the widest: they gain nothing.
NARROWEST_FETCHED = 32


@intrinsic(prefer_literal=True)
def rotate_row(
    typingctx: Any,
    storage: Any,
    layout: Any,
    pairs: Any,
    fetch: Any,
    cos: Any,
    sin: Any,
    q: Any,
    q_heads: Any,
    q_stride: Any,
    k: Any,
    k_heads: Any,
    k_stride: Any,
) -> Any:
    """Rotate all pairs of one token, in place, in all its heads of q and of k.

    storage and layout are constants. fetch is not 0 where memory is much and walked out of its order; wide heads are
    fetched ahead in any case. cos, sin, q and k are addresses: of the token's rows and of the first channel of its
    rotary block in its first head. Strides are bytes from head to head.
    """
    code, shape = storage.literal_value, layout.literal_value
    signature = types.void(storage, layout, *[types.int64] * 10)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        builder.call(_new_row(context, builder, code, shape), arguments[2:])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def row_address(typingctx: Any, storage: Any, layout: Any) -> Any:
    """Return the address of the function that `rotate_row` calls for a storage and layout, both constants."""
    code, shape = storage.literal_value, layout.literal_value

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return builder.ptrtoint(_new_row(context, builder, code, shape), ir.IntType(64))

    return types.int64(storage, layout), codegen


_KIND = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10)


def _new_row(context: Any, builder: Any, storage: int, layout: int) -> ir.Function:
    """Write the function that rotates a row into the builder's module.

    It is not inlined: in the middle of the entry its loops would run out of registers. Its stack is aligned, so that
    tables that found no register lie within cache lines.
    """
    row = ir.Function(builder.module, _KIND, builder.module.get_unique_name("rotate_row"))
    row.linkage = "internal"
    row.attributes.add("noinline")
    row.attributes.alignstack = register_bytes(context)
    _write_row(context, ir.IRBuilder(row.append_basic_block()), storage, layout, row.args)
    return row


def _write_row(context: Any, builder: Any, storage: int, layout: int, arguments: Any) -> None:
    """Write the body of the function that rotates a row."""
    pairs, fetch, cos, sin, q, q_heads, q_stride, k, k_heads, k_stride = arguments
    pair_bytes = ITEMSIZE[storage] * (2 if layout == INTERLEAVED else 1)  # from a pair to the next
    partner = builder.mul(pairs, _constant(ITEMSIZE[storage]))
    register = register_bytes(context)
    lead = (register - NUMPY_STARTS) // pair_bytes if register > NUMPY_STARTS and storage in (F32, F64) else 0
    # Asked of q alone, as k lies likewise in most cases: either way is right wherever it lies.
    start = builder.sub(q, _constant(NUMPY_STARTS))
    bits = builder.or_(builder.or_(start, q_stride), partner)
    as_usual = builder.icmp_unsigned("==", builder.and_(bits, _constant(register - 1)), _constant(0))
    fewest = 2 * WIDEST if layout == INTERLEAVED else FAR_APART // ITEMSIZE[storage]
    unforeseen = builder.or_(
        builder.icmp_unsigned(">=", pairs, _constant(fewest)), builder.icmp_unsigned("!=", fetch, _constant(0))
    )
    narrowest = NARROWEST_FETCHED if storage in (F32, F64) else WIDEST

    def rotate_panel(width: int, first: ir.Value) -> None:
        if not lead or width * pair_bytes < 2 * register:
            rotate_heads(width, first, 0)
            return
        with builder.if_else(as_usual) as (then, otherwise):
            with then:
                rotate_heads(width, first, lead)
            with otherwise:
                rotate_heads(width, first, 0)

    def rotate_heads(width: int, first: ir.Value, lead: int) -> None:
        table_bytes = builder.mul(first, _constant(TABLE_ITEMSIZE[storage]))
        head_bytes = builder.mul(first, _constant(pair_bytes))
        q_panel, k_panel = builder.add(q, head_bytes), builder.add(k, head_bytes)
        panel = Panel(context, builder, storage, layout, width, partner, lead)
        panel.load_tables(builder.add(cos, table_bytes), builder.add(sin, table_bytes))
        # One loop over the heads of q and k together: the panel's code stands only once.
        with cgutils.for_range(builder, builder.add(q_heads, k_heads)) as loop:
            in_q = builder.icmp_signed("<", loop.index, q_heads)
            q_head = builder.add(q_panel, builder.mul(loop.index, q_stride))
            k_head = builder.add(k_panel, builder.mul(builder.sub(loop.index, q_heads), k_stride))
            head = builder.select(in_q, q_head, k_head)
            if width >= narrowest:
                with builder.if_then(unforeseen):
                    panel.fetch(builder.add(head, _constant(AHEAD)))
            panel.rotate(head)

    with cgutils.for_range(builder, builder.udiv(pairs, _constant(WIDEST))) as loop:
        rotate_panel(WIDEST, builder.mul(loop.index, _constant(WIDEST)))
    # What is left, one panel for each bit of its number; it starts where the higher bits end.
    width = WIDEST // 2
    while width:
        asked = builder.and_(pairs, _constant(width))
        with builder.if_then(builder.icmp_unsigned("!=", asked, _constant(0))):
            rotate_panel(width, builder.and_(pairs, _constant(-2 * width)))
        width //= 2
    builder.ret_void()


def _constant(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)
