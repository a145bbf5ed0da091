"""The compiled entry: look at shapes, strides and addresses before the first write, then rotate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from .compile import compile_kernel
from .flags import (
    DEFER,
    HEAD_DIM_SHIFT,
    HEAD_MAJOR,
    MAX_HEAD_DIM,
    NO_KEY,
    PER_BATCH,
    ROTARY_OFFSET_SHIFT,
    SERIAL_ONLY,
    SINGLE_POSITION,
    SKIP_CHECKS,
)
from .geometry import aligned, apart, axes, nested
from .ndarray_abi import NdarrayType
from .panel import INTERLEAVED
from .row import row_address
from .share import ELEMENTS_PER_THREAD, NEEDS_CHECK, ROTATED, call_at, planned
from .storage import ITEMSIZE, NAMES, TABLE_ITEMSIZE

# Where heads lie outside tokens, these many heads of these many tokens are walked together: few enough runs of memory
# for the processor to follow and for the ways of a cache, long enough runs to be fetched ahead, and tables that stay
# near. Measured on AVX2, 4096 tokens of 32+8 x 128, as times the same work with tokens outside heads: 1.1; with 8 heads
# of 32 tokens 1.3, with 8 of 8 1.8, head by head 2.4.
GROUP_HEADS = 6
BLOCK_TOKENS = 64
# More bytes than these are taken for more than caches hold. Heads outside tokens are then fetched ahead. Where they lie
# inside, a block's q is walked before its k, unless both are slices of one row: going to and fro between two arrays is
# not foreseen either. On one thread and on two, 4096 tokens in float32 took 1.2 to 1.4 and 1.3 to 1.5 times the stream
# so, and take 1.0 to 1.1 in turn. In the caches that would cost a tenth.
LARGE_BYTES = 1 << 25


def walk(numbers: Any, chunk: int, chunks: int) -> None:
    """Rotate one share of the tokens; where there are too few of them, a share of the heads."""
    (batch, tokens, heads, k_heads, block, groups, in_turn) = numbers[:7]
    (rotate_row, pairs, fetch, table, sines, table_batch, table_token) = numbers[7:14]
    (q_block, q_batch, q_token, q_head, k_block, k_batch, k_token, k_head) = numbers[14:]
    first, stop, first_group, stop_group = 0, batch * tokens, 0, groups
    if stop < chunks:
        groups, first_group, stop_group, in_turn = chunks, chunk, chunk + 1, 0
    elif chunks > 1:
        first, stop = stop * chunk // chunks, stop * (chunk + 1) // chunks
    b = first // tokens
    start = first - b * tokens
    while first < stop:
        count = min(block, tokens - start, stop - first)
        for group in range(first_group, stop_group):
            low, high, k_low, k_high = 0, heads, 0, k_heads
            if in_turn:
                low, k_high = heads * group, k_heads * group
            elif groups > 1:
                low, high = heads * group // groups, heads * (group + 1) // groups
                k_low, k_high = k_heads * group // groups, k_heads * (group + 1) // groups
            cos = table + b * table_batch + start * table_token
            q_row = q_block + b * q_batch + start * q_token + low * q_head
            k_row = k_block + b * k_batch + start * k_token + k_low * k_head
            for _ in range(count):
                row = (pairs, fetch, cos, cos + sines, q_row, high - low, q_head, k_row, k_high - k_low, k_head)
                call_at(rotate_row, row)  # type: ignore[call-arg]
                cos += table_token
                q_row += q_token
                k_row += k_token
        first += count
        start += count
        if start == tokens:
            b, start = b + 1, 0


_do_or_plan: Callable[..., int] = planned(walk)


def make_entry(storage: int, layout: int, rank: int) -> Callable[..., int]:
    """Compile the entry for one storage, layout and rank of the arrays.

    The compiled function takes (q, k, rows, flags): arrays as `ndarray_abi.py` has it, rows contiguous, of shape (batch
    or 1, tokens, 2, pairs), cos and then sin, and what `pack_flags` returns. It answers ROTATED, NEEDS_CHECK or the
    address of a plan.
    """
    itemsize, table_itemsize = ITEMSIZE[storage], TABLE_ITEMSIZE[storage]

    def entry(q: Any, k: Any, rows: Any, flags: int) -> int:
        rotary_offset = (flags >> ROTARY_OFFSET_SHIFT) & MAX_HEAD_DIM
        head_dim = (flags >> HEAD_DIM_SHIFT) & MAX_HEAD_DIM
        q_axes, k_axes = axes(q, flags & HEAD_MAJOR), axes(k, flags & HEAD_MAJOR)
        batch, tokens, heads, q_batch, q_token, q_head = q_axes
        k_rows, k_tokens, k_heads, k_batch, k_token, k_head = k_axes
        row_batch, pairs = rows.shape[0], rows.shape[3]
        q_address, k_address = q.address, k.address

        if q.shape[-1] != head_dim or rows.shape[1] != (1 if flags & SINGLE_POSITION else tokens):
            return NEEDS_CHECK
        if row_batch != (batch if flags & PER_BATCH else 1) or (flags & PER_BATCH and rank < 4):
            return NEEDS_CHECK
        if flags & NO_KEY:
            k_heads = 0
        elif k.shape[-1] != head_dim or k_rows != batch or k_tokens != tokens:
            return NEEDS_CHECK
        elements = batch * tokens * (heads + k_heads) * head_dim
        if elements == 0:
            return ROTATED
        if flags & SERIAL_ONLY and elements >= 2 * ELEMENTS_PER_THREAD:
            return NEEDS_CHECK
        if heads > 0 and (q.strides[-1] != itemsize or not aligned(q_address, itemsize, q_axes)):
            return NEEDS_CHECK
        if k_heads > 0 and (k.strides[-1] != itemsize or not aligned(k_address, itemsize, k_axes)):
            return NEEDS_CHECK
        if not flags & SKIP_CHECKS:
            row = head_dim * itemsize
            if heads > 0 and not nested(row, q_axes):
                return NEEDS_CHECK
            if k_heads > 0 and not nested(row, k_axes):
                return NEEDS_CHECK
            if heads > 0 and k_heads > 0 and not apart(q_address, k_address, row, q_axes, k_axes):
                return NEEDS_CHECK

        table_row = 2 * pairs * table_itemsize
        table_token = 0 if flags & SINGLE_POSITION else table_row
        table_batch = tokens * table_row if flags & PER_BATCH else 0
        table = rows.address
        q_block, k_block = q_address + rotary_offset * itemsize, k_address + rotary_offset * itemsize
        # Memory is walked in its own order: a token's heads where they lie together, else groups of heads.
        groups, block, in_turn, fetch = 1, tokens, 0, 0
        large = elements * itemsize > LARGE_BYTES
        if tokens > 1 and abs(q_head) > abs(q_token):
            groups, block = (heads + k_heads + GROUP_HEADS - 1) // GROUP_HEADS, BLOCK_TOKENS
            fetch = int(large and heads + k_heads > 1 and q_token > 0)
        elif large and tokens >= BLOCK_TOKENS and k_heads > 0 and abs(k_address - q_address) > abs(q_token):
            groups, block, in_turn = 2, BLOCK_TOKENS, 1
        extent = (batch, tokens, heads, k_heads, block, groups, in_turn)
        rotate_row: Any = row_address(storage, layout)  # type: ignore[call-arg]
        turn = (rotate_row, pairs, fetch, table, pairs * table_itemsize, table_batch, table_token)
        places = (q_block, q_batch, q_token, q_head, k_block, k_batch, k_token, k_head)
        return _do_or_plan(extent + turn + places, elements, flags & DEFER)

    name = f"rotate_{NAMES[storage]}_{'interleaved' if layout == INTERLEAVED else 'half'}_{rank}d"
    array: Any = NdarrayType(rank, written=True)
    return compile_kernel(entry, name, types.int64(array, array, NdarrayType(4), types.int64))
