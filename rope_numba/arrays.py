"""The arrays that users pass, turned into what the rotation takes, or refused: every check and every error text.

The compiled entry repeats the tests that are cheap for it and asks here about the rest, so that a text and a rule
stand once. Nothing is written before all of them have passed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .numbers import counted
from .texts import escaped, type_name

__all__ = [
    "accept",
    "accept_into",
    "counts_of",
    "four_axes",
    "kind_of",
    "overlaps_itself",
    "read_only_copy",
    "storage_of",
]

TYPES = "float32, float64, float16 or bfloat16"

# Names of the axes by number of axes, for each order.
AXES = {
    "thd": {2: ("heads", "head_dim"), 3: ("tokens", "heads", "head_dim"), 4: ("batch", "tokens", "heads", "head_dim")},
    "htd": {2: ("heads", "head_dim"), 3: ("heads", "tokens", "head_dim"), 4: ("batch", "heads", "tokens", "head_dim")},
}

# Work that deciding an overlap may cost; what is too hard to decide counts as shared.
OVERLAP_WORK = 10_000

# Storages that may become others on the way, beside each that stays what it is.
CONVERSIONS = {("f32", "f16"), ("f32", "bf16"), ("f16", "f32"), ("bf16", "f32")}
TYPE_NAMES = {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}

# bfloat16 without ml_dtypes, as tensors of PyTorch become arrays: a NumPy dtype that is its own and two bytes wide.
BFLOAT16_BITS = np.dtype([("bfloat16", np.uint16)])

_STORAGES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64", np.dtype(np.float16): "f16"}
_STORAGES[BFLOAT16_BITS] = "bf16"


def storage_of(name: str, x: object) -> str:
    """Return the storage code of an array ("f32", "f64", "f16" or "bf16"), or raise if it is not one of ours."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} is {kind_of(x)}; expected a NumPy array of {TYPES}")
    if type(x) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} is {kind_of(x)}; expected a plain numpy.ndarray (or numpy.memmap)")
    code = _STORAGES.get(x.dtype)
    if code is not None:
        return code
    if x.dtype.name == "bfloat16" and x.dtype.itemsize == 2 and x.dtype.isnative:
        return "bf16"
    if not x.dtype.isnative:
        raise TypeError(f"{name}.dtype is {x.dtype.str}, of foreign byte order; expected {TYPES} in native byte order")
    raise TypeError(f"{name}.dtype is {escaped(str(x.dtype))}; expected {TYPES}")


def four_axes(x: NDArray[Any], order: str) -> NDArray[Any]:
    """Return a view of an array as (batch, tokens, heads, head_dim)."""
    if x.ndim == 2:
        return x[None, None]
    if order == "htd":
        x = x.swapaxes(-2, -3)
    return x if x.ndim == 4 else x[None]


def counts_of(name: str, x: Any, head_dim: int, order: str) -> tuple[int | None, int]:
    """Return the rows of an array's batch, or None where it has no batch axis, and its number of tokens."""
    storage_of(name, x)
    _check_axes(name, x, head_dim, order)
    return x.shape[0] if x.ndim == 4 else None, four_axes(x, order).shape[1]


