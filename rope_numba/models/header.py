"""What a model's header says of its rotation: the resolved values, and where each of them came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..frequencies import Frequencies

__all__ = ["Fact", "Header", "LayerHeaders"]


@dataclass(frozen=True)
class Fact:
    """One resolved value of a header."""

    name: str  # in this package's words: "theta"
    value: Any
    source: str  # which key, which default: 'key rope_theta', "default of model_type 'qwen2_vl'"
    meaning: str  # in words, for somebody who meets it for the first time


@dataclass(frozen=True)
class Header:
    """How one model rotates in its layers of one type, as its header says.

    Every reader makes one of these, and a `Rope` is made from it.
    """

    origin: str  # what was read: a path, or "a dict"
    model: str  # model_type, or architecture
    scheme: str  # "default", "yarn", ...: the function of `rope_numba.frequencies`
    head_dim: int
    rotary_offset: int
    layout: str
    frequencies: Frequencies
    trained_length: int | None  # positions that the model was trained for, before any scaling; None if not said
    context_length: int | None  # positions that the model is offered for, scaling included; None if not said
    layer_type: str | None = None  # None where all layers rotate alike
    unscaled: Frequencies | None = None  # the plain frequencies that the scheme started from, for comparison
    facts: tuple[Fact, ...] = ()
    conflicts: tuple[str, ...] = ()  # what the header contradicts itself in, or what was overridden
    duties: tuple[str, ...] = ()  # what is not the rotation's business, but must be done by the caller

    @property
    def rotary_dim(self) -> int:
        """Channels that are rotated."""
        return 2 * self.frequencies.pairs


@dataclass(frozen=True)
class LayerHeaders:
    """The headers of a model whose layers rotate in several ways, and which layer uses which."""

    headers: dict[str, Header]  # by layer type, in the order of first use; one entry where all layers are alike
    layers: tuple[str | None, ...]  # for each layer its key in headers, or None for a layer without rotation
