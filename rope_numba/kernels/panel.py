"""The rotation itself: a panel of pairs, turned in one head after another (LLVM).

A panel is a run of pairs whose number is known when the code is made. It is worked off in steps. Each step loads its
cosines and sines once, keeps them in vector registers (or, where those are too few, on the stack) and uses them for
every head. What a pair looks like in memory is the business of a step's load and store; what stands between them is the
formula: low * cos - high * sin, low * sin + high * cos.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from llvmlite import ir

from . import storage as st

INTERLEAVED, HALF = range(2)

# Packed bfloat16 steps that are rounded together: 39 instead of 43 cycles for 128 channels (AVX2 on a Zen 4, in the
# first-level cache); one by one 41, four together 39.
TOGETHER = 2

_I64 = ir.IntType(64)


class Panel:
    """Writes the code for so many pairs of one storage and layout.

    partner is the distance in bytes between the two members of a pair of the half layout. lead is the number of pairs
    that come before the first step whose addresses are aligned to a vector register; 0 if that is not known.
    """

    def __init__(
        self, context: Any, builder: Any, storage: int, layout: int, pairs: int, partner: ir.Value, lead: int = 0
    ) -> None:
        self.builder, self.partner = builder, partner
        self.bytes, self.halved = 2 * pairs * st.ITEMSIZE[storage], layout == HALF
        self.steps: list[_Step | _Together] = []
        lanes = st.register_bytes(context) // st.TABLE_ITEMSIZE[storage]
        # Pairs that fill a register: their channels lie side by side, or in two places, or two to a lane.
        widest = lanes // 2 if layout == INTERLEAVED else lanes
        if storage == st.BF16:
            widest *= 2
        for first, width in _cut(pairs, widest, lead):
            kind: type[_Step]
            if storage == st.BF16 and (layout == INTERLEAVED or width > 1):
                kind = _PackedInterleaved if layout == INTERLEAVED else _PackedHalf
            else:
                kind = _Interleaved if layout == INTERLEAVED else _Half
            self.steps.append(kind(context, builder, storage, first, width, partner))
        packed = [step for step in self.steps if isinstance(step, _Packed)]
        if packed:
            rest = [step for step in self.steps if not isinstance(step, _Packed)]
            groups = [packed[first : first + TOGETHER] for first in range(0, len(packed), TOGETHER)]
            self.steps = [*map(_Together, groups), *rest]

    def load_tables(self, cos: ir.Value, sin: ir.Value) -> None:
        """Load the panel's cosines and sines."""
        for step in self.steps:
            step.load_tables(cos, sin)

    def rotate(self, head: ir.Value) -> None:
        """Rotate the panel's pairs in one head."""
        for step in self.steps:
            step.rotate(head)

    def fetch(self, head: ir.Value) -> None:
        """Have the panel's pairs in one head brought near; there may be no such head."""
        if self.halved:
            st.fetch(self.builder, head, self.bytes // 2)
            st.fetch(self.builder, self.builder.add(head, self.partner), self.bytes // 2)
        else:
            st.fetch(self.builder, head, self.bytes)


def _cut(pairs: int, widest: int, lead: int) -> list[tuple[int, int]]:
    """Cut pairs into steps, (first, width) each, widths being powers of two: small ones up to lead, then the widest."""
    steps, first = [], 0
    while first < pairs:
        left = lead - first if first < lead else pairs - first
        width = left & -left if first < lead else min(widest, 1 << left.bit_length() - 1)
        steps.append((first, width))
        first += width
    return steps


class _Step(ABC):
    """A run of pairs that are loaded, rotated and stored together."""

    channels = 1  # how many channels of a head lie side by side for each pair

    def __init__(self, context: Any, builder: Any, storage: int, first: int, width: int, partner: ir.Value) -> None:
        self.context, self.builder, self.storage = context, builder, storage
        self.first, self.width, self.partner = first, width, partner
        self.tables: list[tuple[ir.Value, ir.Value]] = []

    def load_tables(self, cos: ir.Value, sin: ir.Value) -> None:
        """Load the step's cosines and sines, in the orders in which its vectors hold the pairs."""
        itemsize, element = st.TABLE_ITEMSIZE[self.storage], st.table_element(self.storage)
        c, s = (
            st.load(self.builder, self.at(table, self.first * itemsize), element, self.width, itemsize)
            for table in (cos, sin)
        )
        if self.storage == st.BF16:
            c, s = st.with_plain_nans(self.builder, c), st.with_plain_nans(self.builder, s)
        self.tables = [(self.pick(c, c, order), self.pick(s, s, order)) for order in self.orders()]

    def orders(self) -> list[list[int]]:
        """Return, for each couple of vectors, which of the step's pairs its lanes hold."""
        return [list(range(self.width))]

    @abstractmethod
    def rotate(self, head: ir.Value) -> None:
        """Rotate the step's pairs in one head."""

    def address(self, head: ir.Value) -> ir.Value:
        """Return where the step's first channel lies in a head."""
        return self.at(head, self.channels * self.first * st.ITEMSIZE[self.storage])

    def load_numbers(self, address: ir.Value, lanes: int) -> ir.Value:
        return st.load_numbers(self.context, self.builder, self.storage, address, lanes)

    def store_numbers(self, value: ir.Value, address: ir.Value) -> None:
        st.store_numbers(self.context, self.builder, self.storage, value, address)

    def at(self, address: ir.Value, distance: int) -> ir.Value:
        return self.builder.add(address, ir.Constant(_I64, distance))

    def pick(self, first: ir.Value, second: ir.Value, choices: list[int]) -> ir.Value:
        """Choose lanes of two vectors, those of the second numbered after those of the first."""
        if first is second and choices == list(range(first.type.count)):
            return first
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(choices)), choices)
        return self.builder.shuffle_vector(first, second, mask)


