"""The positions that users pass, turned into integers, or refused: every check and every error text."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import kind_of, storage_of
from .integrations.torch import as_array, as_integers
from .numbers import element_count, is_int, min_and_max, shown, whole
from .texts import escaped

__all__ = [
    "FARTHEST",
    "MOST_AT_ONCE",
    "Counts",
    "array_if_ints",
    "by_streams",
    "integers",
    "missing",
    "parse_count",
    "parse_delta",
    "parse_offset",
    "parse_places",
    "parse_positions",
]

PLAIN = (np.ndarray, np.memmap)  # other subclasses may mean something else by their numbers
FARTHEST = 2**53  # the last position up to which every whole number is a float64
MOST_AT_ONCE = 2**28  # positions of one call: 2 GiB as int64

# Of arrays that positions are for: the rows of a batch, or None without a batch axis, and the tokens.
Counts = tuple[int | None, int]


def parse_places(
    positions: object,
    offset: object,
    tokens: int,
    max_position: int | None,
    streams: int = 1,
    counts: Counts | None = None,
) -> tuple[int, int] | NDArray[np.int64]:
    """Return positions or those from an offset on: (first, end) where they follow one another, else as an array."""
    if (positions is None) == (offset is None):
        raise TypeError(f"positions and offset are {'missing' if offset is None else 'both given'}; expected one")
    if positions is None:
        return parse_offset(offset, tokens, max_position, streams, counts)
    positions = array_if_ints("positions", positions)
    if type(positions) is np.ndarray and positions.shape in ((), (1,)) and positions.dtype.kind in "iu":
        first: int = positions.item()
        if counts is None and 0 <= first < (FARTHEST if max_position is None else min(FARTHEST, max_position)):
            return first, first + 1  # the way of a decode loop
    places = parse_positions(positions, max_position, streams, counts)
    if places.ndim == 1 and places.size and places[-1] - places[0] == places.size - 1:
        if places.size == 1 or bool((np.diff(places) == 1).all()):
            return int(places[0]), int(places[-1]) + 1
    return places


def parse_positions(
    positions: object,
    max_position: int | None,
    streams: int = 1,
    counts: Counts | None = None,
    *,
    name: str = "positions",
) -> NDArray[np.int64]:
    """Return positions as int64 of shape (tokens,) or (batch, tokens); a scalar becomes one token.

    For more than one stream also (streams, batch, tokens), or (streams, 1, tokens) for any batch; `counts` then decides
    what two axes mean.
    """
    shapes = "(tokens,) or (batch, tokens)" if streams == 1 else _shapes(streams, counts)
    given = integers(name, positions, shapes)
    if streams > 1:
        given = by_streams(name, given, streams, counts)
    elif given.ndim > 2:
        raise ValueError(f"{name} has shape {given.shape}; expected {shapes}")
    if given.size:
        _check_range(name, *min_and_max(given), max_position)
    return np.array(given, dtype=np.int64, ndmin=1)


def by_streams(name: str, given: NDArray[Any], streams: int, counts: Counts | None) -> NDArray[Any]:
    """Return positions for several streams in a form that means one thing, or raise if they may mean two.

    Two axes are (batch, tokens), or (streams, tokens), which become (streams, 1, tokens).
    """
    shape = given.shape or (1,)
    both = len(shape) == 2 and shape[0] == streams
    if counts is None:  # not known yet
        fits = len(shape) < 3 or (len(shape) == 3 and shape[0] == streams)
    else:
        batch, tokens = counts
        fits = shape in ((tokens,), (batch, tokens), (streams, tokens), (streams, 1, tokens), (streams, batch, tokens))
    if not fits:
        raise ValueError(f"{name} has shape {given.shape}; expected {_shapes(streams, counts)}")
    if both and (counts is None or counts[0] == streams):
        raise ValueError(
            f"{name} has shape {shape}, either (batch, tokens) or (streams, tokens); expected {name}[:, None] for "
            f"streams, or np.stack([{name}] * {streams}) for a batch"
        )
    return given[:, None] if both else given


def _shapes(streams: int, counts: Counts | None) -> str:
    """Return the shapes that positions for several streams may have, by the counts of their arrays."""
    batch, tokens = ("batch", "tokens") if counts is None else counts
    # Two axes that may mean either are refused.
    alike = [f"({tokens},)", *([] if batch in (None, streams) else [f"({batch}, {tokens})"])]
    apart = [f"({streams}, 1, {tokens})", *([] if batch in (None, 1) else [f"({streams}, {batch}, {tokens})"])]
    if counts is not None and batch != streams:
        apart.insert(0, f"({streams}, {tokens})")
    return f"{' or '.join(alike)}, or for {streams} streams {' or '.join(apart)}"


def parse_offset(
    offset: object, tokens: int, max_position: int | None, streams: int = 1, counts: Counts | None = None
) -> tuple[int, int] | NDArray[np.int64]:
    """Return the positions from an offset on: (first, end), or an array for an offset that is (batch,)."""
    bound = max_position if tokens else None  # no tokens reach no position
    if type(offset) is not int:
        offset = as_integers("offset", offset)
    if isinstance(offset, (list, tuple, np.ndarray)):
        starts = integers("offset", offset, "an int, or (batch,)")
        if starts.ndim > 1:
            raise ValueError(f"offset has shape {starts.shape}; expected an int, or (batch,)")
        if starts.ndim == 1:
            if counts is not None and starts.shape != counts[:1]:
                wanted = "an int" if counts[0] is None else f"an int, or ({counts[0]},)"
                apart = f"positions of shape ({streams}, {tokens}) for {streams} streams"
                raise ValueError(f"offset has shape {starts.shape}; expected {wanted}, or {apart}")
            if starts.size * tokens > MOST_AT_ONCE:
                raise MemoryError(f"tokens is {tokens} for {starts.size} offsets; expected at most 2**28 positions")
            if starts.size:
                least, most = min_and_max(starts)
                _check_range("offset", least, most + max(tokens - 1, 0), bound)
            return starts.astype(np.int64)[:, None] + np.arange(tokens, dtype=np.int64)
        offset = int(starts)
    if isinstance(offset, (bool, np.bool_)):
        raise TypeError(f"offset is {offset!r}; expected an int, or integers of shape (batch,)")
    try:
        first = operator.index(offset)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"offset is {kind_of(offset)}; expected an int, or integers of shape (batch,)") from None
    _check_range("offset", first, first + max(tokens - 1, 0), bound)
    return first, first + tokens


def parse_delta(delta: object, streams: int = 1, counts: Counts | None = None) -> tuple[int, int] | NDArray[np.int64]:
    """Return by how much positions move: (delta, delta + 1) if it is one number for all, else as positions."""
    if type(delta) is not int:
        delta = array_if_ints("delta", delta)
        if isinstance(delta, np.ndarray) and delta.ndim == 0:
            delta = int(integers("delta", delta, "an int, or as positions"))
    if is_int(delta):
        moved = int(delta)  # type: ignore[call-overload]
        _check_range("delta", moved, moved, None)
        return moved, moved + 1
    return parse_positions(delta, None, streams, counts, name="delta")


def parse_count(name: str, count: int, max_position: int | None) -> tuple[int, int]:
    """Return the positions 0 to count - 1 as (first, end)."""
    if type(count) is int and 0 <= count <= (MOST_AT_ONCE if max_position is None else min(MOST_AT_ONCE, max_position)):
        return 0, count
    number = whole(name, count)
    if number < 0:
        raise ValueError(f"{name} is {number}; expected 0 or more")
    if number:
        _check_range(name, 0, number - 1, max_position)
    if number > MOST_AT_ONCE:
        raise MemoryError(f"{name} is {number}; expected at most 2**28 positions at once")
    return 0, number


def missing(q: object, k: object) -> TypeError:
    """Return the error of a call without positions. Integers that were given as k were probably meant for them."""
    try:
        for name, x in (("q", q), ("k", k))[: 1 if k is None else 2]:
            storage_of(name, as_array(name, x))
    except TypeError as error:
        return TypeError(f"{error}, and positions by name: offset= or positions=")
    return TypeError("positions and offset are missing; expected one")


def integers(name: str, given: object, shapes: str, wanted: str = "integers") -> NDArray[Any]:
    """Return what was given as an array of some integer type; the last two arguments are for error texts."""
    given = array_if_ints(name, given)
    if isinstance(given, np.ndarray):
        if type(given) not in PLAIN:
            raise TypeError(f"{name} is {kind_of(given)}; expected a plain numpy.ndarray or ints")
        if given.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {escaped(str(given.dtype))}; expected {wanted}")
        if given.size > MOST_AT_ONCE:  # a view that repeats a few numbers can have any size
            raise ValueError(f"{name} has {given.size} elements; expected at most 2**28")
        return given
    count = element_count(given)
    if count > MOST_AT_ONCE:
        raise ValueError(f"{name} has {count} elements; expected at most 2**28")
    # NumPy takes a bool among ints for an int, a masked element for NaN or its data, and makes floats or objects of
    # ints beyond 64 bits: so each is looked at first.
    try:
        each = list(np.asarray(given, dtype=object).ravel())
        for part in (*given, *each) if isinstance(given, (list, tuple)) else each:
            if isinstance(part, np.ndarray) and type(part) not in PLAIN:
                raise TypeError(f"{name} holds {kind_of(part)}; expected {wanted}")
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} has rows of unequal length; expected {shapes}") from None
    if array.size == 0:
        return array.astype(np.int64)  # an empty list has no type
    scalars = [p[()] if isinstance(p, np.ndarray) else p for p in each]
    bools = any(isinstance(p, (bool, np.bool_)) for p in scalars)
    if array.dtype.kind in "iu":
        if bools:
            raise TypeError(f"{name} holds a bool; expected {wanted}")
        return array
    if all(map(is_int, scalars)):
        if all(-(2**63) <= int(p) < 2**63 for p in scalars):
            return np.asarray(given, dtype=np.int64)
        raise ValueError(f"{name} reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64")
    raise TypeError(f"{name} has dtype {escaped(str(array.dtype))}; expected {wanted}")


def _plain(given: Any) -> Any:
    """Return Python's ints as an array: one, a range, or a list or tuple of them; anything else as it is.

    For 64 ints that takes 5 us; with every question that `integers` asks, 40.
    """
    try:
        if type(given) is int or (type(given) in (list, tuple) and _holds_ints(given, 3)):
            return np.array(given, np.int64)
        if type(given) is range and 0 < len(given) <= MOST_AT_ONCE and max(abs(given[0]), abs(given[-1])) < 2**62:
            return given[0] + given.step * np.arange(len(given), dtype=np.int64)
    except (OverflowError, ValueError):  # ints beyond 64 bits, rows of unequal length: `integers` names them
        pass
    return given


def array_if_ints(name: str, given: Any) -> Any:
    """Return ints, or a tensor of integers, as an array; anything else as it is, for `integers` to judge."""
    given = _plain(given)
    return given if type(given) is np.ndarray else as_integers(name, given)


def _holds_ints(given: list[Any] | tuple[Any, ...], axes: int) -> bool:
    """Tell whether a list or tuple holds only Python's ints, or lists or tuples of them, of at most so many axes."""
    kinds = set(map(type, given))
    if kinds == {int}:
        return True
    if not kinds or not kinds <= {list, tuple} or axes == 1 or element_count(given) > MOST_AT_ONCE:
        return False  # one row may be there many times
    return all(_holds_ints(row, axes - 1) for row in given)


def _check_range(name: str, lowest: int, highest: int, max_position: int | None) -> None:
    if lowest < -FARTHEST or highest > FARTHEST:
        farthest = lowest if lowest < -FARTHEST else highest
        raise ValueError(f"{name} leads to position {shown(farthest)}; expected at most 2**53 from 0, exact in float64")
    if max_position is not None and highest >= max_position:
        raise ValueError(f"{name} leads to position {highest}; expected below max_position, {max_position}")
