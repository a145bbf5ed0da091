"""Numbers that users pass, checked: each function returns a plain number, or raises and names the argument."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["even_width", "positive", "shown", "whole"]


def even_width(name: str, value: int) -> int:
    """Return a width as an int, or raise if it is not an even number above 0."""
    width = whole(name, value)
    if width < 2 or width % 2:
        raise ValueError(f"{name} is {width}; expected an even number of channels, 2 or more")
    return width


def whole(name: str, value: int) -> int:
    """Return a number as an int, or raise if it is not a whole number (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {shown(value)}; expected an int")
    return int(value)


def positive(name: str, value: float) -> float:
    """Return a number as a float, or raise if it is not finite and above 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {shown(value)}; expected a number above 0")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} is {number}; expected a finite number above 0")
    return number


def shown(value: object) -> str:
    """Return a value as an error text shows it: on one line, and not for long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"of type {type(value).__name__}"
