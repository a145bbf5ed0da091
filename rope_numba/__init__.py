"""Rotary position embeddings (RoPE) on the CPU, for NumPy arrays, in place."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import forks as _forks  # noqa: F401  (notes a fork that happens before the first kernel is asked for)

if TYPE_CHECKING:
    from . import frequencies, layouts, reference
    from .apply import apply_rope
    from .frequencies import Frequencies
    from .integrations.njit import (
        rotate_half_split,
        rotate_half_split_bf16,
        rotate_half_split_f16,
        rotate_interleaved,
        rotate_interleaved_bf16,
        rotate_interleaved_f16,
    )
    from .layers import LayerRopes, ropes_from_gguf, ropes_from_hf
    from .literals import Backend, Layout, Order
    from .ragged import ragged_positions
    from .rope import Rope, Rotation
    from .warm import warmup

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Frequencies",
    "LayerRopes",
    "Layout",
    "Order",
    "Rope",
    "Rotation",
    "__version__",
    "apply_rope",
    "frequencies",
    "layouts",
    "ragged_positions",
    "reference",
    "ropes_from_gguf",
    "ropes_from_hf",
    "rotate_half_split",
    "rotate_half_split_bf16",
    "rotate_half_split_f16",
    "rotate_interleaved",
    "rotate_interleaved_bf16",
    "rotate_interleaved_f16",
    "warmup",
]

# Where each public name lives; it is imported when it is first used (PEP 562).
_HOMES = {
    "Backend": "literals",
    "Frequencies": "frequencies",
    "LayerRopes": "layers",
    "Layout": "literals",
    "Order": "literals",
    "Rope": "rope",
    "Rotation": "rope",
    "apply_rope": "apply",
    "frequencies": "",
    "layouts": "",
    "ragged_positions": "ragged",
    "reference": "",
    "ropes_from_gguf": "layers",
    "ropes_from_hf": "layers",
    "warmup": "warm",
    "rotate_half_split": "integrations.njit",
    "rotate_half_split_bf16": "integrations.njit",
    "rotate_half_split_f16": "integrations.njit",
    "rotate_interleaved": "integrations.njit",
    "rotate_interleaved_bf16": "integrations.njit",
    "rotate_interleaved_f16": "integrations.njit",
}


if not TYPE_CHECKING:  # a type checker reads the names above, and would take this as a promise of any other

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name[:80]!r}")
        home = _HOMES[name]
        if home == "integrations.njit":
            from .kernels import import_locked

            module = import_locked(f"{__name__}.{home}")
        else:
            module = importlib.import_module(f"{__name__}.{home or name}")
        value = getattr(module, name) if home else module
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