class _Couples(_Step):
    """A step whose lower and higher members stand in vectors of their own."""

    def rotate(self, head: ir.Value) -> None:
        self.store(head, self.rotated(head))

    def rotated(self, head: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """Return what the step's couples are turned into."""
        rotated = []
        for (low, high), (c, s) in zip(self.load(head), self.tables, strict=True):
            new_low = self.builder.fsub(self.builder.fmul(low, c), self.builder.fmul(high, s))
            new_high = self.builder.fadd(self.builder.fmul(low, s), self.builder.fmul(high, c))
            rotated.append((new_low, new_high))
        return rotated

    @abstractmethod
    def load(self, head: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """Load couples of vectors: the lower and the higher members of the step's pairs."""

    @abstractmethod
    def store(self, head: ir.Value, rotated: list[tuple[ir.Value, ir.Value]]) -> None:
        """Store such couples to where they were loaded from."""


class _Half(_Couples):
    """Pairs (i, i + rotary_dim / 2)."""

    def addresses(self, head: ir.Value) -> tuple[ir.Value, ir.Value]:
        low = self.address(head)
        return low, self.builder.add(low, self.partner)

    def load(self, head: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        low, high = self.addresses(head)
        return [(self.load_numbers(low, self.width), self.load_numbers(high, self.width))]

    def store(self, head: ir.Value, rotated: list[tuple[ir.Value, ir.Value]]) -> None:
        for value, address in zip(rotated[0], self.addresses(head), strict=True):
            self.store_numbers(value, address)


class _Packed(_Couples):
    """A step in bfloat16, two channels to a 32-bit lane. Its results are stored as float32 bits rounded before."""


class _PackedHalf(_Half, _Packed):
    """The same in bfloat16: couples of even and of odd channels."""

    def orders(self) -> list[list[int]]:
        return [list(range(0, self.width, 2)), list(range(1, self.width, 2))]

    def load(self, head: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        low, high = (
            st.load_packed_bfloat16(self.builder, address, self.width // 2) for address in self.addresses(head)
        )
        return list(zip(low, high, strict=True))

    def store(self, head: ir.Value, rotated: list[tuple[ir.Value, ir.Value]]) -> None:
        for (even, odd), address in zip(zip(*rotated, strict=True), self.addresses(head), strict=True):
            st.store_packed_bfloat16(self.builder, even, odd, address)


class _Interleaved(_Step):
    """Pairs (2i, 2i + 1): members change places within a vector, which then meets each cosine and sine twice.

    Parting two vectors into lower and higher members, to have each cosine and sine only once, takes twice the choices
    of lanes: measured on AVX2, 1.65 against 1.37 times the stream in the first-level cache, 40 heads x 128.
    """

    channels = 2

    def load_tables(self, cos: ir.Value, sin: ir.Value) -> None:
        super().load_tables(cos, sin)
        c, s = self.tables[0]
        twice = [lane // 2 for lane in range(2 * self.width)]
        signed = [lane // 2 + (lane % 2) * self.width for lane in range(2 * self.width)]
        self.tables = [(self.pick(c, c, twice), self.pick(self.builder.fneg(s), s, signed))]

    def rotate(self, head: ir.Value) -> None:
        c, s = self.tables[0]
        pairs = self.load_numbers(self.address(head), 2 * self.width)
        swapped = self.pick(pairs, pairs, [lane ^ 1 for lane in range(2 * self.width)])
        rotated = self.builder.fadd(self.builder.fmul(pairs, c), self.builder.fmul(swapped, s))
        self.store_numbers(rotated, self.address(head))


class _PackedInterleaved(_Packed):
    """The same in bfloat16: a 32-bit lane holds a pair."""

    channels = 2

    def load(self, head: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        return [st.load_packed_bfloat16(self.builder, self.address(head), self.width)]

    def store(self, head: ir.Value, rotated: list[tuple[ir.Value, ir.Value]]) -> None:
        st.store_packed_bfloat16(self.builder, *rotated[0], self.address(head))


class _Together:
    """Packed steps whose results are rounded together, so that one look tells whether any of them is a tie."""

    def __init__(self, steps: list[_Packed]) -> None:
        self.steps, self.builder = steps, steps[0].builder

    def load_tables(self, cos: ir.Value, sin: ir.Value) -> None:
        for step in self.steps:
            step.load_tables(cos, sin)

    def rotate(self, head: ir.Value) -> None:
        couples = [(step, step.rotated(head)) for step in self.steps]
        flat = [value for _, rotated in couples for couple in rotated for value in couple]
        rounded = iter(st.round_to_bfloat16_together(self.builder, flat))
        for step, rotated in couples:
            step.store(head, [(next(rounded), next(rounded)) for _ in rotated])
