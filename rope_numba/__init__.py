"""Rotary position embeddings (RoPE) on the CPU, for NumPy arrays, in place."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import forks as _forks  # noqa: F401  (notes a fork that happens before the first kernel is asked for)

if TYPE_CHECKING:
    from . import frequencies, reference
    from .apply import apply_rope
    from .frequencies import Frequencies
    from .rope import Rope, Rotation

__version__ = "0.1.0"

__all__ = ["Frequencies", "Rope", "Rotation", "__version__", "apply_rope", "frequencies", "reference"]

# Where each public name lives; it is imported when it is first used (PEP 562).
_HOMES = {
    "Frequencies": "frequencies",
    "Rope": "rope",
    "Rotation": "rope",
    "apply_rope": "apply",
    "frequencies": "",
    "reference": "",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f"{__name__}.{home or name}")
    value = getattr(module, name) if home else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
