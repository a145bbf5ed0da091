"""Arguments that schemes share, checked: each function returns a plain value, or raises and names the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..integrations.torch import as_reals
from ..numbers import WIDEST, counted, element_count, even_width, is_int, positive, shown, whole
from ..texts import escaped

__all__ = ["WIDEST", "divisors_of", "flag", "growing_base", "length", "one_or_more", "rotary_width", "zero_or_more"]


def rotary_width(name: str, value: int) -> int:
    """Return a width as an int, or raise if it is not an even number from 2 to WIDEST."""
    width = even_width(name, value)
    if width > WIDEST:
        raise ValueError(f"{name} is {width}; expected at most {WIDEST} channels")
    return width


def one_or_more(name: str, value: float) -> float:
    """Return a number as a float, or raise if it is not finite and at least 1."""
    return _bounded(name, value, 1)


def zero_or_more(name: str, value: float) -> float:
    """Return a number as a float, or raise if it is not finite and at least 0."""
    return _bounded(name, value, 0)


def _bounded(name: str, value: float, least: int) -> float:
    if not (is_int(value) or isinstance(value, (float, np.floating))):
        raise TypeError(f"{name} is {shown(value)}; expected a number, {least} or more")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; expected a finite number, {least} or more")
    if number < least:
        raise ValueError(f"{name} is {number}; expected {least} or more")
    return number


def length(name: str, value: int) -> int:
    """Return a number of positions as an int, or raise if it is not a whole number above 0."""
    positions = whole(name, value)
    if positions < 1:
        raise ValueError(f"{name} is {positions}; expected 1 position or more")
    if positions > 2**53:
        raise ValueError(f"{name} is {positions}; expected at most 2**53 positions")
    return positions


def flag(name: str, value: bool) -> bool:
    """Return a bool, or raise if it is anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {shown(value)}; expected True or False")
    return bool(value)


def growing_base(theta: float) -> float:
    """Return theta as a float, or raise unless it is above 1, so that later pairs turn more slowly."""
    base = positive("theta", theta)
    if base <= 1.0:
        raise ValueError(f"theta is {base}; expected a number above 1")
    return base


def divisors_of(name: str, values: ArrayLike | Sequence[float], pairs: int) -> list[float]:
    """Return one divisor for each pair as floats, or raise if there is another number of them or one is not above 0."""
    numbers = counted(pairs, "number")
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; expected {numbers} above 0, without a mask")
    if element_count(values) > WIDEST // 2:
        raise ValueError(f"{name} has {element_count(values)} numbers; expected {pairs}, one for each pair")
    values = as_reals(name, values)
    try:
        given = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} has rows of unequal length; expected {numbers}, one for each pair") from None
    if given.ndim == 0:
        raise TypeError(f"{name} is {shown(values)}; expected {numbers} above 0, one for each pair")
    if given.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {escaped(str(given.dtype))}; expected {numbers} above 0")
    if given.shape != (pairs,):
        raise ValueError(f"{name} has shape {given.shape}; expected ({pairs},), one number for each pair")
    divisors = [float(value) for value in given.tolist()]
    for pair, divisor in enumerate(divisors):
        if not (math.isfinite(divisor) and divisor > 0.0):
            raise ValueError(f"{name}[{pair}] is {divisor}; expected a finite number above 0")
    return divisors
