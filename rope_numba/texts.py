"""Texts from outside, as they may stand in an error, a report or a picture: on one line, escaped, and not long.

Names in headers, paths and arguments may hold anything: escape sequences that a terminal obeys, line breaks, marks that
reverse the direction of writing, lone surrogates that no encoding can print, or 100,000 letters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["choice", "escaped", "one_line", "shown", "type_name"]

LONGEST_INT = 10**60  # ints from here on are not written out
MOST = 80  # characters of a text
MOST_REPR = 60  # characters of the repr of anything else
MOST_NAMES = 8  # names of a list
UNIT = re.compile(r"\\(?:x..|u....|U........|.)|.", re.DOTALL)  # an escape sequence, or a character


def escaped(text: str, most: int = MOST) -> str:
    r"""Return a text with `\x1b` and the like for what is not printable, cut to `most` characters.

    Examples
    --------
    >>> escaped("ll\x1b[31mama")
    'll\\x1b[31mama'
    >>> escaped("a" * 100, most=10)
    'aaaaaaa...'
    """
    head = text[: most + 1]
    return _cut(head if head.isprintable() else "".join(map(_escape, head)), most)


def one_line(text: object, most: int) -> str:
    r"""Return a text with a space for each line break, escaped and cut to `most` characters.

    Examples
    --------
    >>> one_line("a\n  b\x1b", most=10)
    'a b\\x1b'
    """
    return escaped(" ".join(str(text).split()), most)


def _escape(letter: str) -> str:
    return letter if letter.isprintable() else ascii(letter)[1:-1]


def _cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters, which ends in three dots if it was longer."""
    if len(text) <= most:
        return text
    kept, size = [], 3
    for unit in UNIT.findall(text):
        size += len(unit)
        if size > most:
            break
        kept.append(unit)
    return "".join(kept) + "..."


def shown(value: object, most: int = MOST) -> str:
    """Return a value as an error text shows it: on one line, and not for long, whatever its own `repr` does.

    Examples
    --------
    >>> shown("a" * 100, most=12)
    "'aaaaaaa...'"
    >>> shown([0] * 100)
    'of type list'
    """
    if type(value) is str:
        text = repr(value[: most + 1])  # escapes what is not printable
        return text if len(text) <= most else _cut(text[:-1], most - 1) + text[-1]
    if isinstance(value, int) and abs(value) >= LONGEST_INT:
        return f"about {'-' if value < 0 else ''}2**{value.bit_length() - 1}"
    if isinstance(value, (list, tuple, dict, set, frozenset, bytes)) and len(value) > MOST_REPR:
        return f"of type {type_name(value)}"
    if _holds_tensor(value):
        return f"of type {type_name(value)}"
    try:
        text = repr(value)
    except Exception:  # of another package's class, or of a list that holds an int which is too long to be printed
        text = ""
    return text if 0 < len(text) <= MOST_REPR and text.isprintable() else f"of type {type_name(value)}"


def _holds_tensor(value: Any) -> bool:
    """Tell whether a value is or holds a tensor: the repr of one whose storage was freed ends the process."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is None:
        return False
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, tensor) or (isinstance(one, np.ndarray) and one.dtype.hasobject):
            return True
        if isinstance(one, (list, tuple, dict, set, frozenset)) and id(one) not in seen:
            seen.add(id(one))
            waiting += [*one, *one.values()] if isinstance(one, dict) else one
    return False


def type_name(value: object) -> str:
    """Return the name of a value's type on one line; a class may be called anything."""
    name = type(value).__name__
    return escaped(name, MOST_REPR) if name and name.isprintable() else shown(name)


def choice(names: Iterable[object], joint: str = " or ") -> str:
    """Return names as the end of an error text lists them, the first few of many.

    Examples
    --------
    >>> choice(["half", "interleaved"])
    "'half' or 'interleaved'"
    """
    each = list(names)
    listed = [shown(name, MOST // 2) for name in each[:MOST_NAMES]]
    more = len(each) - len(listed)
    return joint.join(listed + [f"{more} more"] * (more > 0))
