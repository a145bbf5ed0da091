"""The compiled entries in place: checks of shapes, strides and addresses before the first write, then the rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import int64, prange, types

from .compile import compile_entry, compile_external, helper
from .flags import Status
from .geometry import (
    Axes,
    Flags,
    Tables,
    are_disjoint,
    axes_of,
    fits_positions,
    is_aligned,
    is_non_overlapping,
    unpack_flags,
)
from .machine import get_n_threads, release_gil, set_n_threads, take_gil
from .ndarray_abi import NdarrayType, entry_point_of
from .panel import HEADS_SIGNATURE, Form, make_rotate_heads
from .storage import BF16, PACKED_BF16, Storage
from .walk import BRIEF_ELEMENTS, ELEMENTS_PER_THREAD, make_rotate_chunk

ROTATED, NEEDS_CHECK = int(Status.ROTATED), int(Status.NEEDS_CHECK)

_ARRAY: Any = NdarrayType(2, writeable=True)
_SIGNATURE: Any = types.int64(_ARRAY, _ARRAY, NdarrayType(4), types.int64)
_PARALLEL_SIGNATURE: Any = types.int64(_ARRAY, _ARRAY, NdarrayType(4), *[types.int64] * 3)


def form_in_place(storage: Storage, layout: int) -> Form:
    """Return how a storage and layout are rotated in place: bfloat16 packed (`storage.PACKED_BF16`)."""
    storage = PACKED_BF16 if storage is BF16 else storage
    return Form(storage, storage, layout, layout, in_place=True)


class InPlace:
    """The compiled entries of one storage and layout; each is compiled by the function that returns it.

    An entry takes

        q, k      NumPy arrays of 2 to 4 axes, as many each; their dtype is not checked, it has to be the storage's
        cos_sin   contiguous, (batch or 1, tokens or 1, 2, pairs)
        flags     what `flags.pack_flags` returns

    and answers a Status. The parallel one takes a number of threads and one of chunks, too.
    """

    def __init__(self, storage: Storage, layout: int) -> None:
        self.form = form = form_in_place(storage, layout)
        rotate_heads = compile_external(make_rotate_heads(form), f"heads_{form.name}", HEADS_SIGNATURE)

        itemsize = self.itemsize = storage.itemsize

        def rotate_token(
            cos: int, tables: Tables, prefetching: bool,
            q: int, n_q: int, q_stride: int,
            k: int, n_k: int, k_stride: int,
            flags: Flags, _: Any,
        ) -> None:  # fmt: skip
            sin, offset = cos + tables.sin_distance, flags.rotary_offset * itemsize
            rotate_heads(tables.n_pairs, cos, sin, prefetching, q + offset, n_q, q_stride, k + offset, n_k, k_stride)

        self.rotate_chunk = make_rotate_chunk(helper(rotate_token, f"token_{form.name}"), form)

    def compile_serial(self) -> Callable[..., int]:
        """Return the entry that rotates on the calling thread."""
        rotate_chunk, itemsize = self.rotate_chunk, self.itemsize

        def rotate(q: Any, k: Any, cos_sin: Any, flags: int) -> int:
            status, elements = check(q, k, cos_sin, flags, int64(itemsize))
            if elements > 0:
                thread = release_gil() if elements > BRIEF_ELEMENTS else 0
                rotate_chunk(q, k, cos_sin, flags, elements, int64(0), int64(1), None)
                if elements > BRIEF_ELEMENTS:
                    take_gil(thread)
            return status  # type: ignore[no-any-return]

        return entry_point_of(compile_entry(rotate, f"rotate_{self.form.name}", _SIGNATURE))

    def compile_parallel(self) -> Callable[..., int]:
        """Return the entry that rotates on Numba's threads."""
        rotate_chunk, itemsize = self.rotate_chunk, self.itemsize

        def rotate_in_parallel(q: Any, k: Any, cos_sin: Any, flags: int, n_threads: int, n_chunks: int) -> int:
            status, elements = check(q, k, cos_sin, flags, int64(itemsize))
            if elements > 0:
                n_threads_before = get_n_threads()
                set_n_threads(n_threads)
                for chunk in prange(n_chunks):
                    rotate_chunk(q, k, cos_sin, flags, elements, int64(chunk), n_chunks, None)
                set_n_threads(n_threads_before)
            return status  # type: ignore[no-any-return]

        name = f"rotate_{self.form.name}_parallel"
        return entry_point_of(compile_entry(rotate_in_parallel, name, _PARALLEL_SIGNATURE, parallel=True))


@helper
def check(q: Any, k: Any, cos_sin: Any, bits: int, itemsize: int) -> tuple[int, int]:
    """Return what an entry answers, and the number of elements that are to be rotated."""
    flags = unpack_flags(bits)
    q_axes, k_axes = axes_of(q, flags.head_major), axes_of(k, flags.head_major)
    if q.shape[3] != flags.head_dim or not fits_positions(cos_sin, q, q_axes, flags):
        return NEEDS_CHECK, 0
    n_k_heads = 0
    if not flags.no_key:
        n_k_heads = k_axes.n_heads
        if k.ndim != q.ndim or k.shape[3] != flags.head_dim:
            return NEEDS_CHECK, 0
        if k_axes.n_batch != q_axes.n_batch or k_axes.n_tokens != q_axes.n_tokens:
            return NEEDS_CHECK, 0
    elements = q_axes.n_batch * q_axes.n_tokens * (q_axes.n_heads + n_k_heads) * flags.head_dim
    if flags.serial_only and elements >= 2 * ELEMENTS_PER_THREAD:
        return NEEDS_CHECK, 0
    if elements == 0:
        return ROTATED, 0
    head_bytes = flags.head_dim * itemsize
    if q_axes.n_heads > 0 and not is_usable(q, q_axes, head_bytes, itemsize, flags.skip_checks):
        return NEEDS_CHECK, 0
    if n_k_heads > 0:
        if not is_usable(k, k_axes, head_bytes, itemsize, flags.skip_checks):
            return NEEDS_CHECK, 0
        if not flags.skip_checks and q_axes.n_heads > 0 and not are_disjoint(q_axes, k_axes, head_bytes):
            return NEEDS_CHECK, 0
    return ROTATED, elements


@helper
def is_usable(x: Any, axes: Axes, head_bytes: int, itemsize: int, skip_checks: bool) -> bool:
    """Tell whether an array's channels lie side by side and aligned, and it is plain that no two share memory."""
    if x.strides[3] != itemsize or not is_aligned(axes, itemsize):
        return False
    return skip_checks or is_non_overlapping(axes, head_bytes)
