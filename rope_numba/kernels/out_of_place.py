"""The compiled entries from one array into another: `out=`, other dtypes, and layouts that change on the way.

They take one array at a time and trust their arguments: arrays.py has checked them, or precheck.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import int64, prange, types

from . import machine
from .compile import compile_entry, compile_external, helper
from .flags import Status
from .geometry import Flags, Tables
from .machine import get_n_threads, release_gil, set_n_threads, take_gil
from .ndarray_abi import NdarrayType, entry_point_of
from .panel import HEADS_SIGNATURE, Form, make_rotate_heads
from .storage import Storage
from .vector import loader, storer
from .walk import BRIEF_ELEMENTS, make_rotate_chunk

ROTATED = int(Status.ROTATED)

_WRITTEN = NdarrayType(2, writeable=True)
_ARGUMENTS: Any = NdarrayType(2), _WRITTEN, NdarrayType(4), types.int64, _WRITTEN
_SIGNATURE: Any = types.int64(*_ARGUMENTS)
_PARALLEL_SIGNATURE: Any = types.int64(*_ARGUMENTS, types.int64, types.int64)


class OutOfPlace:
    """The compiled entries from one storage and layout into others; each is compiled by the function that returns it.

    An entry takes (x, out, cos_sin, flags, scratch): arrays as `ndarray_abi` has them, with as many axes; cos_sin
    contiguous and of shape (batch or 1, tokens or 1, 2, pairs); what `flags.pack_flags` returns; where the layout
    changes, 2 * pairs words of 64 bits for each chunk, else any array. The parallel one takes a number of threads and
    one of chunks, too. Channels outside the rotary block are converted, or stay where they are if out is x.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        rotate_heads = compile_external(make_rotate_heads(form), f"heads_{form.name}", HEADS_SIGNATURE)
        convert_channels = compile_convert_channels(form.source, form.target)
        itemsize, out_itemsize = form.source.itemsize, form.target.itemsize
        self.changes_layout = form.layout != form.layout_out

        def move_token(
            cos: int, tables: Tables, prefetching: bool,
            x: int, n_heads: int, x_stride: int,
            out: int, n_out: int, out_stride: int,
            flags: Flags, scratch: int,
        ) -> None:  # fmt: skip
            n_pairs, sin, before = tables.n_pairs, cos + tables.sin_distance, flags.rotary_offset
            block, out_block = x + before * itemsize, out + before * out_itemsize
            if scratch:
                # A head is taken out of the way first: what is written may be what has yet to be read.
                for _ in range(n_heads):
                    convert_channels(2 * n_pairs, block, int64(1), 0, scratch, 0)
                    rotate_heads(n_pairs, cos, sin, False, scratch, int64(1), 0, out_block, int64(1), 0)
                    block += x_stride
                    out_block += out_stride
            else:
                rotate_heads(n_pairs, cos, sin, False, block, n_heads, x_stride, out_block, n_heads, out_stride)
            after = before + 2 * n_pairs
            if x != out and flags.head_dim > 2 * n_pairs:
                convert_channels(before, x, n_heads, x_stride, out, out_stride)
                x_rest, out_rest = x + after * itemsize, out + after * out_itemsize
                convert_channels(flags.head_dim - after, x_rest, n_heads, x_stride, out_rest, out_stride)

        self.move_chunk = make_rotate_chunk(helper(move_token, f"token_{form.name}"), form)

    def compile_serial(self) -> Callable[..., int]:
        """Return the entry that rotates on the calling thread."""
        move_chunk, changes_layout = self.move_chunk, self.changes_layout

        def move(x: Any, out: Any, cos_sin: Any, flags: int, scratch: Any) -> int:
            elements = x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]
            head = scratch.address if changes_layout and x.address == out.address else int64(0)
            thread = release_gil() if elements > BRIEF_ELEMENTS else 0
            move_chunk(x, out, cos_sin, flags, elements, int64(0), int64(1), head)
            if elements > BRIEF_ELEMENTS:
                take_gil(thread)
            return ROTATED

        return entry_point_of(compile_entry(move, f"move_{self.form.name}", _SIGNATURE))

    def compile_parallel(self) -> Callable[..., int]:
        """Return the entry that rotates on Numba's threads."""
        move_chunk, changes_layout = self.move_chunk, self.changes_layout

        def move_in_parallel(
            x: Any, out: Any, cos_sin: Any, flags: int, scratch: Any, n_threads: int, n_chunks: int
        ) -> int:
            elements = x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]
            head = scratch.address if changes_layout and x.address == out.address else int64(0)
            head_bytes = 16 * cos_sin.shape[3] if head else 0
            n_threads_before = get_n_threads()
            set_n_threads(n_threads)
            for chunk in prange(n_chunks):
                chunk_head = head + int64(chunk) * head_bytes
                move_chunk(x, out, cos_sin, flags, elements, int64(chunk), n_chunks, chunk_head)
            set_n_threads(n_threads_before)
            return ROTATED

        name = f"move_{self.form.name}_parallel"
        return entry_point_of(compile_entry(move_in_parallel, name, _PARALLEL_SIGNATURE, parallel=True))


@functools.cache
def compile_convert_channels(source: Storage, target: Storage) -> Any:
    """Compile the function that converts consecutive channels of some heads from one storage into another.

    It takes (n_channels, x, n_heads, x_stride, out, out_stride): addresses of the first channel in the first head, and
    bytes from head to head.
    """
    load, store, size, out_size = source.load, target.store, source.itemsize, target.itemsize
    if source is target:  # bits, whatever they mean
        load, store = loader(source.memory), storer(source.memory)
    lanes = machine.register_bytes() // source.table_itemsize

    def convert_channels(n_channels: int, x: int, n_heads: int, x_stride: int, out: int, out_stride: int) -> None:
        for head in range(n_heads):
            read, written = x + head * x_stride, out + head * out_stride
            for _ in range(n_channels // lanes):
                store(written, load(read, lanes))
                read += lanes * size
                written += lanes * out_size
            for _ in range(n_channels % lanes):
                store(written, load(read, 1))
                read += size
                written += out_size

    name = f"convert_{source.name}_{target.name}"
    return compile_external(convert_channels, name, types.void(*[types.int64] * 6))
