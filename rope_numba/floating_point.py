"""IEEE 754's default floating-point mode, for what NumPy computes once and this package keeps."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

__all__ = ["default_mode"]

# C's functions for the mode, of glibc and musl; elsewhere NumPy computes in the thread's mode.
_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None
_DEFAULT = ctypes.c_void_p(-1)  # FE_DFL_ENV of both
_SIZE = 64  # bytes; fenv_t has 32 on x86-64, fewer on aarch64


@contextlib.contextmanager
def default_mode() -> Iterator[None]:
    """Round to nearest, keep subnormal numbers, and raise no signals, whatever the thread's mode is; then restore that.

    References
    ----------
    ISO C, fenv.h: fegetenv, fesetenv.
    """
    if _LIBRARY is None:
        yield
        return
    mode = ctypes.create_string_buffer(_SIZE)
    _LIBRARY.fegetenv(mode)
    _LIBRARY.fesetenv(_DEFAULT)
    try:
        yield
    finally:
        _LIBRARY.fesetenv(mode)
