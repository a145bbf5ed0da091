"""The compiled rotation: the only part of the package that imports Numba."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from .. import forks
from ..texts import one_line
from ..undisturbed import undisturbed

__all__ = ["import_locked", "load_kernels", "try_load_kernels", "why_unavailable"]

MOST_REASON = 200  # characters of an ImportError


def load_kernels() -> ModuleType | None:
    """Return the module that launches kernels, or None where they do not run; the first call imports Numba.

    Raises
    ------
    ImportError
        If Numba cannot be imported.
    """
    if not forks.can_import():
        return None
    if f"{__name__}.launch" not in sys.modules:  # this imports Numba, and has it make what jitted functions share
        undisturbed(lambda: importlib.import_module(f"{__name__}.launch"))
    from . import launch

    return None if launch.KERNELS_UNAVAILABLE else launch


def try_load_kernels() -> ModuleType | None:
    """Return the module that launches kernels, or None where they do not run or Numba cannot be imported."""
    try:
        return load_kernels()
    except ImportError:
        return None


def why_unavailable() -> str:
    """Return the reason why compiled kernels do not run in this process, or "" where they do.

    The reason is one line that says what to do, too. The first call imports Numba.
    """
    try:
        if load_kernels() is not None:
            return ""
    except (ImportError, OSError) as error:  # OSError: llvmlite cannot load its library
        text = one_line(error, MOST_REASON)
        return f"Numba cannot be imported ({text}); install a version that supports this Python and NumPy"
    if not forks.can_import():
        return "this process was forked while another thread was importing; start it by spawn or forkserver"
    from .launch import KERNELS_UNAVAILABLE

    return KERNELS_UNAVAILABLE


def import_locked(name: str) -> ModuleType:
    """Import a module that registers functions with Numba, while no other thread compiles.

    A thread that compiles a caller of such functions imports the module too, holding Numba's lock. The lock is taken
    here as well, and before that of the module, or two threads could wait for each other for ever.
    """
    if try_load_kernels() is None or not forks.can_compile():
        return importlib.import_module(name)
    from .compile import with_compiler_lock

    module: ModuleType = with_compiler_lock(lambda: importlib.import_module(name))
    return module
