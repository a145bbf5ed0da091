"""Frequency schemes: what a model's header says about the speed at which each pair turns.

Each scheme is one pure function that returns a `Frequencies`; no scheme is known to anything behind it.

Powers and logarithms are the float64 numbers nearest to the exact ones. Every later operation of a scheme is one of
IEEE 754 in float64, so that all schemes have the same bits on every processor.
"""

from __future__ import annotations

from .axes import mrope
from .base import Frequencies
from .interpolated import dynamic, linear, ntk
from .listed import divided, given, longrope
from .partial import proportional
from .plain import default
from .ramped import llama3, yarn, yarn_logit_scale
from .refused import REFUSED, refuse

__all__ = [
    "REFUSED",
    "Frequencies",
    "default",
    "divided",
    "dynamic",
    "given",
    "linear",
    "llama3",
    "longrope",
    "mrope",
    "ntk",
    "proportional",
    "refuse",
    "yarn",
    "yarn_logit_scale",
]


def __dir__() -> list[str]:
    return sorted(__all__)
