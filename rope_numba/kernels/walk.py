"""In which order tokens and heads are walked, and how many elements are worth a thread or the release of the GIL."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import int64

from .compile import helper
from .geometry import Axes, axes_of, tables_of, unpack_flags
from .machine import enter_ieee_mode, leave_ieee_mode
from .panel import Form

# A thread gets at least this many elements of q and k together.
ELEMENTS_PER_THREAD = 1 << 17

# The GIL is released for more elements than these, which take some microseconds. Releasing it costs a decode step
# 0.08 us. Next to a thread that is busy in Python, which keeps the GIL for 5 ms whenever it gets it, a step took 440 us
# with the GIL released, 1.6 to 2.1 us with it held.
BRIEF_ELEMENTS = 1 << 15

# Where heads lie outside tokens, this many heads of this many tokens are walked together: few enough runs of memory for
# the hardware prefetchers and for the ways of a cache, long enough runs to be prefetched, and tables that stay in the
# cache. Measured by benchmarks/choices.py (Zen 1, one thread, 4096 tokens of 32+8 x 128 in float32, as times the
# stream): 0.98; 8 heads of 32 tokens 1.14; head by head 1.46.
GROUP_HEADS = 6
BLOCK_TOKENS = 64

# Work on more bytes than these does not fit the caches. Heads outside tokens are then prefetched. Where heads lie
# inside, a block's q is walked before its k, unless both are slices of one row: hardware prefetchers do not follow a
# walk to and fro between two arrays. 4096 tokens in float32, as times the stream, one after the other and to and fro:
# 1.0 to 1.1 and 1.2 to 1.5 (Zen 4), 1.10 and 1.13 (Zen 1). In the caches it would cost a tenth.
LARGE_BYTES = 1 << 25


class Order(NamedTuple):
    """Blocks of tokens are walked one after another, and in each of them groups of heads."""

    block_tokens: int
    n_groups: int
    in_turn: bool  # there are two groups: all heads of the first array, then all of the second one
    prefetching: bool  # the walk jumps in memory, so that panels should prefetch


@helper
def order_of(a: Axes, b: Axes, n_b: int, elements: int, itemsize: int) -> Order:
    """Return the order that follows memory: a token's heads where they lie together, else groups of heads."""
    large = elements * itemsize > LARGE_BYTES
    if a.n_tokens > 1 and abs(a.head_stride) > abs(a.token_stride):
        n_heads = a.n_heads + n_b
        prefetching = large and n_heads > 1 and a.token_stride > 0
        return Order(BLOCK_TOKENS, (n_heads + GROUP_HEADS - 1) // GROUP_HEADS, False, prefetching)
    if large and a.n_tokens >= BLOCK_TOKENS and n_b > 0 and abs(b.address - a.address) > abs(a.token_stride):
        return Order(BLOCK_TOKENS, 2, True, False)
    return Order(a.n_tokens, 1, False, False)


def make_rotate_chunk(rotate_token: Any, form: Form) -> Any:
    """Return the jitted function that rotates one of n_chunks chunks of a call whose arrays have been checked.

    It takes (a, b, cos_sin, flags, elements, chunk, n_chunks, details). In place a and b are q and k, else x and out.
    A chunk is a range of the tokens of all rows of the batch or, if there are fewer of these than chunks, a range of
    heads. details is passed on to rotate_token. For each token and group of heads the function calls

        rotate_token(cos, tables, prefetching, a, n_a, a_stride, b, n_b, b_stride, flags, details)

    with the address of the token's cosines, and of each array the address of the group's first head, the number of its
    heads, and the bytes from head to head.
    """
    itemsize, in_place = form.source.itemsize, form.in_place

    def rotate_chunk(
        a: Any, b: Any, cos_sin: Any, bits: int, elements: int, chunk: int, n_chunks: int, details: Any
    ) -> None:
        flags = unpack_flags(bits)
        a_axes, b_axes = axes_of(a, flags.head_major), axes_of(b, flags.head_major)
        tables = tables_of(cos_sin, a_axes.n_tokens, flags)
        n_b = b_axes.n_heads if not (in_place and flags.no_key) else 0
        order = order_of(a_axes, b_axes, n_b if in_place else 0, elements, int64(itemsize))

        mode = enter_ieee_mode()  # 3 ns; a caller's flushing to zero or other rounding would give other bits

        # A division takes 12 ns, so one chunk, which a decode step is, makes none.
        first, stop, batch, token = 0, a_axes.n_batch * a_axes.n_tokens, 0, 0
        n_groups, first_group, stop_group, in_turn = order.n_groups, 0, order.n_groups, order.in_turn
        if stop < n_chunks:
            n_groups, first_group, stop_group, in_turn = n_chunks, chunk, chunk + 1, False
        elif n_chunks > 1:
            first, stop = stop * chunk // n_chunks, stop * (chunk + 1) // n_chunks
            batch = first // a_axes.n_tokens
            token = first - batch * a_axes.n_tokens
        while first < stop:
            count = a_axes.n_tokens - token
            if count > order.block_tokens:
                count = order.block_tokens
            if count > stop - first:
                count = stop - first
            for group in range(first_group, stop_group):
                a_first, a_stop, b_first, b_stop = 0, a_axes.n_heads, 0, n_b
                if in_turn:  # group 0: all of a and none of b; group 1: none of a and all of b
                    a_first, b_stop = a_axes.n_heads * group, n_b * group
                elif n_groups > 1:
                    a_first, a_stop = a_axes.n_heads * group // n_groups, a_axes.n_heads * (group + 1) // n_groups
                    b_first, b_stop = n_b * group // n_groups, n_b * (group + 1) // n_groups
                cos = tables.address + batch * tables.batch_stride + token * tables.token_stride
                a_at = head_address(a_axes, batch, token, a_first)
                b_at = head_address(b_axes, batch, token, b_first)
                for _ in range(count):
                    rotate_token(
                        cos, tables, order.prefetching,
                        a_at, a_stop - a_first, a_axes.head_stride,
                        b_at, b_stop - b_first, b_axes.head_stride,
                        flags, details,
                    )  # fmt: skip
                    cos += tables.token_stride
                    a_at += a_axes.token_stride
                    b_at += b_axes.token_stride
            first += count
            token += count
            if token == a_axes.n_tokens:
                batch, token = batch + 1, 0
        leave_ieee_mode(mode)

    return helper(rotate_chunk, f"chunk_{form.name}")


@helper
def head_address(x: Axes, batch: int, token: int, head: int) -> int:
    """Return the address of a head."""
    return x.address + batch * x.batch_stride + token * x.token_stride + head * x.head_stride
