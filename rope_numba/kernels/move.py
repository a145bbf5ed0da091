"""The compiled entry of a rotation from one array into another: `out=`, and layouts that change on the way.

It takes one array at a time and trusts its arguments: arrays.py has looked, or look.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import int64, types

from .carry import channels_address, pairs_address
from .compile import compile_kernel
from .entry import BLOCK_TOKENS, GROUP_HEADS
from .flags import DEFER, HEAD_DIM_SHIFT, HEAD_MAJOR, MAX_HEAD_DIM, PER_BATCH, ROTARY_OFFSET_SHIFT, SINGLE_POSITION
from .geometry import axes
from .ndarray_abi import NdarrayType
from .panel import INTERLEAVED
from .share import call_at, planned
from .storage import ITEMSIZE, NAMES, TABLE_ITEMSIZE

Mover = Callable[[Any, Any, Any, int], int]


def walk(numbers: Any, chunk: int, chunks: int) -> None:
    """Rotate one share of the tokens."""
    (batch, tokens, heads, block, groups, head_dim, before) = numbers[:7]
    (carry_pairs, carry_channels, hold_channels, itemsize, out_itemsize) = numbers[7:12]
    (pairs, table, sines, table_batch, table_token) = numbers[12:17]
    (x, x_batch, x_token, x_head, out, out_batch, out_token, out_head) = numbers[17:]
    copies = x != out  # in place, other channels stay where they are
    behind = before + 2 * pairs
    total = batch * tokens
    first, stop = total * chunk // chunks, total * (chunk + 1) // chunks
    scratch = np.empty(2 * pairs if hold_channels else 0, np.uint64)
    held = int64(scratch.ctypes.data)
    b = first // tokens
    start = first - b * tokens
    while first < stop:
        count = min(block, tokens - start, stop - first)
        for group in range(groups):
            low, high = heads * group // groups, heads * (group + 1) // groups
            for token in range(start, start + count):
                cos = table + b * table_batch + token * table_token
                head = x + b * x_batch + token * x_token + low * x_head
                target = out + b * out_batch + token * out_token + low * out_head
                block_in, block_out = head + before * itemsize, target + before * out_itemsize
                if hold_channels:
                    # A head is taken out of the way first: what is written may be what has yet to be read.
                    for _ in range(high - low):
                        call_at(hold_channels, (block_in, held, 2 * pairs))  # type: ignore[call-arg]
                        call_at(carry_pairs, (pairs, cos, cos + sines, held, 0, block_out, 0, 1))
                        block_in += x_head
                        block_out += out_head
                else:
                    row = (pairs, cos, cos + sines, block_in, x_head, block_out, out_head, high - low)
                    call_at(carry_pairs, row)  # type: ignore[call-arg]
                if copies and head_dim > 2 * pairs:
                    for _ in range(high - low):
                        call_at(carry_channels, (head, target, before))  # type: ignore[call-arg]
                        after = (head + behind * itemsize, target + behind * out_itemsize, head_dim - behind)
                        call_at(carry_channels, after)
                        head += x_head
                        target += out_head
        first += count
        start += count
        if start == tokens:
            b, start = b + 1, 0
    if hold_channels:
        scratch[0] = 0  # used here once more, so that Numba frees it after the loop and not before


_do_or_plan: Callable[..., int] = planned(walk)


def make_mover(source: int, target: int, layout_in: int, layout_out: int) -> Mover:
    """Compile the entry that rotates x of one storage and layout into out of another.

    The compiled function takes (x, out, rows, flags): arrays as `ndarray_abi.py` has it, of three or four axes, rows
    contiguous and of shape (batch or 1, tokens or 1, 2, pairs), and what `pack_flags` returns. It answers
    ROTATED, OUT_OF_MEMORY or the address of a plan.
    """
    itemsize, out_itemsize, table_itemsize = ITEMSIZE[source], ITEMSIZE[target], TABLE_ITEMSIZE[source]
    crossing = layout_in != layout_out

    def move(x: Any, out: Any, rows: Any, flags: int) -> int:
        rotary_offset = (flags >> ROTARY_OFFSET_SHIFT) & MAX_HEAD_DIM
        head_dim = (flags >> HEAD_DIM_SHIFT) & MAX_HEAD_DIM
        batch, tokens, heads, x_batch, x_token, x_head = axes(x, flags & HEAD_MAJOR)
        _, _, _, out_batch, out_token, out_head = axes(out, flags & HEAD_MAJOR)
        pairs = rows.shape[3]
        sines = pairs * table_itemsize
        table_token = 0 if flags & SINGLE_POSITION else 2 * sines
        table_batch = tokens * 2 * sines if flags & PER_BATCH else 0
        # As in the entry in place: memory in its own order.
        groups, block = 1, tokens
        if tokens > 1 and abs(out_head) > abs(out_token):
            groups, block = (heads + GROUP_HEADS - 1) // GROUP_HEADS, BLOCK_TOKENS
        extent = (batch, tokens, heads, block, groups, head_dim, rotary_offset)
        carry_pairs: Any = pairs_address(source, target, layout_in, layout_out)  # type: ignore[call-arg]
        carry_channels: Any = channels_address(source, target)
        hold_channels: Any = 0
        if crossing:
            hold_channels = channels_address(source, source)
        carry = (carry_pairs, carry_channels, hold_channels, itemsize, out_itemsize)
        turn = (pairs, rows.address, sines, table_batch, table_token)
        from_x, to_out = (x.address, x_batch, x_token, x_head), (out.address, out_batch, out_token, out_head)
        return _do_or_plan(extent + carry + turn + from_x + to_out, batch * tokens * heads * head_dim, flags & DEFER)

    layouts = "_".join("interleaved" if layout == INTERLEAVED else "half" for layout in (layout_in, layout_out))
    name = f"move_{NAMES[source]}_{NAMES[target]}_{layouts}"
    read, written = NdarrayType(4, fewest=3), NdarrayType(4, fewest=3, written=True)
    signature: Any = types.int64(read, written, NdarrayType(4), types.int64)
    return compile_kernel(move, name, signature)
