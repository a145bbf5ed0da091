"""Serial or parallel, now: whether a call's work is shared out among threads.

A parallel launch costs microseconds, aborts the process where two threads make one under Numba's workqueue layer, and
ends a forked child under OpenMP. So it is made for large work only, by one thread at a time (whoever finds the lock
taken does all of its work), and never under workqueue or in a forked child.
"""

from __future__ import annotations

import functools
import os
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, get_num_threads, threading_layer  # type: ignore[attr-defined]
from numpy.typing import NDArray

from .. import forks
from ..texts import one_line
from .compile import with_compiler_lock
from .flags import NO_KEY, SERIAL_ONLY, Status
from .in_place import InPlace
from .ndarray_abi import layout_matches
from .out_of_place import OutOfPlace
from .panel import LAYOUTS, Form
from .precheck import Precheck, compile_precheck
from .storage import storage_of
from .walk import ELEMENTS_PER_THREAD

CHUNKS_PER_THREAD = 4
MOST_REASON = 200  # characters of an error of Numba's in `describe`

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
_count_threads: Callable[[], int] = get_num_threads
_precheck: Precheck | None = None
_layer: str | None = None  # Numba's threading layer, once it has been chosen; "none" where none can be loaded


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
        """Call an entry: the parallel one for much work, where a launch does no harm."""
        wanted = elements // ELEMENTS_PER_THREAD
        if wanted > 1 and can_run_parallel() and not _launching.locked():
            most = _count_threads()
            threads = wanted if wanted < most else most  # min() takes 0.1 us
            if threads > 1:
                # Nothing is compiled with this lock held: a thread that waits for it may hold Numba's.
                entry = self.get_parallel()
                # Not acquire() and release(): an interrupt between one of them and the next line would leave the lock
                # held. Two threads that find it free at once launch one after the other.
                with _launching:
                    # A loop of as many chunks as threads wakes all of them, so few chunks where few are wanted.
                    return entry(*arguments, threads * CHUNKS_PER_THREAD if threads == most else threads)
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
        if self.layout == self.layout_out or x.ctypes.data != out.ctypes.data:
            return self._run(x.size, x, out, cos_sin, flags, 0)
        # Scratch for a head of each chunk, which is copied there before it is overwritten.
        n_chunks = CHUNKS_PER_THREAD * config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        scratch = np.empty((n_chunks, 2 * cos_sin.shape[3]), np.uint64)
        return self._run(x.size, x, out, cos_sin, flags, scratch.ctypes.data)


def get_precheck() -> Precheck | None:
    """Return the compiled check of arrays that are rotated into others, or None where it cannot be compiled."""

    def compile_it() -> Precheck:
        global _precheck
        _precheck = _precheck or compile_precheck()
        return _precheck

    return _precheck or (with_compiler_lock(compile_it) if forks.can_compile() else None)


def can_run_parallel() -> bool:
    """Tell whether a parallel launch can do no harm here. The first answer starts Numba's threads."""
    global _layer, _count_threads
    if forks.forked() or config.NUMBA_NUM_THREADS == 1:  # type: ignore[attr-defined]
        return False
    if _layer is None:
        try:
            get_num_threads()  # Numba chooses its layer as it starts its threads, and cannot be asked before
            _layer = layer()
            _count_threads = _quick_count()
        except ValueError:  # no layer that the settings allow can be loaded
            _layer = "none"
    return _layer not in ("none", "workqueue")


def _quick_count() -> Callable[[], int]:
    """Return what tells how many threads Numba may use now that they have been started.

    Numba's public function asks a private one for that, 0.2 of its 1.1 us on each launch.
    """
    try:
        from numba.np.ufunc.parallel import _get_num_threads  # type: ignore[attr-defined]
    except ImportError:  # another version of Numba
        return get_num_threads
    return _get_num_threads or get_num_threads


NOT_CHOSEN = "not chosen yet"


def layer() -> str:
    """Return Numba's threading layer, or say that none has been chosen yet."""
    try:
        return str(threading_layer())
    except ValueError:
        return NOT_CHOSEN


def describe() -> str:
    """Return how many threads large work takes here, and of which layer, or why there is one thread only."""
    if KERNELS_UNAVAILABLE:
        return "1 (compiled kernels do not run)"
    return f"{get_num_threads()}, threading layer {_layer}" if can_run_parallel() else f"1 ({_why_serial()})"


def _why_serial() -> str:
    """Return the reason why `can_run_parallel` returned False."""
    if forks.forked():
        return "a forked process starts no threads"
    if config.NUMBA_NUM_THREADS == 1:  # type: ignore[attr-defined]
        return "NUMBA_NUM_THREADS is 1"
    try:
        get_num_threads()
    except ValueError as error:  # Numba raises it again in each call
        return f"no threading layer can be loaded: {one_line(error, MOST_REASON)}"
    return f"threading layer {_layer} does not allow concurrent launches"


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
