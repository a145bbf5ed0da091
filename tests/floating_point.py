"""Floating-point modes of a thread, set as C code does."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import struct
from collections.abc import Iterator

AVAILABLE = platform.machine() in ("x86_64", "AMD64") and platform.libc_ver()[0] == "glibc"

# Bits of MXCSR. Default: to nearest, with subnormal numbers, all exceptions masked.
DEFAULT = 0x1F80
MODES = {
    "subnormal numbers flushed to zero": DEFAULT | 0x8040,
    "rounding down": DEFAULT | 0x2000,
    "rounding up": DEFAULT | 0x4000,
    "rounding towards zero, subnormal results flushed": DEFAULT | 0x6000 | 0x8000,
    "a signal at overflow, underflow and inexact results": DEFAULT & ~0x1C00,
}

_CONTROL = 0xFFC0
_OFFSET = 28  # of MXCSR in glibc's fenv_t of x86-64, which has 32 bytes


def control() -> int:
    """Return the bits of MXCSR that say how this thread computes."""
    environment = ctypes.create_string_buffer(32)
    assert ctypes.CDLL(None).fegetenv(environment) == 0
    return int(struct.unpack_from("<I", environment, _OFFSET)[0]) & _CONTROL


def set_control(bits: int) -> None:
    """Let this thread compute so; what has happened before is forgotten, as it would raise a signal now."""
    environment, library = ctypes.create_string_buffer(32), ctypes.CDLL(None)
    assert library.fegetenv(environment) == 0
    struct.pack_into("<I", environment, _OFFSET, bits)
    assert library.fesetenv(environment) == 0


@contextlib.contextmanager
def computing(bits: int) -> Iterator[None]:
    """Compute in a mode, and check at the end that it still is the thread's."""
    set_control(bits)
    try:
        yield
        after = control()
    finally:
        set_control(DEFAULT)
    assert after == bits
