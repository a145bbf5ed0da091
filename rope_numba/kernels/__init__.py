"""The compiled rotation: the only part of the package that imports Numba."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from .. import forks
from ..undisturbed import undisturbed

__all__ = ["imported", "launcher"]


def imported() -> ModuleType | None:
    """Return the module that launches kernels, or None where they do not run; the first call imports Numba.

    Raises
    ------
    ImportError
        If Numba cannot be imported.
    """
    if not forks.can_import():
        return None
    if "numba" not in sys.modules:
        undisturbed(lambda: importlib.import_module("numba"))
    from . import launch

    return None if launch.JIT_DISABLED else launch


def launcher() -> ModuleType | None:
    """Return the module that launches kernels, or None where Numba is absent or its JIT disabled."""
    try:
        return imported()
    except ImportError:
        return None
