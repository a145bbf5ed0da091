"""A token's row of pairs, of any width, cut into panels of fixed widths: one intrinsic (LLVM)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .panel import INTERLEAVED, Panel
from .storage import ITEMSIZE, TABLE_ITEMSIZE

# The widest panel is the row of a 256-channel head: walking the heads once, not twice for 64 pairs each, measured
# 32 against 38 us for 64 tokens of 16+4 heads (AVX2).
WIDEST = 128


@intrinsic(prefer_literal=True)
def rotate_row(
    typingctx: Any,
    storage: Any,
    layout: Any,
    pairs: Any,
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

    storage and layout are constants. cos, sin, q and k are addresses: of the token's rows and of the first channel of
    its rotary block in its first head. Strides are bytes from head to head.
    """
    code, shape = storage.literal_value, layout.literal_value
    pair_bytes = ITEMSIZE[code] * (2 if shape == INTERLEAVED else 1)  # from a pair's first channel to the next pair's
    signature = types.void(storage, layout, *[types.int64] * 9)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        pairs, cos, sin, q, q_heads, q_stride, k, k_heads, k_stride = arguments[2:]
        partner = builder.mul(pairs, _constant(ITEMSIZE[code]))

        def rotate_panel(width: int, first: ir.Value) -> None:
            table_bytes = builder.mul(first, _constant(TABLE_ITEMSIZE[code]))
            head_bytes = builder.mul(first, _constant(pair_bytes))
            q_panel, k_panel = builder.add(q, head_bytes), builder.add(k, head_bytes)
            panel = Panel(context, builder, code, shape, width, partner)
            panel.load_tables(builder.add(cos, table_bytes), builder.add(sin, table_bytes))
            # One loop over the heads of q and k together: the panel's code stands only once.
            with cgutils.for_range(builder, builder.add(q_heads, k_heads)) as loop:
                in_q = builder.icmp_signed("<", loop.index, q_heads)
                q_head = builder.add(q_panel, builder.mul(loop.index, q_stride))
                k_head = builder.add(k_panel, builder.mul(builder.sub(loop.index, q_heads), k_stride))
                panel.rotate(builder.select(in_q, q_head, k_head))

        with cgutils.for_range(builder, builder.udiv(pairs, _constant(WIDEST))) as loop:
            rotate_panel(WIDEST, builder.mul(loop.index, _constant(WIDEST)))
        # What is left, one panel for each bit of its number; it starts where the higher bits end.
        width = WIDEST // 2
        while width:
            asked = builder.and_(pairs, _constant(width))
            with builder.if_then(builder.icmp_unsigned("!=", asked, _constant(0))):
                rotate_panel(width, builder.and_(pairs, _constant(-2 * width)))
            width //= 2
        return context.get_dummy_value()

    return signature, codegen


def _constant(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)
