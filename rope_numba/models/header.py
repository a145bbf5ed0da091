"""What a model's header says of its rotation: the resolved values, and where each of them came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..frequencies import Frequencies
from ..texts import LONGEST_INT, escaped, shown

__all__ = ["Fact", "Header", "LayerHeaders"]

# Characters of texts that a header hands on. Sentences are this package's, and what they quote is cut there.
MOST_ORIGIN = 240
MOST_SOURCE = 400
MOST_SENTENCE = 1000


@dataclass(frozen=True)
class Fact:
    """One resolved value of a header. Texts from the file are escaped and cut."""

    name: str  # in this package's words: "theta"
    value: Any
    source: str  # which key, which default: 'key rope_theta', "default of model_type 'qwen2_vl'"
    meaning: str  # in words, for somebody who meets it for the first time

    def __post_init__(self) -> None:
        value = self.value
        if isinstance(value, str):
            value = escaped(value)
        elif isinstance(value, int) and abs(value) >= LONGEST_INT:
            value = shown(value)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "source", escaped(self.source, MOST_SOURCE))


@dataclass(frozen=True)
class Header:
    """How one model rotates in its layers of one type, as its header says.

    Every reader makes one of these, and a `Rope` is made from it. Texts from the file are escaped and cut.
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

    def __post_init__(self) -> None:
        layer_type = None if self.layer_type is None else escaped(self.layer_type)
        texts: dict[str, Any] = {
            "origin": escaped(self.origin, MOST_ORIGIN),
            "model": escaped(self.model),
            "layer_type": layer_type,
        }
        for name in ("conflicts", "duties"):
            texts[name] = tuple(escaped(sentence, MOST_SENTENCE) for sentence in getattr(self, name))
        for name, text in texts.items():
            object.__setattr__(self, name, text)

    @property
    def rotary_dim(self) -> int:
        """Channels that are rotated."""
        return 2 * self.frequencies.pairs


@dataclass(frozen=True)
class LayerHeaders:
    """The headers of a model whose layers rotate in several ways, and which layer uses which."""

    headers: dict[str, Header]  # by layer type, in the order of first use; one entry where all layers are alike
    layers: tuple[str | None, ...]  # for each layer its key in headers, or None for a layer without rotation
