"""Whether this process was forked, noted from the first import of the package on: before Numba is needed."""

from __future__ import annotations

import operator
import os
import sys
import threading
import time

__all__ = ["can_compile", "can_import", "forked"]

# What a thread may hold for long while it compiles. A child's copy of a lock that it held is never released.
LOCKS = {
    "numba.core.compiler_lock": "global_compiler_lock._lock",
    "llvmlite.binding.ffi": "lib._lock._lock",
}
NUMBA = ("numba", "llvmlite")
OWN = ("numpy", "rope_numba")
LONGEST_WAIT = 1.0  # seconds that a fork waits while another thread imports modules of this package: they take 0.1
FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of Linux

_can_compile = True
_can_import = True


def forked() -> bool:
    """Tell whether this process is a forked child, where a parallel launch under OpenMP would end it."""
    return _forked


def can_compile() -> bool:
    """Tell whether Numba can compile here: not in a child forked while another thread was compiling."""
    return _can_compile


def can_import() -> bool:
    """Tell whether Numba can be imported here: not in a child forked while another thread was importing."""
    return _can_import


def _began_before_us() -> bool:
    """Tell whether Numba's threads may have been started by a process that forked this one, unseen by the hooks."""
    try:
        sys.modules["numba"].threading_layer()
    except (KeyError, AttributeError, ValueError):  # no Numba, half of it, or no layer chosen yet
        return False
    try:
        with open("/proc/self/stat") as stat:
            if int(stat.read().rpartition(")")[2].split()[6]) & FORKED_WITHOUT_EXEC:
                return True
    except (OSError, IndexError, ValueError):
        pass  # not Linux
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None:
        return False
    return multiprocessing.get_start_method(allow_none=True) in (None, "fork")


def _imported_elsewhere() -> set[str]:
    """Return the packages of which another thread is importing a module."""
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})  # those that are in use, weakly
    held = {name: lock() for name, lock in list(locks.items())}
    me = threading.get_ident()
    return {name.partition(".")[0] for name, lock in held.items() if getattr(lock, "owner", None) not in (None, me)}


def _free(module: str, name: str) -> bool:
    """Tell whether a lock that Python does not make anew in a child can be had there."""
    try:
        lock = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        return True
    if lock.acquire(blocking=False):
        lock.release()
        return True
    return False


def _before_fork() -> None:
    # The lock of a module that another thread is importing stays held in the child, which would wait for it for ever.
    # Numba is not waited for: it may need what other hooks like this one hold by now, such as the lock of logging.
    end = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < end:
        elsewhere = _imported_elsewhere()
        if elsewhere.isdisjoint(OWN) or not elsewhere.isdisjoint(NUMBA):
            break
        time.sleep(0.001)


def _after_fork_in_child() -> None:
    global _forked, _can_compile, _can_import
    _forked = True
    elsewhere = _imported_elsewhere()
    ours = elsewhere.isdisjoint(OWN + NUMBA)
    # Numba imports much of Python's own library, so that another thread may have been at any part of it.
    _can_import = not elsewhere or (ours and "rope_numba.kernels.launch" in sys.modules)
    _can_compile = _can_import and all(_free(*lock) for lock in LOCKS.items())


_forked = _began_before_us()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
