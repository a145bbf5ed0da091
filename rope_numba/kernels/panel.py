"""The rotation itself: low * cos - high * sin, low * sin + high * cos, in all heads of one token.

A token's pairs are cut into panels of fixed widths, and a panel into steps of a few registers. A panel loads its
cosines and sines once, keeps them in registers (or, where those are too few, on the stack), and uses them for one head
after another (`machine.for_each_head`). What differs between storages and layouts is in the `Form`, which is known when
code is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from . import machine
from .compile import helper
from .machine import Side, for_each_head
from .storage import BF16, PACKED_BF16, Storage
from .vector import as_loaded, first_of, interleave, plain_nans, second_of, swap_neighbours

INTERLEAVED, HALF = range(2)  # pairs (2i, 2i + 1), and pairs (i, i + rotary_dim / 2)
LAYOUTS = ("interleaved", "half")

# How many registers a vector of a step is wide. Measured by benchmarks/choices.py (Zen 1, one thread, 64 tokens of
# 32+8 x 128, as times the stream): members that change places within a vector, float32, one register 1.50, two 1.55 in
# half the time of compiling; members in vectors of their own, float32, one 1.22, two 1.33; packed bfloat16 one 4.6,
# two 3.7, four, which the register file cannot hold, 4.5.
SWAPPED_REGISTERS, PARTED_REGISTERS, PACKED_REGISTERS = 2, 1, 2

# A panel of fewer pairs of bfloat16 is not packed, and rotates one pair a step: each width of a packed step takes 0.4 s
# to compile.
PACKED_MIN_PAIRS = 8

# NumPy's arrays start 16 bytes past a multiple of 64, where every second vector would lie across two cache lines. If
# heads start there, a panel takes small steps up to the next multiple of a register (loop peeling), then full ones. The
# other way takes 1.1 to 1.3 times as long (AVX2, AVX-512), and no longer where 32 bytes load as two halves (Zen 1).
NUMPY_STARTS = 16

# Hardware prefetchers cover sequential access. Panels of PREFETCH_MIN_PAIRS pairs and more (16 bits: four times as
# many; narrower ones gain nothing) prefetch what lies PREFETCH_BYTES behind a head where
# - the halves of a head lie PREFETCH_MIN_GAP bytes apart or more (layout half),
# - a head has two of the widest panels or more (layout interleaved), or
# - heads are the outer axis (`walk.Order.prefetching`).
# As times the stream, with and without, 4096 tokens in float32: 16+4 x 256 half 1.4 and 2.6 (Zen 4), 1.26 and 1.25
# (Zen 1); 32+8 x 128 with heads outside 1.25 and 1.5, 0.97 and 0.79. From gaps of 128 bytes on, 64 tokens of 32+8 x 128
# half would take 1.32 instead of 1.22 (Zen 1).
PREFETCH_BYTES = 8192
PREFETCH_MIN_GAP = 512
PREFETCH_MIN_PAIRS = 32


class Form(NamedTuple):
    """What a rotation reads and what it writes."""

    source: Storage
    target: Storage
    layout: int
    layout_out: int
    in_place: bool  # written to where it was read from

    @property
    def swaps(self) -> bool:
        """Whether one vector holds both members of its pairs; else one holds the lower, one the higher members."""
        return self.layout == self.layout_out == INTERLEAVED and self.source is not PACKED_BF16

    @property
    def read(self) -> Side:
        """How heads are read."""
        return Side(self.source.itemsize, self.source.itemsize * (2 if self.layout == INTERLEAVED else 1))

    @property
    def written(self) -> Side:
        """How heads are written."""
        return Side(self.target.itemsize, self.target.itemsize * (2 if self.layout_out == INTERLEAVED else 1))

    @property
    def peel(self) -> int:
        """How many pairs lie before the first whole register of an array that starts as NumPy's do, or 0.

        0 where it does not pay: out of place, in 16 bits, which conversions bound, and with registers of 16 bytes.
        """
        past = machine.register_bytes() - NUMPY_STARTS
        return past // self.read.pair_size if past > 0 and self.in_place and self.source.itemsize > 2 else 0

    @property
    def name(self) -> str:
        """A name of its own among compiled functions."""
        if self.in_place:
            return f"{self.source.name}_{LAYOUTS[self.layout]}"
        return f"{self.source.name}_{self.target.name}_{LAYOUTS[self.layout]}_{LAYOUTS[self.layout_out]}"


# ---- One step of one head -------------------------------------------------------------------------------------------


@functools.cache
def make_step(form: Form) -> Callable[..., Any]:
    """Return the jitted function (cos, sin, first, second) that rotates as many pairs of a head as cos has lanes.

    It loads two runs of channels from the addresses first and second: of layout half, the lower and the higher members;
    interleaved, one run and the one behind it. It returns the runs that `machine.for_each_head` stores. For four pairs:

        half          run, other = l0 l1 l2 l3, h0 h1 h2 h3    low, high = run, other
        interleaved   run, other = l0 h0 l1 h1, l2 h2 l3 h3    low, high = l0 l1 l2 l3, h0 h1 h2 h3
        swapped       pairs = l0 h0 l1 h1 l2 h2 l3 h3          swap_neighbours(pairs) = h0 l0 h1 l1 h2 l2 h3 l3
    """
    load, lanes, out_lanes = form.source.load, form.source.lanes, form.target.lanes
    # From two runs to the lower and the higher members of their pairs, and back.
    low_of, high_of = (first_of, second_of) if form.layout == HALF else (lanes.evens, lanes.odds)
    run_of, other_of = (first_of, second_of) if form.layout_out == HALF else (out_lanes.first, out_lanes.second)
    order = lanes.order if form.layout == HALF else as_loaded
    # The store of PACKED_BF16 adds to the bits of a number. A NaN of a table that has all of them set would become one.
    of_table = plain_nans if form.target is PACKED_BF16 else as_loaded

    def rotate_parted(cos: Any, sin: Any, first: int, second: int) -> Any:
        cos, sin = order(of_table(cos)), order(of_table(sin))
        run, other = load(first, cos), load(second, cos)
        low, high = low_of(run, other), high_of(run, other)
        low, high = low * cos - high * sin, low * sin + high * cos
        return run_of(low, high), other_of(low, high)

    # The same for neighbours that stay neighbours. Parting them first takes twice the shuffles: 1.65 instead of 1.37
    # times what reading and writing the same memory takes (AVX2, first-level cache, 40 heads x 128). LLVM puts what is
    # done to cos and sin before the loop over heads.
    def rotate_swapped(cos: Any, sin: Any, first: int, second: int) -> Any:
        cos, sin = interleave(cos, cos), interleave(-sin, sin)
        pairs = load(first, cos)  # as many as cos has lanes now, two for each pair
        return (pairs * cos + swap_neighbours(pairs) * sin,)

    step: Callable[..., Any] = helper(rotate_swapped if form.swaps else rotate_parted, f"step_{form.name}")
    return step


# ---- All heads of one token -----------------------------------------------------------------------------------------


def step_widths(pairs: int, widest: int, peel: int = 0) -> list[int]:
    """Cut pairs into steps whose widths are powers of two: small ones up to `peel`, then the widest.

    step_widths(32, 8, peel=6) is [2, 4, 8, 8, 8, 2].
    """
    widths: list[int] = []
    while (first := sum(widths)) < pairs:
        left = peel - first if first < peel else pairs - first
        widths.append(left & -left if first < peel else min(widest, 1 << left.bit_length() - 1))
    return widths


def make_panel(form: Form, pairs: int, peel: int = 0) -> Callable[..., None]:
    """Return the function that rotates this many pairs in all heads of a token (`machine.for_each_head`)."""
    registers = PACKED_REGISTERS if form.source is PACKED_BF16 else PARTED_REGISTERS
    if form.swaps:
        registers = SWAPPED_REGISTERS
    if not machine.splits_vectors():
        registers = 1
    widest = registers * machine.register_bytes() // form.source.table_itemsize
    if form.swaps:
        widest //= 2  # both members of a pair stand in one vector
    if form.source is PACKED_BF16 and pairs < PACKED_MIN_PAIRS:
        form, widest = form._replace(source=BF16, target=BF16), 1
    prefetched = form.in_place and pairs >= PREFETCH_MIN_PAIRS * (4 if form.source.itemsize == 2 else 1)
    panel: Callable[..., None] = for_each_head(
        make_step(form),
        form.target.store,
        form.target.store_four if machine.splits_vectors() else None,
        form.source.computed,
        step_widths(pairs, widest, peel),
        form.read,
        form.written,
        in_place=form.in_place,
        ahead=PREFETCH_BYTES if prefetched else 0,
    )
    return panel


def make_rotate_heads(form: Form) -> Callable[..., None]:
    """Return the function that rotates all pairs in all heads of one token, for `compile` to compile.

    cos and sin are the addresses of the token's n_pairs cosines and sines. a and b are addresses of the first channel
    that is rotated in the first of n_a and n_b heads, strides the bytes from head to head. In place the heads of both
    are rotated (q and k), else those of a into those of b.
    """
    panel_128, panel_64, panel_32, panel_16, panel_8, panel_4, panel_1 = (
        make_panel(form, pairs) for pairs in (128, 64, 32, 16, 8, 4, 1)
    )
    peel, within_register = form.peel, machine.register_bytes() - 1
    peeled_128, peeled_64, peeled_32 = (make_panel(form, pairs, peel) for pairs in (128, 64, 32))
    size = form.source.itemsize
    min_pairs = 256 if form.layout == INTERLEAVED else PREFETCH_MIN_GAP // size

    def rotate_heads(
        n_pairs: int, cos: int, sin: int, prefetching: bool,
        a: int, n_a: int, a_stride: int,
        b: int, n_b: int, b_stride: int,
    ) -> None:  # fmt: skip
        tables, heads = (cos, sin, n_pairs), (a, n_a, a_stride, b, n_b, b_stride)
        prefetching = prefetching or n_pairs >= min_pairs
        first = 0
        # Only a is asked, as b mostly starts likewise: a wrong guess costs time, and no bit.
        if peel and ((a - NUMPY_STARTS) | a_stride | (n_pairs * size)) & within_register == 0:
            while n_pairs - first >= 128:
                peeled_128(tables, first, heads, prefetching)
                first += 128
            if n_pairs & 64:
                peeled_64(tables, first, heads, prefetching)
                first += 64
            if n_pairs & 32:
                peeled_32(tables, first, heads, prefetching)
                first += 32
        while n_pairs - first >= 128:
            panel_128(tables, first, heads, prefetching)
            first += 128
        if n_pairs - first >= 64:
            panel_64(tables, first, heads, prefetching)
            first += 64
        if n_pairs - first >= 32:
            panel_32(tables, first, heads, prefetching)
            first += 32
        if n_pairs & 16:
            panel_16(tables, first, heads, prefetching)
            first += 16
        if n_pairs & 8:
            panel_8(tables, first, heads, prefetching)
            first += 8
        if n_pairs & 4:
            panel_4(tables, first, heads, prefetching)
            first += 4
        while first < n_pairs:
            panel_1(tables, first, heads, prefetching)
            first += 1

    return rotate_heads


HEADS_SIGNATURE: Any = types.void(*[types.int64] * 3, types.boolean, *[types.int64] * 6)
