"""Frequencies and positions become rows of cosines and sines, kept for the whole process.

A row holds a position's cosines and then its sines, one for every pair, magnitude included. Its bits depend on the
position and the frequencies alone: each angle is one float64 product, and every entry is the number of its type,
float32 or float64, that is nearest to the true cosine or sine of that angle, times the magnitude. So the row of a
negative position is that of the positive one with its sines negated, which is how it is made.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .cosines import write_cosines_and_sines
from .floating_point import default_mode
from .frequencies import Frequencies
from .numbers import FEW_NUMBERS, min_and_max

__all__ = ["Rows", "Table", "table_for"]

Rows = NDArray[np.float32] | NDArray[np.float64]  # (1 or batch, tokens, 2, pairs); never written to by a reader
# Memory for the rows of the first positions: the rows; a byte for each block, set once its rows are whole; and the
# pages, unless NumPy allocated them.
Reserve = tuple[Rows, bytearray, mmap.mmap | None]
Result = TypeVar("Result")

BLOCK = 64  # positions that are filled together, or fewer of many pairs: about 0.2 ms for 64 pairs
AT_ONCE = 8  # blocks that a call fills for few tokens: a batch of 64 at places of their own took 10 ms
FIRST_BYTES = 1 << 20  # memory reserved for a table at first; it doubles as later positions come
TABLE_BYTES = 64 << 20  # memory reserved for one table at most
# Reserved memory of all tables together, filled or not: a limit of address space (RLIMIT_AS) counts all of it, and
# mlockall(MCL_FUTURE) makes all of it resident.
TOTAL_BYTES = 256 << 20
MOVED_AT_ONCE = 2  # blocks moved to a larger reserve with each block that is filled: 32 MiB at once took 34 ms
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
        self.most = TABLE_BYTES // self.block_bytes  # blocks that the reserve may grow to
        empty: Rows = np.empty((1, 0, 2, frequencies.pairs), dtype)
        self.empty: Reserve = empty, bytearray(), None
        # Rows never move, as readers may hold them: a larger reserve is memory of its own. Readers take all parts of a
        # reserve at once, and need no lock.
        self.memory: Reserve = self.empty
        self.former: Reserve = self.empty
        self.unmoved: list[int] = []  # filled blocks of the former reserve that the present one may lack
        self.beyond: tuple[int, Rows] = (0, empty)  # the last rows outside of the reserve, from a position on
        # A sine from these is that of the opposite angle: a sine of 0.0 is -0.0 then if the angle is 0.0, and stays 0.0
        # if it has been rounded to that.
        self.zeros = np.where(frequencies.inv_freq == 0.0, -0.0, 0.0).astype(dtype)
        self.used = 0
        self.dropped = False

    def span(self, start: int, stop: int) -> Rows:
        """Return the rows of consecutive positions: a view of the table as far as that reaches."""
        if start < stop <= 0:
            mirrored = self.span(1 - stop, 1 - start)[:, ::-1].copy()
            np.subtract(self.zeros, mirrored[:, :, 1], out=mirrored[:, :, 1])
            return mirrored
        reserve, filled, _ = self.memory
        first, last = start // self.block, (stop - 1) // self.block
        if start >= 0 and last < len(filled):
            if filled.find(0, first, last + 1) >= 0:
                self._fill(reserve, filled, range(first, last + 1))
            rows: Rows = reserve[:, start:stop]
            return rows
        if start >= 0 and last < self.most:
            self._grow(last + 1)
            return self.span(start, stop)
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
        flat = positions.reshape(-1)
        least, most = min_and_max(flat) if flat.size else (0, -1)
        if least < 0:
            mirrored = self.gather(np.abs(positions))
            sines = mirrored.reshape(-1, *mirrored.shape[2:])[:, 1]
            np.subtract(self.zeros, sines, out=sines, where=(flat < 0)[:, None])
            return mirrored
        scattered = True
        last = most // self.block if flat.size else self.most
        reserve, filled, _ = self.memory
        inside = last < len(filled)
        if not inside and last < self.most:
            self._grow(last + 1)
            reserve, filled, _ = self.memory
            inside = last < len(filled)
        if inside:
            missing = self._missing(flat, filled)
            scattered = len(missing) > AT_ONCE and len(missing) * self.block > 4 * flat.size
            if missing:
                self._fill(reserve, filled, missing[:AT_ONCE] if scattered else missing)
        found = self._compute(flat) if scattered else reserve[0].take(flat, axis=0)  # computed for this call only
        batch = positions.shape[0] if positions.ndim == 2 else 1
        return found.reshape(batch, positions.shape[-1], *found.shape[1:])

    def _missing(self, positions: NDArray[np.int64], filled: bytearray) -> list[int]:
        """Return the blocks of some positions that are not filled yet, in their order."""
        if positions.size <= FEW_NUMBERS:
            blocks = sorted({position // self.block for position in positions.tolist()})
        else:
            of_each = positions // self.block
            if np.frombuffer(filled, np.uint8)[of_each].all():
                return []
            blocks = np.unique(of_each).tolist()
        return [block for block in blocks if not filled[block]]

    @property
    def bytes(self) -> int:
        """Memory that is reserved, filled or not."""
        return self.memory[0].nbytes + self.former[0].nbytes + self.beyond[1].nbytes

    def drop(self) -> None:
        """Give the memory up; rows that a reader holds stay with that reader."""
        self.dropped, self.most = True, 0
        _retire(self.memory)
        _retire(self.former)
        self.unmoved, self.beyond = [], (0, self.empty[0])
        self.memory = self.former = self.empty

    def _check_count(self, count: int) -> None:
        """Raise before rows fill the memory: positions of an empty or a repeated array take none themselves."""
        pairs = self.frequencies.pairs
        most = MOST_ANGLES // pairs
        if count > most:
            raise MemoryError(f"positions are {count} at once; expected at most {most} of {pairs} pairs")

    def _fill(self, reserve: Rows, filled: bytearray, blocks: Iterable[int]) -> None:
        missing = [block for block in blocks if not filled[block]]
        if not missing:
            return
        with _lock:
            for block in missing:
                if not filled[block]:
                    self._write(reserve, filled, block)
                    self._move(MOVED_AT_ONCE)
                    _give_back()

    def _write(self, reserve: Rows, filled: bytearray, block: int) -> None:
        """Fill a block: with rows of the former reserve, or computed ones."""
        start, stop = block * self.block, (block + 1) * self.block
        rows, whole, _ = self.former
        found = block < len(whole) and whole[block]
        reserve[0, start:stop] = rows[0, start:stop] if found else self._compute(np.arange(start, stop))
        filled[block] = 1

    def _move(self, most: int) -> None:
        """Move some blocks of the former reserve to the present one, and give the former one up when it has no more."""
        reserve, filled, _ = self.memory
        while self.unmoved and most:
            block = self.unmoved.pop()
            if block < len(filled) and not filled[block]:
                self._write(reserve, filled, block)
                most -= 1
        if not self.unmoved and self.former is not self.empty:
            former, self.former = self.former, self.empty
            _retire(former)

    def _grow(self, blocks: int) -> None:
        """Reserve memory for so many blocks or more; where there is none, the table stays as it is from now on."""
        with _lock:
            if blocks <= len(self.memory[1]) or blocks > self.most:
                return  # another thread has grown or dropped the table
            self._move(len(self.memory[1]))
            size = max(1, FIRST_BYTES // self.block_bytes)
            while size < blocks:
                size *= 2
            size = min(size, self.most)
            _drop_least_used(self, size * self.block_bytes)
            try:
                mapping, rows = _with_room(self, lambda: _reserved(size * self.block_bytes, self.dtype))
            except MemoryError:
                self.most = len(self.memory[1])
                return
            former = self.memory
            self.memory = rows.reshape(1, -1, 2, self.frequencies.pairs), bytearray(size), mapping
            self.former, self.unmoved = former, [block for block, whole in enumerate(former[1]) if whole]

    def _compute(self, positions: NDArray[np.int64]) -> Rows:
        return _with_room(self, lambda: compute(positions, self.frequencies, self.dtype))


def _reserved(size: int, dtype: np.dtype[Any]) -> tuple[mmap.mmap | None, Rows]:
    """Return so many bytes as an array, whose small pages come into being when they are first written to.

    NumPy asks for huge pages: each took 9 ms of the decode step that met it first, as 2 MiB were made zero.
    """
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return None, np.empty(size // dtype.itemsize, dtype)
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # beyond a limit of address space or of locked memory
        raise MemoryError(f"no {size} bytes can be reserved for a table ({error})") from None
    with contextlib.suppress(OSError):  # a kernel built without huge pages knows no such advice, and needs none
        mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return mapping, np.frombuffer(mapping, dtype)


def _with_room(keep: Table, work: Callable[[], Result]) -> Result:
    """Return what work returns; while memory is missing, drop the table used least recently and try again."""
    while True:
        try:
            return work()
        except MemoryError:
            with _lock:
                if not _make_room(keep):
                    raise


def _make_room(keep: Table) -> bool:
    """Give back the memory of dropped tables, or drop the one used least recently; false if there is none."""
    released = False
    for mapping in list(_leaving):
        _leaving.remove(mapping)
        try:
            mapping.close()
            released = True
        except BufferError:  # a reader holds its rows
            _leaving.append(mapping)
    others = [item for item in _tables.items() if item[1] is not keep]
    if released or not others:
        return released
    key, table = min(others, key=lambda item: item[1].used)
    table.drop()
    _tables.pop(key, None)
    return True


def _retire(reserve: Reserve) -> None:
    """Let a large reserve be given back in pieces; a small one is freed with its last reader."""
    mapping = reserve[2]
    if mapping is not None and len(mapping) > PIECE:
        _leaving.append(mapping)


def _give_back() -> bool:
    """Return a piece of a dropped table to the system, once no reader holds its rows; false if there is none."""
    for mapping in _leaving:
        if len(mapping) <= PIECE:
            _leaving.remove(mapping)  # the last reference
            return True
        try:
            mapping.resize(len(mapping) - PIECE)
        except BufferError:  # a reader holds its rows
            continue
        return True
    return False


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
    """Drop tables until all stay within their bounds, together with so many bytes that are about to be reserved."""
    total = coming + sum(table.bytes for table in list(_tables.values()))
    for key, table in sorted(_tables.items(), key=lambda item: item[1].used):
        if total <= TOTAL_BYTES and len(_tables) <= MOST_TABLES:
            break
        if table is not keep:
            total -= table.bytes
            table.drop()
            _tables.pop(key, None)  # a signal handler that rotates may have been quicker
    while total + sum(map(len, _leaving)) > TOTAL_BYTES and _give_back():
        pass


def compute(positions: NDArray[np.int64], frequencies: Frequencies, dtype: np.dtype[Any]) -> Rows:
    """Compute the rows of some positions, of shape (positions, 2, pairs)."""
    result: Rows = np.empty((len(positions), 2, frequencies.pairs), dtype)
    step = max(1, CHUNK_ANGLES // frequencies.pairs)
    # The rows are kept: a thread that rounds in another direction must not spoil them for all. Numbers of 1e300 or
    # 1e-300 leave the range of their type, as they should.
    with default_mode(), np.errstate(all="ignore"):
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
