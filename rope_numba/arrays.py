"""What users pass, turned into what the rotation takes, or refused: every check and every error text.

The compiled entry repeats the tests that are cheap for it and asks here about the rest, so that a text and a rule
stand once. Nothing is written before all of them have passed.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frequencies import whole

__all__ = ["accept", "four_axes", "parse_count", "parse_offset", "parse_positions", "storage_of"]

TYPES = "float32, float64, float16 or bfloat16"
FARTHEST = 2**53  # the last position up to which every whole number is a float64

# Names of the axes by number of axes, for each order.
AXES = {
    "thd": {2: ("heads", "head_dim"), 3: ("tokens", "heads", "head_dim"), 4: ("batch", "tokens", "heads", "head_dim")},
    "htd": {2: ("heads", "head_dim"), 3: ("heads", "tokens", "head_dim"), 4: ("batch", "heads", "tokens", "head_dim")},
}

# Work that deciding an overlap may cost; what is too hard to decide counts as shared.
OVERLAP_WORK = 10_000

_STORAGES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64", np.dtype(np.float16): "f16"}


def storage_of(name: str, x: object) -> str:
    """Return the storage code of an array ("f32", "f64", "f16" or "bf16"), or raise if it is not one of ours."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} is {_kind(x)}; expected a NumPy array of {TYPES}")
    if type(x) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} is {_kind(x)}; expected a plain numpy.ndarray (or numpy.memmap)")
    code = _STORAGES.get(x.dtype)
    if code is not None:
        return code
    if x.dtype.name == "bfloat16" and x.dtype.itemsize == 2 and x.dtype.isnative:
        return "bf16"
    if not x.dtype.isnative:
        raise TypeError(f"{name}.dtype is {x.dtype.str}, of foreign byte order; expected {TYPES} in native byte order")
    raise TypeError(f"{name}.dtype is {x.dtype}; expected {TYPES}")


def four_axes(x: NDArray[Any], order: str) -> NDArray[Any]:
    """Return a view of an array as (batch, tokens, heads, head_dim)."""
    if x.ndim == 2:
        return x[None, None]
    if order == "htd":
        x = x.swapaxes(-2, -3)
    return x if x.ndim == 4 else x[None]


def accept(
    q: Any, k: Any, *, head_dim: int, order: str, tokens: int, batch: int | None
) -> tuple[str, NDArray[Any], NDArray[Any] | None]:
    """Check the arrays of one call, wholly.

    Parameters
    ----------
    q, k : object
        What the user passed; k may be None.
    head_dim, order : int, str
        Of the `Rope`.
    tokens : int
        Number of positions.
    batch : int or None
        Rows of a batch that positions were given for; None if they are for all rows.

    Returns
    -------
    storage code, q, k
        The arrays as plain ndarrays over the same memory.
    """
    code = storage_of("q", q)
    _check_axes("q", q, head_dim, order)
    if k is not None:
        storage_of("k", k)
        if k.dtype != q.dtype:
            raise TypeError(f"k.dtype is {k.dtype}; expected {q.dtype}, as q has")
        if k.ndim != q.ndim:
            raise ValueError(f"k has {k.ndim} axes; expected {q.ndim}, as q has")
        _check_axes("k", k, head_dim, order)
    for name, x in (("q", q), ("k", k)):
        if x is not None:
            _check_counts(name, x, q, order, tokens, batch)
            _check_memory(name, x, order)
    if k is not None and _share_memory(q, k):
        raise ValueError("k shares memory with q; expected arrays that have no element in common")
    return code, q.view(np.ndarray), None if k is None else k.view(np.ndarray)


def _check_axes(name: str, x: NDArray[Any], head_dim: int, order: str) -> None:
    if x.ndim not in AXES[order]:
        shapes = " or ".join(f"({', '.join(axes)})" for axes in AXES[order].values())
        raise ValueError(f"{name} has {x.ndim} axes; expected {shapes}")
    if x.shape[-1] != head_dim:
        raise ValueError(f"{name} has head_dim {x.shape[-1]} (its last axis); expected {head_dim}")


def _check_counts(name: str, x: NDArray[Any], q: NDArray[Any], order: str, tokens: int, batch: int | None) -> None:
    rows, here = four_axes(x, order).shape[:2]
    if here != tokens:
        raise ValueError(f"{name} has {here} tokens; expected {tokens}, the number of positions")
    if batch is not None and (x.ndim != 4 or rows != batch):
        having = f"a batch of {rows}" if x.ndim == 4 else "no batch axis"
        raise ValueError(f"{name} has {having}; expected a batch of {batch}, as the positions have")
    if rows != four_axes(q, order).shape[0]:
        raise ValueError(f"{name} has a batch of {rows}; expected {four_axes(q, order).shape[0]}, as q has")


