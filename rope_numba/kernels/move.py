"""The compiled entry of a rotation from one array into another: `out=`, and layouts that change on the way.

It takes one array at a time, as (batch, tokens, heads, head_dim), and trusts its arguments: arrays.py has looked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import int64, types

from .carry import carry_channels, carry_pairs
from .compile import compile_kernel
from .entry import BLOCK_TOKENS, GROUP_HEADS, NUMBERS
from .panel import INTERLEAVED
from .share import planned
from .storage import F64, ITEMSIZE, NAMES, TABLE_ITEMSIZE
from .told import HEAD_DIM, OFFSET, ONE_ROW, PER_ROW, SHARED, WIDEST_HEAD

Mover = Callable[[Any, Any, Any, int], int]


def make_mover(source: int, target: int, layout_in: int, layout_out: int) -> Mover:
    """Compile the entry that rotates x of one storage and layout into out of another.

    The compiled function takes (x, out, rows, told): both arrays with four axes, those of 16 bits as uint16, rows of
    shape (batch or 1, tokens or 1, 2, pairs), and what `told.tell` says. It answers DONE, FAILED or the address of a
    plan.
    """
    itemsize, out_itemsize, table_itemsize = ITEMSIZE[source], ITEMSIZE[target], TABLE_ITEMSIZE[source]
    crossing = layout_in != layout_out

    def walk(numbers: Any, chunk: int, chunks: int) -> None:
        (batch, tokens, heads, block, groups, head_dim, rotary_offset) = numbers[:7]
        (pairs, table, table_batch, table_token) = numbers[7:11]
        (x_address, x_batch, x_token, x_stride, out_address, out_batch, out_token, out_stride) = numbers[11:]
        copies = x_address != out_address  # in place, other channels stay where they are
        behind = rotary_offset + 2 * pairs
        total = batch * tokens
        first, stop = total * chunk // chunks, total * (chunk + 1) // chunks
        scratch = np.empty(2 * pairs if crossing else 0, np.uint64)
        held = int64(scratch.ctypes.data)
        b = first // tokens
        start = first - b * tokens
        while first < stop:
            count = min(block, tokens - start, stop - first)
            for group in range(groups):
                low, high = heads * group // groups, heads * (group + 1) // groups
                for token in range(start, start + count):
                    cos = table + b * table_batch + token * table_token
                    sin = cos + pairs * table_itemsize
                    head = x_address + b * x_batch + token * x_token + low * x_stride
                    target_head = out_address + b * out_batch + token * out_token + low * out_stride
                    block_in = head + rotary_offset * itemsize
                    block_out = target_head + rotary_offset * out_itemsize
                    if crossing:
                        # A head is taken out of the way first: what is written may be what has yet to be read.
                        for _ in range(high - low):
                            carry_channels(source, source, block_in, held, 2 * pairs)  # type: ignore[call-arg]
                            carry_pairs(
                                source, target, layout_in, layout_out, pairs, cos, sin, held, 0, block_out, 0, 1
                            )
                            block_in += x_stride
                            block_out += out_stride
                    else:
                        carry_pairs(  # type: ignore[call-arg]
                            source,
                            target,
                            layout_in,
                            layout_out,
                            pairs,
                            cos,
                            sin,
                            block_in,
                            x_stride,
                            block_out,
                            out_stride,
                            high - low,
                        )
                    if copies and head_dim > 2 * pairs:
                        for _ in range(high - low):
                            carry_channels(source, target, head, target_head, rotary_offset)  # type: ignore[call-arg]
                            carry_channels(
                                source,
                                target,
                                head + behind * itemsize,
                                target_head + behind * out_itemsize,
                                head_dim - behind,
                            )
                            head += x_stride
                            target_head += out_stride
            first += count
            start += count
            if start == tokens:
                b, start = b + 1, 0
        if crossing:
            scratch[0] = 0  # used here once more, so that Numba frees it after the loop and not before

    do_or_plan: Callable[..., int] = planned(walk)

    def move(x: Any, out: Any, rows: Any, told: int) -> int:
        rotary_offset = (told >> OFFSET) & WIDEST_HEAD
        head_dim = (told >> HEAD_DIM) & WIDEST_HEAD
        batch, tokens, heads = x.shape[0], x.shape[1], x.shape[2]
        pairs = rows.shape[3]
        table_row = 2 * pairs * table_itemsize
        table_token = 0 if told & ONE_ROW else table_row
        table_batch = tokens * table_row if told & PER_ROW else 0
        # As in the entry in place: memory in its own order.
        groups, block = 1, tokens
        if tokens > 1 and abs(out.strides[2]) > abs(out.strides[1]):
            groups, block = (heads + GROUP_HEADS - 1) // GROUP_HEADS, BLOCK_TOKENS
        extent = (batch, tokens, heads, block, groups, head_dim, rotary_offset)
        turn = (pairs, int64(rows.ctypes.data), table_batch, table_token)
        source_place = (int64(x.ctypes.data), x.strides[0], x.strides[1], x.strides[2])
        target_place = (int64(out.ctypes.data), out.strides[0], out.strides[1], out.strides[2])
        return do_or_plan(extent + turn + source_place + target_place, told & SHARED)

    layouts = "_".join("interleaved" if layout == INTERLEAVED else "half" for layout in (layout_in, layout_out))
    name = f"move_{NAMES[source]}_{NAMES[target]}_{layouts}"
    table_type: Any = types.Array(types.float64 if source == F64 else types.float32, 4, "C")
    x_type = types.Array(NUMBERS[source], 4, "A", readonly=True)  # as writeable ones may be given too
    out_type = types.Array(NUMBERS[target], 4, "A")
    return compile_kernel(move, name, types.int64(x_type, out_type, table_type, types.int64))