def accept(
    q: Any, k: Any, *, head_dim: int, order: str, tokens: int, batch: int | None, streams: int = 1
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
    streams : int
        Positions that a token has; for error texts.

    Returns
    -------
    storage code, q, k
        The arrays as plain ndarrays over the same memory.
    """
    inputs = {"q": q} if k is None else {"q": q, "k": k}
    code = _check_shapes(inputs, head_dim, order, tokens, batch, streams)
    for name, x in inputs.items():
        _check_memory(name, x, order)
    if k is not None and _share_memory(q, k):
        raise ValueError("k shares memory with q; expected arrays that have no element in common")
    return code, q.view(np.ndarray), None if k is None else k.view(np.ndarray)


def accept_into(
    inputs: dict[str, Any],
    outs: tuple[Any, ...],
    *,
    head_dim: int,
    order: str,
    tokens: int,
    batch: int | None,
    streams: int = 1,
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Check the arrays of one call that writes into others, wholly.

    Parameters
    ----------
    inputs : dict
        q, or k, or both, as the user passed them, by their names.
    outs : tuple
        For each of them where it goes; None means in place.
    head_dim, order, tokens, batch, streams
        As for `accept`.

    Returns
    -------
    list of (array, array)
        For each input where it comes from and where it goes; the same object if it is rotated in place.
    """
    _check_shapes(inputs, head_dim, order, tokens, batch, streams)
    names = [(name, "out" if len(inputs) == 1 else f"out[{place}]") for place, name in enumerate(inputs)]
    moves = []
    for (name, out_name), x, out in zip(names, inputs.values(), outs, strict=True):
        if out is None:
            _check_memory(name, x, order)
            moves.append((x, x))
            continue
        _check_memory(name, x, order, written=False)
        _check_out(name, x, out_name, out, order)
        if not _share_memory(x, out):
            moves.append((x, out))
        elif _same_place(x, out):
            moves.append((out, out))
        else:
            raise ValueError(f"{out_name} shares memory with {name}; expected {name} itself, or no element in common")
    for place, (x, target) in enumerate(moves):
        written = names[place][0 if x is target else 1]
        for other, (other_x, other_target) in enumerate(moves):
            if other != place and (_share_memory(target, other_x) or _share_memory(target, other_target)):
                raise ValueError(
                    f"{written} shares memory with {names[other][0]} or where it goes; expected no element in common"
                )
    return moves


def _check_shapes(
    inputs: dict[str, Any], head_dim: int, order: str, tokens: int, batch: int | None, streams: int
) -> str:
    """Check dtypes and shapes of q, of k, or of both; returns their storage code."""
    first_name, first = next(iter(inputs.items()))
    code = storage_of(first_name, first)
    for name, x in inputs.items():
        here = storage_of(name, x)
        if here != code:
            raise TypeError(f"{name}.dtype is {TYPE_NAMES[here]}; expected {TYPE_NAMES[code]}, as {first_name} has")
        if x.ndim != first.ndim:
            raise ValueError(f"{name} has {counted(x.ndim, 'axis')}; expected {first.ndim}, as {first_name} has")
        _check_axes(name, x, head_dim, order)
    for name, x in inputs.items():
        _check_counts(name, x, first, order, tokens, batch, streams)
    return code


def _check_out(name: str, x: NDArray[Any], out_name: str, out: Any, order: str) -> None:
    """Check that an array can be rotated into another."""
    pair = storage_of(name, x), storage_of(out_name, out)
    if pair[0] != pair[1] and pair not in CONVERSIONS:
        source, target = TYPE_NAMES[pair[0]], TYPE_NAMES[pair[1]]
        allowed = [source, *(TYPE_NAMES[to] for of, to in sorted(CONVERSIONS) if of == pair[0])]
        raise TypeError(f"{out_name}.dtype is {target}; expected {' or '.join(allowed)}, as {name} is {source}")
    if out.shape != x.shape:
        raise ValueError(f"{out_name} has shape {out.shape}; expected {x.shape}, as {name} has")
    _check_memory(out_name, out, order)


def _same_place(x: NDArray[Any], out: NDArray[Any]) -> bool:
    steps = zip(x.shape, x.strides, out.strides, strict=True)
    alike = all(mine == other for length, mine, other in steps if length > 1)  # no step is taken on an axis of length 1
    return x.dtype == out.dtype and x.ctypes.data == out.ctypes.data and alike


def _check_axes(name: str, x: NDArray[Any], head_dim: int, order: str) -> None:
    if x.ndim not in AXES[order]:
        shapes = " or ".join(f"({', '.join(axes)})" for axes in AXES[order].values())
        raise ValueError(f"{name} has {counted(x.ndim, 'axis')}; expected {shapes}")
    if x.shape[-1] != head_dim:
        raise ValueError(f"{name} has head_dim {x.shape[-1]} (its last axis); expected {head_dim}")


def _check_counts(
    name: str, x: NDArray[Any], q: NDArray[Any], order: str, tokens: int, batch: int | None, streams: int
) -> None:
    rows, here = four_axes(x, order).shape[:2]
    if here != tokens:
        shape = (rows, here) if streams == 1 else (streams, rows, here)
        hint = f"; one for each row of the batch has shape {shape}" if here == 1 and rows == tokens else ""
        raise ValueError(f"{name} has {counted(here, 'token')}; expected {tokens}, the number of positions{hint}")
    if batch is not None and (x.ndim != 4 or rows != batch):
        having = f"a batch of {rows}" if x.ndim == 4 else "no batch axis"
        hint = "" if streams == 1 else f"; for {streams} streams, those of every row have shape ({streams}, 1, {here})"
        raise ValueError(f"{name} has {having}; expected a batch of {batch}, as the positions have{hint}")
    if rows != four_axes(q, order).shape[0]:
        raise ValueError(f"{name} has a batch of {rows}; expected {four_axes(q, order).shape[0]}, as q has")


def _check_memory(name: str, x: NDArray[Any], order: str, *, written: bool = True) -> None:
    if written and not x.flags.writeable:
        why = "as it is rotated in place" if name in ("q", "k") else "as results go there"
        raise ValueError(f"{name} is read-only; expected a writeable array, {why}")
    if x.size == 0:
        return
    if x.strides[-1] != x.itemsize:
        raise ValueError(
            f"{name} has stride {counted(x.strides[-1], 'byte')} on its last axis; expected {x.itemsize}, channels "
            "side by side"
        )
    if not _aligned(x):
        raise ValueError(f"{name} is not aligned; expected every element at a multiple of its {x.itemsize} bytes")
    if not written:
        return
    for axis, length, stride in zip(AXES[order][x.ndim], x.shape, x.strides, strict=True):
        if stride == 0 and length > 1:
            raise ValueError(f"{name} has stride 0 on its {axis} axis; expected memory of its own for each element")
    if overlaps_itself(x):
        raise ValueError(
            f"{name} has elements that overlap (strides {x.strides}); expected memory of its own for each element"
        )


def _aligned(x: NDArray[Any]) -> bool:
    """Tell whether every element lies at a multiple of its size."""
    # To NumPy, structured dtypes, as BFLOAT16_BITS is, may lie anywhere. Its flag takes 0.1 us, an address 1.4.
    if x.flags.aligned and x.dtype.alignment == x.itemsize:
        return True
    steps = zip(x.shape, x.strides, strict=True)
    return x.ctypes.data % x.itemsize == 0 and all(n == 1 or s % x.itemsize == 0 for n, s in steps)


def _steps_out(x: NDArray[Any]) -> bool:
    """Tell whether each axis, from the last on, steps over all that those behind it span: no element twice."""
    span = x.itemsize
    for length, stride in zip(x.shape[::-1], x.strides[::-1], strict=True):
        if length > 1:
            if stride < span:
                return False
            span = stride * length
    return x.strides[-1] == x.itemsize


def overlaps_itself(x: NDArray[Any]) -> bool:
    """Tell whether two elements of an array share memory.

    Two elements that do differ first in some axis; moving both back along it, one of them comes to its beginning.
    """
    while x.ndim > 1 and not (x.flags.c_contiguous or _steps_out(x)):
        if x.shape[0] > 1 and _share_memory(x[0], x[1:]):
            return True
        x = x[0]
    return False


def _share_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    # Views of two arrays that each have memory of their own do not. np.shares_memory lets go of Python's interpreter
    # lock, which a thread that is busy in Python then keeps for 5 ms.
    owner = a if a.base is None else a.base
    other = b if b.base is None else b.base
    if owner is not other and type(owner) is type(other) is np.ndarray:
        if owner.flags.owndata and other.flags.owndata:
            return False
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def kind_of(x: object) -> str:
    """Return an object's type as an error text names it."""
    if x is None:
        return "None"
    name = type_name(x)
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def read_only_copy(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that says it is read-only.

    The flag stops NumPy's users, but not torch.from_numpy, DLPack or ctypes, so the memory must be the caller's own.
    The flag can be cleared: torch.compile fails on arrays where it cannot.
    """
    copy = numbers.copy()
    copy.flags.writeable = False
    return copy
