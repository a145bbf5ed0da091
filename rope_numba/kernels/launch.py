"""The compiled entries of each storage and layout, made when they are first needed, and launched serial or parallel.

A parallel launch is made for large work only, by one thread at a time (a thread that finds the lock taken does all of
its work), and where `threads.py` lets it.
"""

from __future__ import annotations

import functools
import os
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray

from .. import forks
from . import threads
from .compile import with_compiler_lock
from .flags import NO_KEY, SERIAL_ONLY, Status
from .in_place import InPlace
from .ndarray_abi import layout_matches
from .out_of_place import OutOfPlace
from .panel import LAYOUTS, Form
from .precheck import Precheck, compile_precheck
from .storage import storage_of
from .threads import can_run_parallel, contention, count_threads
from .walk import ELEMENTS_PER_THREAD

CHUNKS_PER_THREAD = 4

LAYOUT_CODES = {name: code for code, name in enumerate(LAYOUTS)}

Entry = Callable[..., int]


def _why_unavailable() -> str:
    """Return the reason why compiled kernels do not run in this process, or "" where they do."""
    # Kernels consist of LLVM instructions and have no Python body that could run instead.
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "NUMBA_DISABLE_JIT=1 disables compilation; unset it"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "kernels are not tested on a free-threaded build of Python; use a build with the GIL"
    if not layout_matches():
        return "NumPy's array fields are not where the kernels read them; use another version of NumPy, and report this"
    return ""


KERNELS_UNAVAILABLE = _why_unavailable()  # where this is not "", NumPy rotates

_launching = threading.Lock()
_precheck: Precheck | None = None


class _Kernels:
    """A serial entry and a parallel one; each is compiled when it is first asked for."""

    _compiled: InPlace | OutOfPlace | None = None
    _serial: Entry | None = None
    _parallel: Entry | None = None

    def _make(self) -> InPlace | OutOfPlace:
        raise NotImplementedError

    def available(self) -> bool:
        """Tell whether the serial entry is compiled, or can be."""
        return self._serial is not None or forks.can_compile()

    def get(self) -> Entry:
        """Return the serial entry."""

        def compile_it() -> Entry:
            self._compiled = self._compiled or self._make()
            self._serial = self._serial or self._compiled.compile_serial()
            return self._serial

        return self._serial or with_compiler_lock(compile_it)

    def get_parallel(self) -> Entry:
        """Return the parallel entry."""

        def compile_it() -> Entry:
            self._compiled = self._compiled or self._make()
            self._parallel = self._parallel or self._compiled.compile_parallel()
            return self._parallel

        return self._parallel or with_compiler_lock(compile_it)

    def _run(self, elements: int, *arguments: Any) -> int:
        """Call an entry: the parallel one for much work, where a launch does no harm and loses no time."""
        wanted = elements // ELEMENTS_PER_THREAD
        if wanted > 1 and can_run_parallel() and not _launching.locked() and (most := count_threads()) > 1:
            if contention.is_likely():
                serial = self.get()
                return contention.time_serial(self, elements, lambda: serial(*arguments))
            # Nothing is compiled with this lock held: a thread that waits for it may hold Numba's.
            entry = self.get_parallel()
            # A loop of as many chunks as threads wakes all of them, so few chunks where few are wanted.
            n_chunks = CHUNKS_PER_THREAD * most if wanted >= most else wanted
            # Not acquire() and release(): an interrupt between one of them and the next line would leave the lock held.
            # Two threads that find it free at once launch one after the other.
            with _launching:
                return contention.time_launch(self, elements, lambda: entry(*arguments, most, n_chunks))
        return (self._serial or self.get())(*arguments)


class InPlaceKernels(_Kernels):
    """The compiled entries of one storage and layout."""

    def __init__(self, storage: str, layout: str) -> None:
        self.storage, self.layout = storage, layout

    def _make(self) -> InPlace:
        return InPlace(storage_of(self.storage), LAYOUT_CODES[self.layout])

    def run(self, q: NDArray[Any], k: NDArray[Any], cos_sin: NDArray[Any], flags: int) -> int:
        """Rotate q and k, on one thread or on several; NEEDS_CHECK if nothing was done."""
        if self._serial is None and not forks.can_compile():
            return Status.NEEDS_CHECK
        return self._run(q.size if flags & NO_KEY else q.size + k.size, q, k, cos_sin, flags & ~SERIAL_ONLY)


class OutOfPlaceKernels(_Kernels):
    """The compiled entries from one storage and layout into others."""

    def __init__(self, source: str, target: str, layout: str, layout_out: str) -> None:
        self.source, self.target, self.layout, self.layout_out = source, target, layout, layout_out

    def _make(self) -> OutOfPlace:
        layouts = LAYOUT_CODES[self.layout], LAYOUT_CODES[self.layout_out]
        return OutOfPlace(Form(storage_of(self.source), storage_of(self.target), *layouts, in_place=False))

    def run(self, x: NDArray[Any], out: NDArray[Any], cos_sin: NDArray[Any], flags: int) -> int:
        """Rotate x into out, on one thread or on several; both have been checked."""
        scratch = out  # which is not used
        if self.layout != self.layout_out:  # where out is x, a head of each chunk is taken out of the way first
            n_chunks = CHUNKS_PER_THREAD * config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
            scratch = np.empty((n_chunks, 2 * cos_sin.shape[3]), np.uint64)
        return self._run(x.size, x, out, cos_sin, flags, scratch)


def get_precheck() -> Precheck | None:
    """Return the compiled check of arrays that are rotated into others, or None where it cannot be compiled."""

    def compile_it() -> Precheck:
        global _precheck
        _precheck = _precheck or compile_precheck()
        return _precheck

    return _precheck or (with_compiler_lock(compile_it) if forks.can_compile() else None)


def describe_threads() -> str:
    """Return how many threads large work takes here, and of which layer, or why there is one thread only."""
    return "1 (compiled kernels do not run)" if KERNELS_UNAVAILABLE else threads.describe()


@functools.cache
def in_place_for(storage: str, layout: str) -> InPlaceKernels:
    """Return the kernels of a storage ("f32", "f64", "f16", "bf16") and layout ("interleaved", "half")."""
    return InPlaceKernels(storage, layout)


@functools.cache
def out_of_place_for(source: str, target: str, layout: str, layout_out: str) -> OutOfPlaceKernels:
    """Return the kernels from a storage and layout into others."""
    return OutOfPlaceKernels(source, target, layout, layout_out)


def _after_fork_in_child() -> None:
    global _launching
    _launching = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
