"""Serial or parallel, now: which compiled entry a call takes.

A parallel launch costs microseconds, aborts the process where two threads make one under Numba's workqueue layer, and
ends a forked child under OpenMP. So it is made for large work only, by one thread at a time (whoever finds the lock
taken runs the serial kernel), and never under workqueue or in a forked child.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from numba import config, get_num_threads, threading_layer  # type: ignore[attr-defined]
from numpy.typing import NDArray

from .entry import make_entry
from .panel import HALF, INTERLEAVED
from .storage import NAMES
from .told import MOST_CHUNKS, with_chunks

# Below this many elements of q and k together one thread does it all; a multiple of it takes so many threads.
ELEMENTS_PER_THREAD = 1 << 17
CHUNKS_PER_THREAD = 4

Entry = Callable[[NDArray[Any], NDArray[Any], NDArray[Any], int], int]

# Kernels are made of instructions and have no Python body: with NUMBA_DISABLE_JIT=1 the rotation in NumPy runs.
JIT_DISABLED = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]

_launching = threading.Lock()
_compiling = threading.RLock()
_forked = False


class Kernels:
    """The compiled entries of one storage and layout, by the arrays' number of axes; compiled when first called."""

    def __init__(self, storage: int, layout: int) -> None:
        self.storage, self.layout = storage, layout
        self.serial: list[Entry] = [_no_entry, _no_entry, *map(self._first_call, (2, 3, 4))]
        self._parallel: dict[int, Entry] = {}

    def run(self, q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], told: int) -> int:
        """Rotate q and k, on one thread or on several."""
        elements = q.size + k.size
        if elements >= 2 * ELEMENTS_PER_THREAD and not _forked and _launching.acquire(blocking=False):
            try:
                # Numba chooses its threading layer as it makes or loads the first parallel function, not before.
                kernel = self.parallel(q.ndim)
                threads = min(get_num_threads(), elements // ELEMENTS_PER_THREAD)
                if threads > 1 and threading_layer() != "workqueue":
                    return kernel(q, k, rows, with_chunks(told, min(threads * CHUNKS_PER_THREAD, MOST_CHUNKS)))
            finally:
                _launching.release()
        return self.serial[q.ndim](q, k, rows, told)

    def parallel(self, rank: int) -> Entry:
        """Return the parallel entry for arrays of so many axes."""
        with _compiling:
            if rank not in self._parallel:
                self._parallel[rank] = make_entry(self.storage, self.layout, rank, parallel=True)
            return self._parallel[rank]

    def _first_call(self, rank: int) -> Entry:
        """Return what stands for a serial entry until it is compiled."""

        def compile_and_call(q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], told: int) -> int:
            with _compiling:
                if self.serial[rank] is compile_and_call:
                    self.serial[rank] = make_entry(self.storage, self.layout, rank, parallel=False)
            return self.serial[rank](q, k, rows, told)

        return compile_and_call


def layer() -> str:
    """Return Numba's threading layer, or say that none has been chosen yet."""
    try:
        return str(threading_layer())
    except ValueError:
        return "not chosen yet"


def _no_entry(q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], told: int) -> int:
    raise TypeError(f"q has {q.ndim} axes; expected 2, 3 or 4")


@functools.cache
def kernels_for(storage: str, layout: str) -> Kernels:
    """Return the kernels of a storage ("f32", "f64", "f16", "bf16") and layout ("interleaved", "half")."""
    return Kernels(NAMES.index(storage), {"interleaved": INTERLEAVED, "half": HALF}[layout])


def _after_fork_in_child() -> None:
    global _launching, _compiling, _forked
    _launching, _compiling, _forked = threading.Lock(), threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
