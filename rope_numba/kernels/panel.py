"""The rotation itself: a panel of pairs, turned in one head after another (LLVM).

A panel is a run of pairs whose number is known when the code is made. Its cosines and sines are loaded once, kept in
vector registers and used for every head. What a pair looks like in memory is the business of load and store below;
the rotation between them is the formula.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from . import storage as st

INTERLEAVED, HALF = range(2)

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Panel:
    """Writes the code for one panel: so many pairs of one storage and layout.

    partner is the distance in bytes between the two members of a pair of the half layout.
    """

    def __init__(self, context: Any, builder: Any, storage: int, layout: int, pairs: int, partner: ir.Value):
        self.context, self.builder = context, builder
        self.storage, self.layout, self.partner = storage, layout, partner
        self.pairs = pairs
        self.step = min(pairs, st.LANES[storage])
        self.packed = storage == st.BF16 and (layout == INTERLEAVED or self.step > 1)
        self.tables: list[list[tuple[ir.Value, ir.Value]]] = []

    def load_tables(self, cos: ir.Value, sin: ir.Value) -> None:
        """Load the panel's cosines and sines, in the order in which the lanes of a step hold its pairs."""
        itemsize = st.TABLE_ITEMSIZE[self.storage]
        element = st.table_element(self.storage)
        for first in range(0, self.pairs, self.step):
            c = st.load(self.builder, self._at(cos, first * itemsize), element, self.step, itemsize)
            s = st.load(self.builder, self._at(sin, first * itemsize), element, self.step, itemsize)
            self.tables.append([(self._pick(c, c, order), self._pick(s, s, order)) for order in self._lane_orders()])

    def rotate(self, head: ir.Value) -> None:
        """Rotate the panel's pairs in one head."""
        for number, tables in enumerate(self.tables):
            low_address, high_address = self._addresses(head, number * self.step)
            rotated = []
            for (low, high), (c, s) in zip(self._load(low_address, high_address), tables, strict=True):
                rotated.append(
                    (
                        self.builder.fsub(self.builder.fmul(low, c), self.builder.fmul(high, s)),
                        self.builder.fadd(self.builder.fmul(low, s), self.builder.fmul(high, c)),
                    )
                )
            self._store(rotated, low_address, high_address)

    def _addresses(self, head: ir.Value, first_pair: int) -> tuple[ir.Value, ir.Value]:
        """Return where the two blocks of memory lie that a step reads and writes."""
        itemsize = st.ITEMSIZE[self.storage]
        if self.layout == HALF:
            low = self._at(head, first_pair * itemsize)
            return low, self.builder.add(low, self.partner)
        low = self._at(head, 2 * first_pair * itemsize)
        return low, self._at(low, self.step * itemsize)

    def _load(self, low_address: ir.Value, high_address: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """Load a step: couples of vectors that hold the lower and the higher members of its pairs."""
        if self.packed and self.layout == INTERLEAVED:
            return [st.load_packed_bfloat16(self.builder, low_address, self.step)]
        if self.packed:
            low_even, low_odd = st.load_packed_bfloat16(self.builder, low_address, self.step // 2)
            high_even, high_odd = st.load_packed_bfloat16(self.builder, high_address, self.step // 2)
            return [(low_even, high_even), (low_odd, high_odd)]
        low = st.load_numbers(self.context, self.builder, self.storage, low_address, self.step)
        high = st.load_numbers(self.context, self.builder, self.storage, high_address, self.step)
        if self.layout == INTERLEAVED and self.step > 1:
            even, odd, _, _, _ = self._unzip_orders()
            low, high = self._pick(low, high, even), self._pick(low, high, odd)
        return [(low, high)]

    def _store(self, rotated: list[tuple[ir.Value, ir.Value]], low_address: ir.Value, high_address: ir.Value) -> None:
        """Store what _load loaded, to the same places."""
        low, high = rotated[0]
        if self.packed and self.layout == INTERLEAVED:
            st.store_packed_bfloat16(self.builder, low, high, low_address)
            return
        if self.packed:
            low_odd, high_odd = rotated[1]
            st.store_packed_bfloat16(self.builder, low, low_odd, low_address)
            st.store_packed_bfloat16(self.builder, high, high_odd, high_address)
            return
        if self.layout == INTERLEAVED and self.step > 1:
            _, _, first, second, _ = self._unzip_orders()
            low, high = self._pick(low, high, first), self._pick(low, high, second)
        st.store_numbers(self.context, self.builder, self.storage, low, low_address)
        st.store_numbers(self.context, self.builder, self.storage, high, high_address)

    def _lane_orders(self) -> list[list[int]]:
        """Return, for each couple of a step, which of the step's pairs its lanes hold."""
        natural = list(range(self.step))
        if self.packed and self.layout == HALF:
            return [natural[0::2], natural[1::2]]
        if self.packed or self.layout == HALF or self.step == 1:
            return [natural]
        return [self._unzip_orders()[4]]

    def _unzip_orders(self) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Return the lane choices that part two vectors of interleaved pairs into lower and higher members, and back.

        Choices stay inside the 128 bits of a register's lanes, where they cost least: that leaves the pairs in an
        order of their own, the last list, in which cos and sin are put once per token. This way cos and sin
        take half the registers that the other way takes (each cosine twice, members swapped within one vector):
        measured on AVX2, 16 tokens of 32+8 heads x 128 in 6.3 against 7.0 us.
        """
        step = self.step
        lane = min(16 // st.TABLE_ITEMSIZE[self.storage], step)
        half = lane // 2
        groups = range(0, step, lane)
        even = [place + 2 * i for g in groups for place in (g, step + g) for i in range(half)]
        odd = [choice + 1 for choice in even]
        first = [choice for g in groups for i in range(half) for choice in (g + i, step + g + i)]
        second = [choice + half for choice in first]
        pairs = [place + i for g in groups for place in (g // 2, (step + g) // 2) for i in range(half)]
        return even, odd, first, second, pairs

    def _at(self, address: ir.Value, distance: int) -> ir.Value:
        return self.builder.add(address, ir.Constant(_I64, distance))

    def _pick(self, first: ir.Value, second: ir.Value, choices: list[int]) -> ir.Value:
        """Choose lanes of two vectors, those of the second numbered after those of the first."""
        if first is second and choices == list(range(first.type.count)):
            return first
        mask = ir.Constant(ir.VectorType(_I32, len(choices)), choices)
        return self.builder.shuffle_vector(first, second, mask)
