"""What users' jitted code gets for the functions of `njit.py`: the row kernel, behind the same checks of shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import int64, types
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import overload

from ..kernels.compile import helper, named
from ..kernels.in_place import form_in_place
from ..kernels.launch import LAYOUT_CODES
from ..kernels.machine import enter_ieee_mode, leave_ieee_mode
from ..kernels.panel import make_rotate_heads
from ..kernels.storage import storage_of

__all__ = ["register"]

_TYPES = {"f32": types.float32, "f64": types.float64, "f16": types.uint16, "bf16": types.uint16}


def register(functions: dict[Callable[..., None], tuple[tuple[str, ...], str]]) -> None:
    """Give each function, with the storages and the layout it is for, a body in jitted code."""
    for function, (storages, layout) in functions.items():
        overload(function)(_typed(storages, layout))
    # A caller that names rn.rotate_... has it imported while Numba works out types: it must look again, now.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def _typed(storages: tuple[str, ...], layout: str) -> Callable[[Any, Any, Any], Any]:
    """Return what chooses a body by the types of x, cos and sin."""
    wanted = {_TYPES[storage]: storage for storage in storages}

    def choose(x: Any, cos: Any, sin: Any) -> Any:
        names = " or ".join(map(str, wanted))
        if not isinstance(x, types.Array) or x.ndim != 3 or x.dtype not in wanted:
            raise TypingError(f"x is {x}; expected an array of {names} with the axes (tokens, heads, head_dim)")
        if not x.mutable:
            raise TypingError(f"x is {x}; expected an array that can be written to, as it is rotated in place")
        storage = wanted[x.dtype]
        table = types.float64 if storage == "f64" else types.float32
        for name, rows in (("cos", cos), ("sin", sin)):
            if not isinstance(rows, types.Array) or rows.ndim != 2 or rows.dtype != table:
                raise TypingError(f"{name} is {rows}; expected an array of {table} with the axes (tokens, pairs)")
        return _body(storage, layout)

    return choose


@functools.cache
def _rotate_heads(storage: str, layout: str) -> Any:
    """Return the kernel for one token as a function that is compiled into its callers, which cache it."""
    form = form_in_place(storage_of(storage), LAYOUT_CODES[layout])
    return helper(make_rotate_heads(form), f"heads_{form.name}")


def _body(storage: str, layout: str) -> Callable[[Any, Any, Any], None]:
    itemsize, table_itemsize = storage_of(storage).itemsize, storage_of(storage).table_itemsize
    rotate_heads = _rotate_heads(storage, layout)

    def rotate(x: Any, cos: Any, sin: Any) -> None:
        tokens, heads, head_dim = x.shape
        pairs = cos.shape[1]
        if cos.shape[0] != tokens or sin.shape[0] != tokens or sin.shape[1] != pairs:
            raise ValueError("cos or sin has another shape than (tokens, pairs); expected a row for each token of x")
        if 2 * pairs > head_dim:
            raise ValueError("cos has more pairs than x has channels for; expected at most head_dim / 2")
        if x.size == 0 or pairs == 0:
            return
        if x.strides[2] != itemsize or cos.strides[1] != table_itemsize or sin.strides[1] != table_itemsize:
            raise ValueError("x, cos or sin has a stride on its last axis; expected elements side by side")
        first, cos_row, sin_row = int64(x.ctypes.data), int64(cos.ctypes.data), int64(sin.ctypes.data)
        mode = enter_ieee_mode()
        for _ in range(tokens):
            rotate_heads(pairs, cos_row, sin_row, False, first, heads, x.strides[1], int64(0), int64(0), int64(0))
            first += x.strides[0]
            cos_row += cos.strides[0]
            sin_row += sin.strides[0]
        leave_ieee_mode(mode)

    rotate.__qualname__ = named(f"rotate_{storage}_{layout}")
    return rotate
