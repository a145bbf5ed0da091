"""The kernel for users' own `@njit` code, and for arrays of cosines and sines that are not this package's.

Each function here has two bodies. In jitted code the one of `overloads.py` is compiled into the caller. From Python
this one runs: the compiled kernel, or its NumPy twin where JIT is disabled or Numba is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import forks, reference
from ..arrays import kind_of, overlaps_itself
from ..hints import hinted
from ..kernels import try_load_kernels
from ..kernels.flags import MAX_HEAD_DIM, NO_KEY, SKIP_CHECKS, pack_flags
from ..numbers import counted
from ..texts import escaped

__all__ = [
    "rotate_half_split",
    "rotate_half_split_bf16",
    "rotate_half_split_f16",
    "rotate_interleaved",
    "rotate_interleaved_bf16",
    "rotate_interleaved_f16",
]


@hinted
def rotate_interleaved(x: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any]) -> None:
    """Rotate pairs (2i, 2i + 1) of the first 2 * pairs channels in place, from Python or inside `@njit` code.

    Parameters
    ----------
    x : array of float32 or float64, shape (tokens, heads, head_dim)
        Channels lie side by side; other strides are free. Of an indexed copy, such as q[mask], q stays as it was, here
        and in jitted code: name the copy, rotate it, and assign it to q[mask].
    cos, sin : array, shape (tokens, pairs)
        Of x's dtype, rows side by side; as those of `Rope.tables`, or a model's own.

    Raises
    ------
    TypeError
        If an argument is of another type (in jitted code a TypingError, when it is compiled).
    ValueError
        If shapes do not agree or channels do not lie side by side; nothing has been written then.

    References
    ----------
    Su et al., RoFormer, https://arxiv.org/abs/2104.09864, equation 34.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[1.0, 0.0]]])
    >>> rn.rotate_interleaved(x, np.array([[0.6]]), np.array([[0.8]]))
    >>> x
    array([[[0.6, 0.8]]])
    """
    _rotate(("f32", "f64"), "interleaved", x, cos, sin)


@hinted
def rotate_half_split(x: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any]) -> None:
    """Rotate pairs (i, i + pairs) of the first 2 * pairs channels in place: else as `rotate_interleaved`.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[1.0, 2.0, 0.0, 0.0]]])
    >>> rn.rotate_half_split(x, np.array([[0.6, 1.0]]), np.array([[0.8, 0.0]]))
    >>> x
    array([[[0.6, 2. , 0.8, 0. ]]])
    """
    _rotate(("f32", "f64"), "half", x, cos, sin)


@hinted
def rotate_interleaved_f16(x: NDArray[np.uint16], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> None:
    """Rotate float16 numbers, given as uint16 (Numba has none on a CPU): else as `rotate_interleaved`.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[1.0, 0.0]]], np.float16)
    >>> rn.rotate_interleaved_f16(x.view(np.uint16), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    >>> x
    array([[[0., 1.]]], dtype=float16)
    """
    _rotate(("f16",), "interleaved", x, cos, sin)


@hinted
def rotate_half_split_f16(x: NDArray[np.uint16], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> None:
    """Rotate float16 numbers, given as uint16, by pairs (i, i + pairs): else as `rotate_interleaved`.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[1.0, 0.0]]], np.float16)
    >>> rn.rotate_half_split_f16(x.view(np.uint16), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    >>> x
    array([[[0., 1.]]], dtype=float16)
    """
    _rotate(("f16",), "half", x, cos, sin)


@hinted
def rotate_interleaved_bf16(x: NDArray[np.uint16], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> None:
    """Rotate bfloat16 numbers, given as uint16: else as `rotate_interleaved`.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[0x3F80, 0]]], np.uint16)  # 1.0 and 0.0
    >>> rn.rotate_interleaved_bf16(x, np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    >>> [hex(bits) for bits in x[0, 0]]
    ['0x0', '0x3f80']
    """
    _rotate(("bf16",), "interleaved", x, cos, sin)


@hinted
def rotate_half_split_bf16(x: NDArray[np.uint16], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> None:
    """Rotate bfloat16 numbers, given as uint16, by pairs (i, i + pairs): else as `rotate_interleaved`.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[0x3F80, 0]]], np.uint16)  # 1.0 and 0.0
    >>> rn.rotate_half_split_bf16(x, np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    >>> [hex(bits) for bits in x[0, 0]]
    ['0x0', '0x3f80']
    """
    _rotate(("bf16",), "half", x, cos, sin)


_TYPES = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "f16": np.dtype(np.uint16)}
_TYPES["bf16"] = _TYPES["f16"]


def _rotate(storages: tuple[str, ...], layout: str, x: Any, cos: Any, sin: Any) -> None:
    """Check the arguments, then rotate by the kernel or, where there is none, by NumPy."""
    for name, array in (("x", x), ("cos", cos), ("sin", sin)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is {kind_of(array)}; expected a NumPy array")
        if type(array) not in (np.ndarray, np.memmap):
            raise TypeError(f"{name} is {kind_of(array)}; expected a plain numpy.ndarray (or numpy.memmap)")
    wanted = {_TYPES[storage]: storage for storage in storages}
    if x.dtype not in wanted:
        raise TypeError(f"x.dtype is {escaped(str(x.dtype))}; expected {' or '.join(map(str, wanted))}")
    storage = wanted[x.dtype]
    table = np.dtype(np.float64 if storage == "f64" else np.float32)
    for name, rows in (("cos", cos), ("sin", sin)):
        if rows.dtype != table:
            raise TypeError(f"{name}.dtype is {escaped(str(rows.dtype))}; expected {table}")
    if x.ndim != 3 or cos.ndim != 2 or sin.shape != cos.shape:
        raise ValueError(
            f"x, cos and sin have shapes {x.shape}, {cos.shape} and {sin.shape}; expected (tokens, heads, head_dim), "
            "and (tokens, pairs) for both tables"
        )
    if cos.shape[0] != x.shape[0] or 2 * cos.shape[1] > x.shape[2]:
        raise ValueError(
            f"cos has shape {cos.shape}; expected {counted(x.shape[0], 'row')}, one for each token of x, of at "
            f"most {counted(x.shape[2] // 2, 'pair')}"
        )
    if x.size and x.strides[2] != x.itemsize:
        raise ValueError(f"x has stride {counted(x.strides[2], 'byte')} on its last axis; expected {x.itemsize}")
    if not x.flags.writeable or not x.flags.aligned:
        raise ValueError("x is read-only or not aligned; expected an array that can be rotated in place")
    if x.size == 0 or cos.size == 0:
        return
    launch = try_load_kernels()
    kernels = None if launch is None else launch.in_place_for(storage, layout)
    if kernels is not None and kernels.available() and x.shape[2] <= MAX_HEAD_DIM:
        plain, flags = x.view(np.ndarray), pack_flags(NO_KEY, x.shape[2], 0)
        rows = np.stack((cos, sin), axis=1)[None]
        arrays = plain, plain, rows
        if kernels.run(*arrays, flags):
            _check_overlap(x)
            kernels.run(*arrays, flags | SKIP_CHECKS)
        return
    _check_overlap(x)
    reference.rotate_stored(storage, x, cos, sin, layout, 0)


def _check_overlap(x: NDArray[Any]) -> None:
    if overlaps_itself(x):
        raise ValueError(
            f"x has elements that overlap (strides {x.strides}); expected memory of its own for each element"
        )


def _register() -> None:
    """Let Numba compile the functions above into callers."""
    if not forks.can_compile():
        return
    try:
        from . import overloads
    except ImportError:  # no Numba, so no jitted callers
        return
    overloads.register(
        {
            rotate_interleaved: (("f32", "f64"), "interleaved"),
            rotate_half_split: (("f32", "f64"), "half"),
            rotate_interleaved_f16: (("f16",), "interleaved"),
            rotate_half_split_f16: (("f16",), "half"),
            rotate_interleaved_bf16: (("bf16",), "interleaved"),
            rotate_half_split_bf16: (("bf16",), "half"),
        }
    )


_register()
