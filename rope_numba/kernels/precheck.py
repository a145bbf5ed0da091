"""A compiled look at arrays that are rotated into others: whether nothing about them needs a closer one.

What it cannot tell at a glance is for arrays.py to decide, as with an entry's own look at arrays in place. In Python
the same took 7 of the 10 us in which a decoded token's key went into its place of a cache. It compares whole stretches
of memory, so that slices of one array are looked at more closely, unless they are of one token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from .compile import compile_kernel
from .flags import HEAD_DIM_SHIFT, HEAD_MAJOR, MAX_HEAD_DIM, NO_KEY, PER_BATCH, SINGLE_POSITION
from .geometry import axes, meet, room
from .ndarray_abi import NdarrayType
from .share import NEEDS_CHECK, ROTATED

Precheck = Callable[..., int]


def make_precheck() -> Precheck:
    """Compile the function (q, q_out, k, k_out, rows, flags, sizes): ROTATED if all is plainly right, or NEEDS_CHECK.

    An array that is rotated in place is given as its own target, and q in the place of k where flags have NO_KEY. sizes
    are those of elements, in bytes: of q and k, of q_out << 8, and of k_out << 16.
    """

    def precheck(q: Any, q_out: Any, k: Any, k_out: Any, rows: Any, flags: int, sizes: int) -> int:
        size, q_out_size, k_out_size = sizes & 255, (sizes >> 8) & 255, sizes >> 16
        head_dim, major = (flags >> HEAD_DIM_SHIFT) & MAX_HEAD_DIM, flags & HEAD_MAJOR
        q_axes, k_axes = axes(q, major), axes(k, major)
        q_out_axes, k_out_axes = axes(q_out, major), axes(k_out, major)
        batch, tokens = q_axes[0], q_axes[1]
        if rows.shape[1] != (1 if flags & SINGLE_POSITION else tokens):
            return NEEDS_CHECK
        if rows.shape[0] != (batch if flags & PER_BATCH else 1) or (flags & PER_BATCH and q.rank < 4):
            return NEEDS_CHECK
        if k.rank != q.rank or q_out.rank != q.rank or k_out.rank != q.rank:
            return NEEDS_CHECK
        if q_out_axes[2] != q_axes[2] or k_out_axes[2] != k_axes[2]:
            return NEEDS_CHECK
        q_room = room(q, q_axes, size, head_dim, batch, tokens)
        k_room = room(k, k_axes, size, head_dim, batch, tokens)
        q_out_room = room(q_out, q_out_axes, q_out_size, head_dim, batch, tokens)
        k_out_room = room(k_out, k_out_axes, k_out_size, head_dim, batch, tokens)
        if min(q_room[1], k_room[1], q_out_room[1], k_out_room[1]) == 0:
            return NEEDS_CHECK
        if meet(q_room, q_out_room):
            if q.address != q_out.address or q_axes != q_out_axes or size != q_out_size:
                return NEEDS_CHECK
        if flags & NO_KEY:
            return ROTATED
        if meet(k_room, k_out_room):
            if k.address != k_out.address or k_axes != k_out_axes or size != k_out_size:
                return NEEDS_CHECK
        # What is written, q_out and k_out, is apart from the other array and from where that goes.
        if meet(q_room, k_out_room) or meet(q_out_room, k_room) or meet(q_out_room, k_out_room):
            return NEEDS_CHECK
        return ROTATED

    read, written = NdarrayType(4, fewest=3), NdarrayType(4, fewest=3, written=True)
    signature: Any = types.int64(read, written, read, written, NdarrayType(4), types.int64, types.int64)
    return compile_kernel(precheck, "precheck", signature)
