"""The compiled rotation: the only part of the package that imports Numba."""

from __future__ import annotations

from types import ModuleType

__all__ = ["launcher"]


def launcher() -> ModuleType | None:
    """Return the module that launches kernels, or None where Numba is absent or its JIT disabled."""
    try:
        from . import launch
    except ImportError:
        return None
    return None if launch.JIT_DISABLED else launch
