"""How arrays lie in memory, seen from jitted code: their axes, and whether it is plain that no element is shared."""

from __future__ import annotations

from typing import Any, NamedTuple

from .compile import helper
from .flags import (
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


class Flags(NamedTuple):
    """What `flags.pack_flags` packs, by name."""

    head_major: bool
    no_key: bool
    skip_checks: bool
    per_batch: bool
    single_position: bool
    serial_only: bool
    head_dim: int
    rotary_offset: int


class Axes(NamedTuple):
    """An array of heads: its address, the lengths of its axes, and their strides in bytes."""

    address: int
    n_batch: int
    n_tokens: int
    n_heads: int
    batch_stride: int
    token_stride: int
    head_stride: int


class Tables(NamedTuple):
    """Rows of cosines and sines. A row is n_pairs cosines and, sin_distance bytes from the first, as many sines."""

    address: int
    n_pairs: int
    sin_distance: int
    batch_stride: int
    token_stride: int


@helper
def unpack_flags(flags: int) -> Flags:
    """Return the flags of a call by name."""
    return Flags(
        flags & HEAD_MAJOR != 0,
        flags & NO_KEY != 0,
        flags & SKIP_CHECKS != 0,
        flags & PER_BATCH != 0,
        flags & SINGLE_POSITION != 0,
        flags & SERIAL_ONLY != 0,
        (flags >> HEAD_DIM_SHIFT) & MAX_HEAD_DIM,
        (flags >> ROTARY_OFFSET_SHIFT) & MAX_HEAD_DIM,
    )


@helper
def axes_of(x: Any, head_major: bool) -> Axes:
    """Return the axes of an array of two, three or four (`ndarray_abi` puts those that it has not first)."""
    n_batch, n_tokens, n_heads, _ = x.shape
    batch_stride, token_stride, head_stride, _ = x.strides
    if head_major and x.ndim > 2:
        n_tokens, token_stride, n_heads, head_stride = n_heads, head_stride, n_tokens, token_stride
    return Axes(x.address, n_batch, n_tokens, n_heads, batch_stride, token_stride, head_stride)


@helper
def tables_of(cos_sin: Any, n_tokens: int, flags: Flags) -> Tables:
    """Return the tables in a contiguous array of shape (batch or 1, tokens or 1, 2, pairs)."""
    row = cos_sin.strides[1]
    token_stride = 0 if flags.single_position else row
    batch_stride = n_tokens * row if flags.per_batch else 0
    return Tables(cos_sin.address, cos_sin.shape[3], cos_sin.strides[2], batch_stride, token_stride)


@helper
def fits_positions(cos_sin: Any, x: Any, axes: Axes, flags: Flags) -> bool:
    """Tell whether there are as many rows of cosines and sines as an array needs."""
    if cos_sin.shape[1] != (1 if flags.single_position else axes.n_tokens):
        return False
    if flags.per_batch:
        return x.ndim == 4 and cos_sin.shape[0] == axes.n_batch  # type: ignore[no-any-return]
    return cos_sin.shape[0] == 1  # type: ignore[no-any-return]


@helper
def is_aligned(x: Axes, itemsize: int) -> bool:
    """Tell whether every element starts at a multiple of the element's size."""
    bits = x.address
    if x.n_batch > 1:
        bits |= x.batch_stride
    if x.n_tokens > 1:
        bits |= x.token_stride
    if x.n_heads > 1:
        bits |= x.head_stride
    return bits % itemsize == 0


@helper
def extent_after(extent: int, size: int, stride: int) -> int:
    """Return the extent of `size` repetitions of something, or -1 if they would overlap. All in bytes."""
    if extent < 0:
        return -1
    if size <= 1:
        return extent
    if abs(stride) < extent:
        return -1
    return extent + abs(stride) * (size - 1)


@helper
def is_non_overlapping(x: Axes, head_bytes: int) -> bool:
    """Tell whether it is plain that no two elements share memory: each axis steps over all that lies inside it."""
    heads = extent_after(head_bytes, x.n_heads, x.head_stride)
    inside = extent_after(heads, x.n_tokens, x.token_stride)
    if inside < 0:
        tokens = extent_after(head_bytes, x.n_tokens, x.token_stride)
        inside = extent_after(tokens, x.n_heads, x.head_stride)
    if extent_after(inside, x.n_batch, x.batch_stride) >= 0:
        return True
    return extent_after(extent_after(heads, x.n_batch, x.batch_stride), x.n_tokens, x.token_stride) >= 0  # type: ignore[no-any-return]


@helper
def byte_bounds(x: Axes, head_bytes: int) -> tuple[int, int]:
    """Return the first address of an array's memory and the one behind it."""
    first, last = x.address, x.address
    for length in (
        (x.n_heads - 1) * x.head_stride,
        (x.n_tokens - 1) * x.token_stride,
        (x.n_batch - 1) * x.batch_stride,
    ):
        if length < 0:
            first += length
        else:
            last += length
    return first, last + head_bytes


@helper
def ranges_overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Tell whether two ranges of memory have an address in common."""
    return a[0] < b[1] and b[0] < a[1]


@helper
def are_disjoint(q: Axes, k: Axes, head_bytes: int) -> bool:
    """Tell whether it is plain that q and k, of as many tokens, have no element in common."""
    if not ranges_overlap(byte_bounds(q, head_bytes), byte_bounds(k, head_bytes)):
        return True
    # Views of one packed array: the heads of one token are apart, and tokens step over the heads of both.
    if q.n_batch > 1 and q.batch_stride != k.batch_stride:
        return False
    if q.n_tokens > 1 and q.token_stride != k.token_stride:
        return False
    q_first, q_end = byte_bounds(Axes(q.address, 1, 1, q.n_heads, 0, 0, q.head_stride), head_bytes)
    k_first, k_end = byte_bounds(Axes(k.address, 1, 1, k.n_heads, 0, 0, k.head_stride), head_bytes)
    if q_end <= k_first:
        both = k_end - q_first
    elif k_end <= q_first:
        both = q_end - k_first
    else:
        return False
    if extent_after(extent_after(both, q.n_tokens, q.token_stride), q.n_batch, q.batch_stride) >= 0:
        return True
    return extent_after(extent_after(both, q.n_batch, q.batch_stride), q.n_tokens, q.token_stride) >= 0  # type: ignore[no-any-return]
