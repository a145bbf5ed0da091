"""Frequencies and positions become rows of cosines and sines, kept for the whole process.

A row holds a position's cosines and then its sines, one for every pair, magnitude included. Its bits depend on the
position and the frequencies alone: each angle is one float64 product, and every entry is the number of its type,
float32 or float64, that is nearest to the true cosine or sine of that angle, times the magnitude.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cosines import write_cosines_and_sines
from .frequencies import Frequencies

__all__ = ["Rows", "Table", "table_for"]

Rows = NDArray[np.float32] | NDArray[np.float64]  # (1 or batch, tokens, 2, pairs); never written to by a reader

BLOCK = 64  # positions that are filled together, or fewer of many pairs: about 0.2 ms for 64 pairs
AT_ONCE = 8  # blocks that a call fills for few tokens: a batch of 64 at places of their own took 10 ms
TABLE_BYTES = 64 << 20  # memory reserved for one table; pages that are not filled cost nothing
TOTAL_BYTES = 256 << 20  # filled memory of all tables together
PIECE = 4 << 20  # of a dropped table, given back with each block that is filled: 64 MiB at once took 8 ms
BEYOND_BYTES = 16 << 20  # of rows past the reserve, kept for the next call: a prompt's layers may ask one by one
MOST_TABLES = 64  # reservations that may stand at once
CHUNK_ANGLES = 16_384  # computed together: half as many took a fifth longer, as each NumPy call costs 0.5 us
MOST_ANGLES = 1 << 31  # of one call: 16 GiB of rows in float32


class Table:
    """The rows of one set of frequencies in one type, filled block by block as positions are met."""

    def __init__(self, frequencies: Frequencies, dtype: np.dtype[Any]) -> None:
        self.frequencies, self.dtype = frequencies, dtype
        self.block = max(1, min(BLOCK, CHUNK_ANGLES // frequencies.pairs))
        self.block_bytes = self.block * 2 * frequencies.pairs * dtype.itemsize
        blocks = TABLE_BYTES // self.block_bytes
        self.mapping, rows = _reserved(blocks * self.block_bytes, dtype)
        reserve: Rows = rows.reshape(1, -1, 2, frequencies.pairs)
        # The rows, and a byte for each block, set once its rows are whole. Readers take both at once and need no lock.
        self.memory = reserve, bytearray(blocks)
        self.beyond: tuple[int, Rows] = (0, reserve[:, :0])  # the last rows outside of the reserve, from a position on
        self.used = 0
        self.dropped = False

    def span(self, start: int, stop: int) -> Rows:
        """Return the rows of consecutive positions: a view of the table as far as that reaches."""
        reserve, filled = self.memory
        first, last = start // self.block, (stop - 1) // self.block
        if start >= 0 and last < len(filled):
            if filled.find(0, first, last + 1) >= 0:
                self._fill(reserve, filled, range(first, last + 1))
            rows: Rows = reserve[:, start:stop]
            return rows
        self._check_count(stop - start)
        begin, kept = self.beyond
        if not begin <= start <= stop <= begin + kept.shape[1]:
            begin = first * self.block
            kept = self._compute(np.arange(begin, (last + 1) * self.block, dtype=np.int64))[None]
            if kept.nbytes <= max(BEYOND_BYTES, min(self.block_bytes, TABLE_BYTES)):
                with _lock:
                    self.beyond = begin, kept
                    _drop_least_used(self)
        return kept[:, start - begin : stop - begin]

    def gather(self, positions: NDArray[np.int64]) -> Rows:
        """Return the rows of any positions, given as (tokens,) or (batch, tokens)."""
        self._check_count(positions.size)
        reserve, filled = self.memory
        flat = positions.reshape(-1)
        scattered = True
        if flat.size and flat.min() >= 0 and flat.max() < len(filled) * self.block:
            blocks = flat // self.block
            missing: list[int] = []
            if not np.frombuffer(filled, np.uint8)[blocks].all():  # 3 us for 64 positions; the list takes 10
                missing = [block for block in np.unique(blocks).tolist() if not filled[block]]
            scattered = len(missing) > AT_ONCE and len(missing) * self.block > 4 * flat.size
            self._fill(reserve, filled, missing[:AT_ONCE] if scattered else missing)
        found = self._compute(flat) if scattered else reserve[0].take(flat, axis=0)  # computed for this call only
        batch = positions.shape[0] if positions.ndim == 2 else 1
        rows: Rows = found.reshape(batch, positions.shape[-1], *found.shape[1:])
        return rows

    @property
    def bytes(self) -> int:
        """Memory that is filled."""
        return self.memory[1].count(1) * self.block_bytes + self.beyond[1].nbytes

    def drop(self) -> None:
        """Give the memory up; rows that somebody holds stay with their holder."""
        self.dropped = True
        if self.mapping is not None and self.bytes > PIECE:
            _leaving.append(self.mapping)
        self.mapping = None
        self.beyond = 0, np.empty((1, 0, 2, self.frequencies.pairs), self.dtype)
        self.memory = self.beyond[1], bytearray()

    def _check_count(self, count: int) -> None:
        """Raise before rows fill the memory: positions of an empty or a repeated array take none themselves."""
        pairs, most = self.frequencies.pairs, MOST_ANGLES // self.frequencies.pairs
        if count > most:
            raise MemoryError(f"positions are {count} at once; expected at most {most} of {pairs} pairs")

    def _fill(self, reserve: Rows, filled: bytearray, blocks: Iterable[int]) -> None:
        missing = [block for block in blocks if not filled[block]]
        if not missing:
            return
        with _lock:
            _drop_least_used(self, len(missing) * self.block_bytes)
            for block in missing:
                if not filled[block]:
                    start, stop = block * self.block, (block + 1) * self.block
                    reserve[0, start:stop] = self._compute(np.arange(start, stop))
                    filled[block] = 1
                    _give_back()

    def _compute(self, positions: NDArray[np.int64]) -> Rows:
        return compute(positions, self.frequencies, self.dtype)


def _reserved(size: int, dtype: np.dtype[Any]) -> tuple[mmap.mmap | None, Rows]:
    """Return so many bytes as an array, whose small pages come into being when they are first written to.

    NumPy asks for huge pages: each took 9 ms of the decode step that met it first, as 2 MiB were made zero.
    """
    if size and hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without huge pages knows no such advice
            mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            mapping.madvise(mmap.MADV_NOHUGEPAGE)
            return mapping, np.frombuffer(mapping, dtype)
    return None, np.empty(size // dtype.itemsize, dtype)


def _give_back() -> None:
    """Return a piece of a dropped table to the system, once nobody holds its rows."""
    for mapping in _leaving:
        try:
            if len(mapping) > PIECE:
                mapping.resize(len(mapping) - PIECE)
            else:
                mapping.close()
                _leaving.remove(mapping)
        except BufferError:  # somebody holds its rows
            continue
        return


_leaving: list[mmap.mmap] = []  # the memory of dropped tables
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


def _drop_least_used(keep: Table, coming: int = 0) -> None:
    """Drop tables until all stay within their bounds, together with so many bytes that are about to be filled."""
    total = coming + sum(table.bytes for table in list(_tables.values()))
    for key, table in sorted(_tables.items(), key=lambda item: item[1].used):
        if total <= TOTAL_BYTES and len(_tables) <= MOST_TABLES:
            return
        if table is not keep:
            total -= table.bytes
            table.drop()
            _tables.pop(key, None)  # a signal handler that rotates may have been quicker


def compute(positions: NDArray[np.int64], frequencies: Frequencies, dtype: np.dtype[Any]) -> Rows:
    """Compute the rows of some positions, of shape (positions, 2, pairs)."""
    result: Rows = np.empty((len(positions), 2, frequencies.pairs), dtype)
    step = max(1, CHUNK_ANGLES // frequencies.pairs)
    with np.errstate(all="ignore"):  # numbers of 1e300 or 1e-300 leave the range of their type, as they should
        for first in range(0, len(positions), step):
            here = positions[first : first + step, None].astype(np.float64)
            for pair in range(0, frequencies.pairs, CHUNK_ANGLES):
                pairs = slice(pair, pair + CHUNK_ANGLES)
                out = result[first : first + step, :, pairs].transpose(1, 0, 2)
                write_cosines_and_sines(here * frequencies.inv_freq[pairs], frequencies.attention_factor, out)
    return result


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held the one before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
