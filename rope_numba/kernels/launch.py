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

from numba import config, get_num_threads, threading_layer  # type: ignore[attr-defined]
from numpy.typing import NDArray

from .. import forks
from ..texts import one_line
from .compile import in_turn
from .entry import make_entry
from .flags import DEFER, NO_KEY, SERIAL_ONLY
from .move import Mover, make_mover
from .ndarray_abi import entry_point_of, layout_matches
from .panel import HALF, INTERLEAVED
from .precheck import Precheck, make_precheck
from .share import ELEMENTS_PER_THREAD, NEEDS_CHECK, OUT_OF_MEMORY, make_launcher
from .storage import NAMES

CHUNKS_PER_THREAD = 4
MOST_REASON = 200  # characters of an error of Numba's in `describe`

LAYOUT_CODES = {"interleaved": INTERLEAVED, "half": HALF}

Entry = Callable[[NDArray[Any], NDArray[Any], NDArray[Any], int], int]


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
_launcher: Callable[[int, int], int] | None = None
_precheck: Precheck | None = None
_layer: str | None = None  # Numba's threading layer, once it has been chosen; "none" where none can be loaded


class Kernels:
    """The compiled entries of one storage and layout, by the arrays' number of axes; compiled when first called."""

    def __init__(self, storage: int, layout: int) -> None:
        self.storage, self.layout = storage, layout
        self._uncompiled: list[Entry] = [_no_entry, _no_entry, *map(self._first_call, (2, 3, 4))]
        self.by_axes: list[Entry] = self._uncompiled.copy()
        # What is called for any work, likewise by the number of axes. Small work goes to an entry itself.
        self.for_any_work: list[Entry] = [self.run] * 5

    def run(self, q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], flags: int) -> int:
        """Rotate q and k, on one thread or on several."""
        entry, rank = self.by_axes[q.ndim], q.ndim
        if entry is self._uncompiled[rank] and rank > 1 and forks.can_compile():
            entry = self.compiled(rank)
        elements = q.size if flags & NO_KEY else q.size + k.size
        return _share_out(elements, entry, q, k, rows, flags & ~SERIAL_ONLY)

    def ready(self, rank: int) -> bool:
        """Tell whether the entry for arrays of so many axes is compiled, or can be."""
        return forks.can_compile() or self.by_axes[rank] is not self._uncompiled[rank]

    def _first_call(self, rank: int) -> Entry:
        """Return what stands for an entry until it is compiled."""

        def compile_and_call(q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], flags: int) -> int:
            if not forks.can_compile():
                return NEEDS_CHECK
            return self.compiled(rank)(q, k, rows, flags)

        return compile_and_call

    def compiled(self, rank: int) -> Entry:
        """Return the entry for arrays of so many axes."""

        def compile_it() -> None:
            if self.by_axes[rank] is self._uncompiled[rank]:
                self.by_axes[rank] = entry_point_of(make_entry(self.storage, self.layout, rank))

        if self.by_axes[rank] is self._uncompiled[rank]:
            in_turn(compile_it)
        return self.by_axes[rank]


class Movers:
    """The compiled entry from one storage and layout into another; compiled when first called."""

    def __init__(self, source: int, target: int, layout_in: int, layout_out: int) -> None:
        self.kind = source, target, layout_in, layout_out
        self._compiled: Mover | None = None

    def run(self, x: NDArray[Any], out: NDArray[Any], rows: NDArray[Any], flags: int) -> None:
        """Rotate x into out, both of three or four axes, on one thread or on several."""
        _share_out(x.size, self.compiled(), x, out, rows, flags)

    def ready(self) -> bool:
        """Tell whether the entry is compiled, or can be."""
        return forks.can_compile() or self._compiled is not None

    def compiled(self) -> Mover:
        """Return the entry."""

        def compile_it() -> Mover:
            self._compiled = self._compiled or entry_point_of(make_mover(*self.kind))
            return self._compiled

        return self._compiled or in_turn(compile_it)


def _share_out(elements: int, entry: Entry, x: NDArray[Any], y: NDArray[Any], rows: NDArray[Any], flags: int) -> int:
    """Call an entry, for all of the work or for a plan that is launched, as size and moment ask."""
    wanted, answer = elements // ELEMENTS_PER_THREAD, None
    if wanted > 1 and may_launch() and not _launching.locked():
        most = _count_threads()
        threads = wanted if wanted < most else most  # min() takes 0.1 us
        if threads > 1:
            # Nothing is compiled with this lock held: whoever waits for it may hold Numba's, and would be waited for.
            launcher = _launcher or plan_launcher()
            # Not acquire() and release(): an interrupt between one of them and the next line would leave the lock held.
            # Two threads that find it free at once launch one after the other.
            with _launching:
                answer = entry(x, y, rows, flags | DEFER)
                if answer > OUT_OF_MEMORY:
                    # A loop of as many turns as there are threads wakes them all, so few chunks where few are wanted.
                    answer = launcher(answer, threads * CHUNKS_PER_THREAD if threads == most else threads)
    if answer is None:
        answer = entry(x, y, rows, flags)
    if answer == OUT_OF_MEMORY:
        raise MemoryError("no memory for what a rotation holds on its way; what it has written is of no use")
    return answer


def plan_launcher() -> Callable[[int, int], int]:
    """Return the compiled function that carries out plans."""

    def compile_it() -> Callable[[int, int], int]:
        global _launcher
        _launcher = _launcher or entry_point_of(make_launcher())
        return _launcher

    return _launcher or in_turn(compile_it)


def precheck() -> Precheck | None:
    """Return the compiled look at arrays that are rotated into others, or None where it cannot be compiled."""

    def compile_it() -> Precheck:
        global _precheck
        _precheck = _precheck or entry_point_of(make_precheck())
        return _precheck

    return _precheck or (in_turn(compile_it) if forks.can_compile() else None)


def may_launch() -> bool:
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
    return f"{get_num_threads()}, threading layer {_layer}" if may_launch() else f"1 ({_why_serial()})"


def _why_serial() -> str:
    """Return the reason why `may_launch` returned False."""
    if forks.forked():
        return "a forked process starts no threads"
    if config.NUMBA_NUM_THREADS == 1:  # type: ignore[attr-defined]
        return "NUMBA_NUM_THREADS is 1"
    try:
        get_num_threads()
    except ValueError as error:  # Numba raises it again in each call
        return f"no threading layer can be loaded: {one_line(error, MOST_REASON)}"
    return f"threading layer {_layer} does not allow concurrent launches"


def _no_entry(q: NDArray[Any], k: NDArray[Any], rows: NDArray[Any], flags: int) -> int:
    raise TypeError(f"q has {q.ndim} axes; expected 2, 3 or 4")


@functools.cache
def kernels_for(storage: str, layout: str) -> Kernels:
    """Return the kernels of a storage ("f32", "f64", "f16", "bf16") and layout ("interleaved", "half")."""
    return Kernels(NAMES.index(storage), LAYOUT_CODES[layout])


@functools.cache
def movers_for(source: str, target: str, layout_in: str, layout_out: str) -> Movers:
    """Return the kernels from a storage and layout into others."""
    return Movers(NAMES.index(source), NAMES.index(target), LAYOUT_CODES[layout_in], LAYOUT_CODES[layout_out])


def _after_fork_in_child() -> None:
    global _launching
    _launching = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