def _check_memory(name: str, x: NDArray[Any], order: str) -> None:
    if not x.flags.writeable:
        raise ValueError(f"{name} is read-only; expected a writeable array, as it is rotated in place")
    if x.size == 0:
        return
    if x.strides[-1] != x.itemsize:
        raise ValueError(
            f"{name} has stride {x.strides[-1]} bytes on its last axis; expected {x.itemsize}, channels side by side"
        )
    if not x.flags.aligned or any(n > 1 and s % x.itemsize for n, s in zip(x.shape, x.strides, strict=True)):
        raise ValueError(f"{name} is not aligned; expected every element at a multiple of its {x.itemsize} bytes")
    for axis, length, stride in zip(AXES[order][x.ndim], x.shape, x.strides, strict=True):
        if stride == 0 and length > 1:
            raise ValueError(f"{name} has stride 0 on its {axis} axis; expected memory of its own for each element")
    if _overlaps_itself(x):
        raise ValueError(
            f"{name} has elements that overlap (strides {x.strides}); expected memory of its own for each element"
        )


def _overlaps_itself(x: NDArray[Any]) -> bool:
    """Tell whether two elements of an array share memory.

    Two elements that do differ first in some axis; moving both back along it, one of them comes to its beginning.
    """
    while x.ndim > 1:
        if x.shape[0] > 1 and _share_memory(x[0], x[1:]):
            return True
        x = x[0]
    return False


def _share_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def parse_positions(positions: object, max_position: int | None) -> NDArray[np.int64]:
    """Return positions as int64 of shape (tokens,) or (batch, tokens); a scalar becomes one token."""
    given = _integers("positions", positions, "(tokens,) or (batch, tokens)")
    if given.ndim > 2:
        raise ValueError(f"positions has shape {given.shape}; expected (tokens,) or (batch, tokens)")
    if given.size:
        _check_range("positions", int(given.min()), int(given.max()), max_position)
    return np.array(np.atleast_1d(given), dtype=np.int64)


def parse_offset(offset: object, tokens: int, max_position: int | None) -> tuple[int, int] | NDArray[np.int64]:
    """Return the positions from an offset on: (first, end), or an array for an offset that is (batch,)."""
    bound = max_position if tokens else None  # no tokens reach no position
    if isinstance(offset, (list, tuple, np.ndarray)):
        starts = _integers("offset", offset, "an int, or (batch,)")
        if starts.ndim > 1:
            raise ValueError(f"offset has shape {starts.shape}; expected an int, or (batch,)")
        if starts.ndim == 1:
            if starts.size:
                _check_range("offset", int(starts.min()), int(starts.max()) + max(tokens - 1, 0), bound)
            return starts.astype(np.int64)[:, None] + np.arange(tokens, dtype=np.int64)
        offset = int(starts)
    if isinstance(offset, (bool, np.bool_)):
        raise TypeError(f"offset is {offset!r}; expected an int, or integers of shape (batch,)")
    try:
        first = operator.index(offset)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"offset is {_kind(offset)}; expected an int, or integers of shape (batch,)") from None
    _check_range("offset", first, first + max(tokens - 1, 0), bound)
    return first, first + tokens


def parse_count(name: str, count: int, max_position: int | None) -> tuple[int, int]:
    """Return the positions 0 to count - 1 as (first, end)."""
    if whole(name, count) < 0:
        raise ValueError(f"{name} is {count}; expected 0 or more")
    if count:
        _check_range(name, 0, int(count) - 1, max_position)
    return 0, int(count)


def _integers(name: str, given: object, shapes: str) -> NDArray[Any]:
    """Return what was given as an array of some integer type."""
    if isinstance(given, np.ndarray) and type(given) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} is {_kind(given)}; expected a plain numpy.ndarray or ints")
    try:
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} has rows of unequal length; expected {shapes}") from None
    if isinstance(given, np.ndarray):
        if array.dtype.kind in "iu":
            return array
    elif array.size == 0:
        return array.astype(np.int64)  # an empty list has no type
    else:
        # NumPy takes a bool among ints for an int, and makes floats or objects of ints beyond 64 bits.
        each = list(np.asarray(given, dtype=object).flat)
        bools = any(isinstance(p, (bool, np.bool_)) for p in each)
        if array.dtype.kind in "iu":
            if bools:
                raise TypeError(f"{name} holds a bool; expected integers")
            return array
        if not bools and all(isinstance(p, (int, np.integer)) for p in each):
            if all(-(2**63) <= int(p) < 2**63 for p in each):
                return np.asarray(given, dtype=np.int64)
            raise ValueError(f"{name} reaches beyond 64 bits; expected at most 2**53 from 0, exact in float64")
    raise TypeError(f"{name} has dtype {array.dtype}; expected integers")


def _check_range(name: str, lowest: int, highest: int, max_position: int | None) -> None:
    if lowest < -FARTHEST or highest > FARTHEST:
        farthest = lowest if lowest < -FARTHEST else highest
        raise ValueError(f"{name} leads to position {farthest}; expected at most 2**53 from 0, exact in float64")
    if max_position is not None and highest >= max_position:
        raise ValueError(f"{name} leads to position {highest}; expected below max_position, {max_position}")


def _kind(x: object) -> str:
    if x is None:
        return "None"
    name = type(x).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
