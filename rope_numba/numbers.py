"""Numbers that users pass, checked: each function returns a plain number, or raises and names the argument."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .texts import LONGEST_INT, shown, type_name

__all__ = [
    "FEW_NUMBERS",
    "WIDEST",
    "counted",
    "element_count",
    "even_width",
    "is_int",
    "min_and_max",
    "positive",
    "shown",
    "type_name",
    "whole",
]

# Up to this many integers are handled in Python. In a loop with weights between calls a NumPy reduction of one number
# takes 40 us, a list with min() and max() 14; for 64 numbers in a hot loop both take 3.
FEW_NUMBERS = 64

WIDEST = 1 << 20  # more channels than any head has: what stops a spoilt header from asking for all memory
PLURALS = {"axis": "axes", "entry": "entries"}


def even_width(name: str, value: int) -> int:
    """Return a width as an int, or raise if it is not an even number above 0."""
    width = whole(name, value)
    if width < 2 or width % 2:
        raise ValueError(f"{name} is {width}; expected an even number of channels, 2 or more")
    return width


def whole(name: str, value: int) -> int:
    """Return a number as an int, or raise if it is not a whole number (a bool is none)."""
    if type(value) is int and -LONGEST_INT < value < LONGEST_INT:
        return value
    if not is_int(value):
        raise TypeError(f"{name} is {shown(value)}; expected an int")
    number = int(value)
    if abs(number) >= LONGEST_INT:  # no setting is ever so large, and Python cannot print what is larger still
        raise ValueError(f"{name} is {shown(number)}; expected an int of ordinary size")
    return number


def positive(name: str, value: float) -> float:
    """Return a number as a float, or raise if it is not finite and above 0."""
    if not (is_int(value) or isinstance(value, (float, np.floating))):
        raise TypeError(f"{name} is {shown(value)}; expected a number above 0")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} is {number}; expected a finite number above 0")
    return number


def counted(number: int, noun: str, separator: str = "") -> str:
    """Return a number with its noun as a sentence has them: "0 pairs", "1 pair", "12 pairs"."""
    return f"{number:{separator}} {noun if number == 1 else PLURALS.get(noun, f'{noun}s')}"


def min_and_max(numbers: NDArray[Any]) -> tuple[int, int]:
    """Return the least and the greatest of at least one integer."""
    if numbers.size <= FEW_NUMBERS:
        few = numbers.ravel().tolist()
        return min(few), max(few)
    return int(numbers.min()), int(numbers.max())


def element_count(given: object) -> int:
    """Return how many elements an array of nested sequences would have, if all rows are as long as the first.

    NumPy makes the array first. A range, or a list that holds one row many times, takes no memory until then.
    """
    count = 1
    for _ in range(32):  # more axes than positions have; a list may hold itself
        if isinstance(given, np.ndarray):
            return count * given.size
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            break
        try:
            count *= len(given)
        except OverflowError:  # a range that is longer than Python can count
            return sys.maxsize
        if not count:
            break
        given = given[0]
    return count


def is_int(value: object) -> bool:
    """Tell whether a value is a whole number: of bools, and of NumPy's lengths of time, Python and NumPy say so too."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))
