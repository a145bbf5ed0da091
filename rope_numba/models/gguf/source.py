"""What a header is made of, handed from step to step, and errors that name keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...frequencies import Frequencies
from ..architectures import ARCHITECTURES, Architecture
from .file import GGUFFile
from .metadata import Metadata

__all__ = ["FACTORS", "FREQS", "GGUF_DEFAULT", "LONG", "SHORT", "Source", "named"]

GGUF_DEFAULT = "default of GGUF"
# The only tensors whose data is read: what the frequency of each pair is divided by, ever, or by the context's length.
FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
FACTORS = (FREQS, LONG, SHORT)


@dataclass(frozen=True)
class Source:
    """A GGUF file, and what the name of its architecture stands for."""

    file: GGUFFile
    keys: Metadata
    name: str  # of the architecture
    architecture: Architecture

    @property
    def known(self) -> bool:
        """Whether the tables have the architecture; else its row is made from what the keys say."""
        return self.name in ARCHITECTURES

    @property
    def default(self) -> str:
        """Where a value comes from that the architecture's name stands for."""
        return f"default of architecture {self.name!r}"


def named(names: dict[str, str], scheme: Callable[..., Frequencies], *given: Any, **more: Any) -> Frequencies:
    """Return what a scheme makes of its arguments; its errors name the keys that these came from."""
    try:
        return scheme(*given, **more)
    except (TypeError, ValueError) as error:
        text = str(error)
        argument = re.split(r"\W", text, maxsplit=1)[0]
        raise ValueError(names.get(argument, argument) + text[len(argument) :]) from None
