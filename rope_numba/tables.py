"""Frequencies and positions become rows of cosines and sines, kept for the whole process.

A row holds a position's cosines and then its sines, one for every pair, magnitude included. Its bits depend on the
position and the frequencies alone: each angle is one float64 product, and every entry of a float32 table is the
float32 nearest to the true cosine or sine of that angle, times the magnitude.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import rounded_to_float32
from .frequencies import Frequencies

__all__ = ["Rows", "Table", "table_for"]

Rows = NDArray[np.float32] | NDArray[np.float64]  # (1 or batch, tokens, 2, pairs); never written to by a reader

BLOCK = 64  # positions that are filled together: about 0.2 ms for 64 pairs
TABLE_BYTES = 64 << 20  # memory reserved for one table; pages that are not filled cost nothing
TOTAL_BYTES = 256 << 20  # filled memory of all tables together
MOST_TABLES = 64  # reservations that may stand at once
PAGE_BYTES = 2 << 20  # memory comes in pages, and NumPy asks for large ones: a block of 32 KiB may cost as much
CHUNK_ANGLES = 8192  # computed together: larger temporaries leave the cache and took 31 ns an entry, not 19


class Table:
    """The rows of one set of frequencies in one type, filled block by block as positions are met."""

    def __init__(self, frequencies: Frequencies, dtype: np.dtype[Any]) -> None:
        self.frequencies, self.dtype = frequencies, dtype
        self.block_bytes = BLOCK * 2 * frequencies.pairs * dtype.itemsize
        blocks = TABLE_BYTES // self.block_bytes
        reserve: Rows = np.empty((1, blocks * BLOCK, 2, frequencies.pairs), dtype)
        # The rows, and a byte for each block, set once its rows are whole. Readers take both at once and need no lock.
        self.memory = reserve, bytearray(blocks)
        self.beyond: tuple[int, Rows] = (-1, reserve[:, :0])  # the last block past the reserve: its number, its rows
        self.pages: set[int] = set()  # those of the reserve that hold rows
        self.used = 0
        self.dropped = False

    def span(self, start: int, stop: int) -> Rows:
        """Return the rows of consecutive positions: a view of the table as far as that reaches."""
        reserve, filled = self.memory
        first, last = start // BLOCK, (stop - 1) // BLOCK
        if start >= 0 and last < len(filled):
            if filled.find(0, first, last + 1) >= 0:
                self._fill(reserve, filled, range(first, last + 1))
            rows: Rows = reserve[:, start:stop]
            return rows
        if start < 0 or first != last or self.block_bytes > TABLE_BYTES:
            return self._compute(np.arange(start, stop, dtype=np.int64))[None]  # for this call only
        number, block = self.beyond
        if number != first:
            block = self._compute(np.arange(first * BLOCK, (first + 1) * BLOCK, dtype=np.int64))[None]
            with _lock:
                self.beyond = first, block
                _drop_least_used(self)
        return block[:, start - first * BLOCK : stop - first * BLOCK]

    def gather(self, positions: NDArray[np.int64]) -> Rows:
        """Return the rows of any positions, given as (tokens,) or (batch, tokens)."""
        reserve, filled = self.memory
        flat = positions.reshape(-1)
        if flat.size and flat.min() >= 0 and flat.max() < len(filled) * BLOCK:
            self._fill(reserve, filled, np.unique(flat // BLOCK).tolist())
            found = reserve[0, flat]
        else:
            found = self._compute(flat)  # for this call only
        batch = positions.shape[0] if positions.ndim == 2 else 1
        rows: Rows = found.reshape(batch, positions.shape[-1], *found.shape[1:])
        return rows

    @property
    def bytes(self) -> int:
        """Memory that rows take."""
        return len(self.pages) * PAGE_BYTES + self.beyond[1].nbytes

    def drop(self) -> None:
        """Give the memory up; rows that somebody holds stay with their holder."""
        self.dropped = True
        self.beyond = -1, np.empty((1, 0, 2, self.frequencies.pairs), self.dtype)
        self.memory = self.beyond[1], bytearray()

    def _fill(self, reserve: Rows, filled: bytearray, blocks: Iterable[int]) -> None:
        missing = [block for block in blocks if not filled[block]]
        if not missing:
            return
        address, size = reserve.ctypes.data, self.block_bytes
        with _lock:
            for block in missing:
                first = address + block * size
                self.pages.update(range(first // PAGE_BYTES, (first + size - 1) // PAGE_BYTES + 1))
            _drop_least_used(self)
            for block in missing:
                if not filled[block]:
                    start = block * BLOCK
                    reserve[0, start : start + BLOCK] = self._compute(np.arange(start, start + BLOCK))
                    filled[block] = 1

    def _compute(self, positions: NDArray[np.int64]) -> Rows:
        return compute(positions, self.frequencies, self.dtype)


_tables: dict[tuple[Any, ...], Table] = {}
_clock = itertools.count(1)
_lock = threading.RLock()


def table_for(frequencies: Frequencies, dtype: np.dtype[Any], held: Table | None = None) -> Table:
    """Return the process's table of these frequencies in float32 or float64.

    held is the answer of an earlier call, if there was one: it saves the look-up.
    """
    table = held
    if table is None or table.dropped:
        with _lock:
            key = (*frequencies.table_key, dtype.char)
            table = _tables.get(key)
            if table is None or table.dropped:  # an interrupt may have come before its entry was deleted
                table = _tables[key] = Table(frequencies, dtype)
                table.used = next(_clock)
                _drop_least_used(table)
    table.used = next(_clock)
    return table


def _drop_least_used(keep: Table) -> None:
    """Drop tables until all stay within their bounds."""
    total = sum(table.bytes for table in list(_tables.values()))
    for key, table in sorted(_tables.items(), key=lambda item: item[1].used):
        if total <= TOTAL_BYTES and len(_tables) <= MOST_TABLES:
            return
        if table is not keep:
            total -= table.bytes
            table.drop()
            _tables.pop(key, None)  # a signal handler that rotates may have been quicker


def compute(positions: NDArray[np.int64], frequencies: Frequencies, dtype: np.dtype[Any]) -> Rows:
    """Compute the rows of some positions, of shape (positions, 2, pairs)."""
    factor = frequencies.attention_factor
    result: Rows = np.empty((len(positions), 2, frequencies.pairs), dtype)
    step = max(1, CHUNK_ANGLES // frequencies.pairs)
    with np.errstate(all="ignore"):  # numbers of 1e300 or 1e-300 leave the range of their type, as they should
        for first in range(0, len(positions), step):
            part = slice(first, first + step)
            angles = positions[part, None].astype(np.float64) * frequencies.inv_freq
            for row, name, function in ((0, "cos", np.cos), (1, "sin", np.sin)):
                values = function(angles)
                if factor != 1.0:
                    values *= factor
                result[part, row] = values
                if dtype == np.float32:
                    _settle(result[part, row], values, name, angles, frequencies)
    return result


def _settle(
    rounded: Rows, values: NDArray[np.float64], name: str, angles: NDArray[np.float64], frequencies: Frequencies
) -> None:
    """Round anew, exactly, the entries that float64 leaves undecided between two float32 neighbours.

    A float64 cosine is off by some units of its last place, and by other ones on another processor. That moves the
    nearest float32 only where the cosine lies as near to the middle between two: 1 entry in 16 million.
    """
    slack = 16  # units of the last place of float64; cosine, sine and the product with the magnitude stay within 4
    distance = (values.view(np.uint64) - np.uint64((1 << 28) - slack)) & np.uint64((1 << 29) - 1)
    undecided = distance <= 2 * slack
    if frequencies.smallest < 2.0**-60:  # float32 is coarser below 2**-126: there, other bits decide
        undecided |= (np.abs(values) < 2.0**-126) & (angles != 0.0)
    if undecided.any():
        for place in zip(*np.nonzero(undecided), strict=True):
            rounded[place] = rounded_to_float32(name, float(angles[place]), frequencies.attention_factor)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held the one before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
