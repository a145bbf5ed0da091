"""The words that arguments take, as types: for annotations of callers, and for the checks of this package."""

from __future__ import annotations

from typing import Literal

__all__ = ["Backend", "Layout", "Order"]

Layout = Literal["interleaved", "half"]
Order = Literal["thd", "htd"]
Backend = Literal["numba", "numpy"]
