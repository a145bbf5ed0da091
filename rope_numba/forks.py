"""Whether this process was forked, noted from the first import of the package on: before Numba is needed."""

from __future__ import annotations

import os
import sys

__all__ = ["can_compile", "forked"]

_forked = False
_can_compile = True


def forked() -> bool:
    """Tell whether this process is a forked child, where a parallel launch under OpenMP would end it."""
    return _forked


def can_compile() -> bool:
    """Tell whether Numba can compile here: not in a child forked while another thread was compiling."""
    return _can_compile


def _after_fork_in_child() -> None:
    global _forked, _can_compile
    _forked = True
    compiler_lock = sys.modules.get("numba.core.compiler_lock")
    if compiler_lock is not None:
        # Numba does not make its lock anew in a child. One that another thread of the parent held stays held.
        lock = compiler_lock.global_compiler_lock._lock
        _can_compile = lock.acquire(blocking=False)
        if _can_compile:
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
