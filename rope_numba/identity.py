"""What makes a `Rope` itself: it cannot be changed, is equal by value, and travels without its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frequencies import Frequencies
from .hints import public_names
from .literals import Backend, Layout, Order
from .texts import escaped

if TYPE_CHECKING:
    from .models.header import Header

__all__ = ["Identity"]

# What a Rope is made of, and compared by.
ARGUMENTS = (
    "head_dim",
    "rotary_offset",
    "layout",
    "layout_out",
    "order",
    "frequencies",
    "max_position",
    "backend",
)


class Identity:
    """The part of a `Rope` that is its value."""

    __slots__ = ()

    head_dim: int
    rotary_dim: int
    rotary_offset: int
    layout: Layout
    layout_out: Layout
    order: Order
    frequencies: Frequencies
    max_position: int | None
    backend: Backend
    _base: float | None  # theta, if the frequencies were made from it: for the repr only
    _header: Header | None  # what it was made from, if by a reader: for explain() only

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ARGUMENTS}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Rope cannot be changed; make another one to have another {escaped(name)}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Rope cannot be changed; {escaped(name)} stays")

    def __eq__(self, other: object) -> bool:
        return self._arguments() == other._arguments() if isinstance(other, Identity) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._arguments().values()))

    def __reduce__(self) -> tuple[Any, ...]:
        header = () if self._header is None else (self._header,)
        return _unpickled, (type(self), self._arguments(), self._base, *header)

    def __dir__(self) -> list[str]:
        return public_names(self)

    def __repr__(self) -> str:
        parts = [f"head_dim={self.head_dim}"]
        if self._base is not None:
            parts.append(f"theta={self._base}")
        if self.rotary_dim != self.head_dim:
            parts.append(f"rotary_dim={self.rotary_dim}")
        if self.rotary_offset:
            parts.append(f"rotary_offset={self.rotary_offset}")
        parts += [f"layout={self.layout!r}"]
        if self.layout_out != self.layout:
            parts.append(f"layout_out={self.layout_out!r}")
        parts.append(f"order={self.order!r}")
        if self._base is None:
            inv_freq, factor = self.frequencies.inv_freq, self.frequencies.attention_factor
            parts.append(f"frequencies=<{inv_freq[0]:g} to {inv_freq[-1]:g}, attention_factor={factor:g}>")
        if self.max_position is not None:
            parts.append(f"max_position={self.max_position}")
        if self.backend != "numba":
            parts.append(f"backend={self.backend!r}")
        return f"Rope({', '.join(parts)})"


def _unpickled(kind: Any, arguments: dict[str, Any], base: float | None, header: Header | None = None) -> Any:
    rope = kind(**arguments)
    object.__setattr__(rope, "_base", base)
    object.__setattr__(rope, "_header", header)
    return rope
