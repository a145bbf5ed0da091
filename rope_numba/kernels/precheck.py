"""A compiled check of arrays that are rotated into others: whether it is plain that nothing is wrong with them.

What it cannot tell is for arrays.py to decide, as with the check of an entry in place. In Python the same took 7 of the
10 us in which a decoded token's key went into its place in a cache. It compares whole ranges of memory, so that slices
of one array are checked in Python, unless they are of one token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from .compile import compile_entry, helper
from .flags import Status
from .geometry import (
    Axes,
    axes_of,
    byte_bounds,
    fits_positions,
    is_aligned,
    is_non_overlapping,
    ranges_overlap,
    unpack_flags,
)
from .ndarray_abi import NdarrayType, entry_point_of

ROTATED, NEEDS_CHECK = int(Status.ROTATED), int(Status.NEEDS_CHECK)

Precheck = Callable[..., int]


@helper
def bounds(x: Any, axes: Axes, itemsize: int, head_dim: int, like: Axes) -> tuple[int, int]:
    """Return the first address of an array's memory and the one behind it, or zeros.

    Zeros if it has no elements, or other ones than `like`, or if they are not aligned, or if it is not plain that no
    two share memory.
    """
    head_bytes = head_dim * itemsize
    if axes.n_batch != like.n_batch or axes.n_tokens != like.n_tokens or axes.n_heads != like.n_heads:
        return 0, 0
    if axes.n_batch * axes.n_tokens * axes.n_heads == 0 or x.shape[3] != head_dim or x.strides[3] != itemsize:
        return 0, 0
    if not is_aligned(axes, itemsize) or not is_non_overlapping(axes, head_bytes):
        return 0, 0
    return byte_bounds(axes, head_bytes)  # type: ignore[no-any-return]


def compile_precheck() -> Precheck:
    """Compile the function (q, q_out, k, k_out, cos_sin, flags, sizes): ROTATED if all is right, or NEEDS_CHECK.

    An array that is rotated in place is given as its own target, and q in the place of k where flags have NO_KEY. sizes
    are those of elements, in bytes: of q and k, of q_out << 8, and of k_out << 16.
    """

    def precheck(q: Any, q_out: Any, k: Any, k_out: Any, cos_sin: Any, bits: int, sizes: int) -> int:
        size, q_out_size, k_out_size = sizes & 255, (sizes >> 8) & 255, sizes >> 16
        flags = unpack_flags(bits)
        q_axes, k_axes = axes_of(q, flags.head_major), axes_of(k, flags.head_major)
        q_out_axes, k_out_axes = axes_of(q_out, flags.head_major), axes_of(k_out, flags.head_major)
        if not fits_positions(cos_sin, q, q_axes, flags):
            return NEEDS_CHECK
        if k.ndim != q.ndim or q_out.ndim != q.ndim or k_out.ndim != q.ndim:
            return NEEDS_CHECK
        if k_axes.n_batch != q_axes.n_batch or k_axes.n_tokens != q_axes.n_tokens:
            return NEEDS_CHECK
        q_bytes = bounds(q, q_axes, size, flags.head_dim, q_axes)
        k_bytes = bounds(k, k_axes, size, flags.head_dim, k_axes)
        q_out_bytes = bounds(q_out, q_out_axes, q_out_size, flags.head_dim, q_axes)
        k_out_bytes = bounds(k_out, k_out_axes, k_out_size, flags.head_dim, k_axes)
        if q_bytes[1] == 0 or k_bytes[1] == 0 or q_out_bytes[1] == 0 or k_out_bytes[1] == 0:
            return NEEDS_CHECK
        if ranges_overlap(q_bytes, q_out_bytes) and not (size == q_out_size and is_same_view(q_axes, q_out_axes)):
            return NEEDS_CHECK
        if flags.no_key:
            return ROTATED
        if ranges_overlap(k_bytes, k_out_bytes) and not (size == k_out_size and is_same_view(k_axes, k_out_axes)):
            return NEEDS_CHECK
        # What is written, q_out and k_out, is apart from the other array and from where that goes.
        if ranges_overlap(q_bytes, k_out_bytes) or ranges_overlap(q_out_bytes, k_bytes):
            return NEEDS_CHECK
        return NEEDS_CHECK if ranges_overlap(q_out_bytes, k_out_bytes) else ROTATED

    read, written = NdarrayType(2), NdarrayType(2, writeable=True)
    signature: Any = types.int64(read, written, read, written, NdarrayType(4), types.int64, types.int64)
    return entry_point_of(compile_entry(precheck, "precheck", signature))


@helper
def is_same_view(a: Axes, b: Axes) -> bool:
    """Tell whether two arrays of as many heads are the same memory, walked alike."""
    if a.address != b.address or a.head_stride != b.head_stride:
        return False
    return a.token_stride == b.token_stride and a.batch_stride == b.batch_stride
