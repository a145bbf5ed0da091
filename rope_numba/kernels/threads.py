"""Among how many threads a call's work is shared out now, and why it is one.

A parallel launch costs microseconds, aborts the process where two threads make one under Numba's workqueue layer, and
ends a forked child under OpenMP. It waits for all of its threads, also for one whose core another process has.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from numba import config, get_num_threads, threading_layer  # type: ignore[attr-defined]

from .. import forks
from ..cpus import available_cpus
from ..texts import one_line
from ..undisturbed import on_another_thread
from .flags import Status

MOST_REASON = 200  # characters of an error of Numba's in `describe`
NOT_CHOSEN = "not chosen yet"

_layer: str | None = None  # Numba's threading layer, once it has been chosen; "none" where none can be loaded
_available = 0  # processors, when Numba's threads were started


def can_run_parallel() -> bool:
    """Tell whether a parallel launch can do no harm here. The first answer starts Numba's threads."""
    global _layer, _available
    if forks.forked() or config.NUMBA_NUM_THREADS == 1:  # type: ignore[attr-defined]
        return False
    if _layer is None:
        try:
            # Numba chooses its layer as it starts its threads, and cannot be asked before. GNU OpenMP takes Numba's
            # number of threads for the thread that starts them from then on, in torch's parallel code too.
            on_another_thread(get_num_threads)
        except ValueError:  # no layer that the settings allow can be loaded
            _layer = "none"
        else:
            _available = available_cpus()
            _layer = layer()
    return _layer not in ("none", "workqueue")


def count_threads() -> int:
    """Return how many threads a launch may use: as many as Numba may use for the calling thread, or fewer.

    Fewer where this process may use fewer processors, unless the user has set Numba's number for this process.
    """
    most: int = get_num_threads()
    if most <= _available or config.NUMBA_NUM_THREADS != config.NUMBA_DEFAULT_NUM_THREADS:  # type: ignore[attr-defined]
        return most
    return _available


# A launch has lost time if it took SLACK more than one thread has taken at least, or than twice that where the
# data may have been in the caches. One thread then does all work for BACKOFF times as long as was lost. A core that is
# free again stays unused for that time.
# Milliseconds in the median, 32+8 x 128 in float32, next to a process that keeps one of two cores busy, and others on
# both of them (Zen 1, benchmarks/busy.py --backoff); in brackets without these lines:
#                          128 tokens        512 tokens       4096 tokens
#   one thread             0.18              1.6              45
#   GNU OpenMP             0.20 (23.8)       1.8 (23.8)       40 (48)       its threads wait in a loop
#   the same, passive      0.20 (0.37)       3.4 (3.7)        12 (28)       OMP_WAIT_POLICY=passive
#   TBB                    0.20 (0.23)       1.8 (1.9)        20 (41)
SLACK = 200_000  # nanoseconds
BACKOFF = 20
MOST_SERIAL = 2_000_000_000  # nanoseconds: a process that was stopped for a minute has lost no time to others
IN_CACHES = 1 << 23  # elements
ASSUMED = 1000  # picoseconds an element on one thread, while none has been measured


class Contention:
    """Whether launches lose time just now, as another process has taken a core.

    All arithmetic is of whole numbers: a caller may have made a signal of inexact results.
    """

    def __init__(self) -> None:
        self.launches = self.lost = 0
        self._serial_until = 0
        # Picoseconds an element on one thread, by kernels and size: the least since the last launch that lost time.
        self._least: dict[tuple[object, int], int] = {}

    def is_likely(self) -> bool:
        """Tell whether one thread should do the work."""
        return time.perf_counter_ns() < self._serial_until

    def time_serial(self, kernels: object, elements: int, call: Callable[[], int]) -> int:
        """Return what a call on one thread returns, and note how long it takes."""
        begin = time.perf_counter_ns()
        status = call()
        if status == Status.ROTATED:
            each = (time.perf_counter_ns() - begin) * 1000 // elements
            key = kernels, elements.bit_length()
            self._least[key] = min(each, self._least.get(key, each))
        return status

    def time_launch(self, kernels: object, elements: int, call: Callable[[], int]) -> int:
        """Return what a launch returns, and note whether it lost time."""
        begin = time.perf_counter_ns()
        status = call()
        end = time.perf_counter_ns()
        key = kernels, elements.bit_length()
        serial = elements * self._least.get(key, ASSUMED) // 1000
        lost = end - begin - (2 * serial if elements < IN_CACHES else serial) - SLACK
        self.launches += 1
        if lost > 0:
            self.lost += 1
            self._least.pop(key, None)
            self._serial_until = end + min(BACKOFF * lost, MOST_SERIAL)
        return status


contention = Contention()


def layer() -> str:
    """Return Numba's threading layer, or say that none has been chosen yet."""
    try:
        return str(threading_layer())
    except ValueError:
        return NOT_CHOSEN


def describe() -> str:
    """Return how many threads large work takes here, and of which layer, or why there is one thread only."""
    if not can_run_parallel():
        return f"1 ({_why_serial()})"
    count = count_threads()
    limit = f", as this process may use {count} of {get_num_threads()} processors" if count < get_num_threads() else ""
    return f"{count}, threading layer {_layer}{limit}"


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
