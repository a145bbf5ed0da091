"""Permutations between the two layouts of channels: of weights, once, or of activations.

Queries and keys in either layout are the same numbers in another order, so scores stay as they are if the rows of the
Q and K projections are permuted together with the layout of the `Rope`. What belongs to those rows goes with them:
biases, gains of norms on q or k, scales of quantised rows, keys in a cache. V and O projections stay.

A model whose q, k and v are one matrix is permuted by parts. One after the other:

>>> import numpy as np
>>> import rope_numba as rn
>>> head_dim, heads, kv_heads = 8, 4, 2
>>> qkv = np.ones(((heads + 2 * kv_heads) * head_dim, 16), np.float32)
>>> qk = qkv[: (heads + kv_heads) * head_dim]
>>> qk[:] = rn.layouts.permute(qk, head_dim, axis=0, source="half", target="interleaved")

Or in groups of some queries, a key and a value (GPT-NeoX with one query, Falcon, InternLM2):

>>> groups = qkv.reshape(kv_heads, heads // kv_heads + 2, head_dim, -1)
>>> qk = groups[:, :-1]
>>> qk[:] = rn.layouts.permute(qk, head_dim, axis=2, source="half", target="interleaved")
"""

from __future__ import annotations

import functools
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .hints import hinted
from .literals import Layout
from .numbers import WIDEST, even_width, shown, type_name, whole

__all__ = ["indices", "permute"]


def __dir__() -> list[str]:
    return sorted(__all__)


Scalar = TypeVar("Scalar", bound=np.generic)


@hinted
def indices(
    head_dim: int, *, source: Layout, target: Layout, rotary_dim: int | None = None, rotary_offset: int = 0
) -> NDArray[np.int64]:
    """Return which channel of a head in the source layout each channel in the target layout comes from.

    Parameters
    ----------
    head_dim : int
        Channels of one head.
    source, target : "interleaved" or "half"
        The layout that there is, and the one that is wanted.
    rotary_dim : int, optional
        Channels that are rotated, an even number; all of them by default. The others stay where they are.
    rotary_offset : int
        First rotated channel.

    Returns
    -------
    array of int64, shape (head_dim,)
        To gather with: `x[..., indices]` is x in the target layout.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    `permute` in conversion/llama.py of llama.cpp, which goes from half to interleaved where all of a head is rotated.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.layouts.indices(8, source="half", target="interleaved")
    array([0, 4, 1, 5, 2, 6, 3, 7])
    >>> rn.layouts.indices(8, source="interleaved", target="half", rotary_dim=4)
    array([0, 2, 1, 3, 4, 5, 6, 7])
    """
    head_dim = whole("head_dim", head_dim)
    if head_dim < 2:
        raise ValueError(f"head_dim is {head_dim}; expected 2 or more channels")
    if head_dim > WIDEST:
        raise ValueError(f"head_dim is {head_dim}; expected at most {WIDEST} channels")
    if rotary_dim is None and head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}; expected an even number, or rotary_dim to be given")
    width = even_width("rotary_dim", head_dim if rotary_dim is None else rotary_dim)
    first = whole("rotary_offset", rotary_offset)
    if first < 0 or first + width > head_dim:
        raise ValueError(
            f"rotary_offset is {first} and rotary_dim {width}; expected them to lie in head_dim, {head_dim}"
        )
    for name, layout in (("source", source), ("target", target)):
        if not isinstance(layout, str) or layout not in ("interleaved", "half"):
            raise ValueError(f"{name} is {shown(layout)}; expected 'interleaved' or 'half'")
    gather = np.arange(head_dim, dtype=np.int64)
    if source != target:
        block = gather[first : first + width]
        # A pair is a column of the half layout's two rows, and a row of the interleaved layout's two columns.
        block[:] = block.reshape((2, -1) if source == "half" else (-1, 2)).T.flatten()
    return gather


@hinted
def permute(
    x: NDArray[Scalar],
    head_dim: int,
    *,
    axis: int,
    source: Layout,
    target: Layout,
    rotary_dim: int | None = None,
    rotary_offset: int = 0,
) -> NDArray[Scalar]:
    """Return a copy of weights or activations with the channels of every head in another layout.

    Parameters
    ----------
    x : array of any dtype
        See Notes. The number of heads follows from the length of the axis, so it may differ between q and k.
    head_dim : int
        Channels of one head.
    axis : int
        The axis of channels: of one head, or of heads side by side.
    source, target : "interleaved" or "half"
        The layout that x has, and the one that is wanted.
    rotary_dim : int, optional
        Channels that are rotated, an even number; all of them by default. The others stay where they are.
    rotary_offset : int
        First rotated channel.

    Returns
    -------
    array of the shape and dtype of x
        In memory of its own, in C order.

    Raises
    ------
    TypeError
        If x is not a NumPy array, or a number is of another kind.
    ValueError
        If a number is outside its range, a layout is not known, or the axis does not divide into heads.

    Notes
    -----
    - Projection, (heads * head_dim, in_features): axis 0. Stored the other way round: axis 1.
    - Bias, (heads * head_dim,), and scales of rows, (heads * head_dim, groups): axis 0. Quantised rows may be permuted
      as bytes if no block of the quantisation reaches from one row into the next.
    - Gain of a norm on q or k, (head_dim,), (heads, head_dim) or (heads * head_dim,): axis -1.
    - q, k, or cached keys, (..., head_dim): axis -1.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> w_k = np.arange(16.0).reshape(8, 2)  # two heads of four channels
    >>> rn.layouts.permute(w_k, 4, axis=0, source="half", target="interleaved")[:, 0]
    array([ 0.,  4.,  2.,  6.,  8., 12., 10., 14.])
    """
    if type(x) not in (np.ndarray, np.memmap):
        raise TypeError(f"x is of type {type_name(x)}; expected a plain numpy.ndarray (or numpy.memmap)")
    try:
        gather = _indices_again(head_dim, source, target, rotary_dim, rotary_offset)
    except TypeError:  # an argument that cannot be hashed, or that is refused: let `indices` say so
        gather = indices(head_dim, source=source, target=target, rotary_dim=rotary_dim, rotary_offset=rotary_offset)
    axis = whole("axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}; expected one of the axes of x, which has {x.ndim}")
    if x.shape[axis] % gather.size:
        raise ValueError(f"x has shape {x.shape}; expected a multiple of head_dim, {head_dim}, on axis {axis}")
    if x.shape[axis] != gather.size:
        gather = (np.arange(0, x.shape[axis], gather.size)[:, None] + gather).ravel()
    return np.asarray(x).take(gather, axis)


@functools.lru_cache(maxsize=16, typed=True)
def _indices_again(
    head_dim: int, source: Layout, target: Layout, rotary_dim: int | None, rotary_offset: int
) -> NDArray[np.int64]:
    """Return `indices`, kept for the layers and arrays that ask for the same."""
    return indices(head_dim, source=source, target=target, rotary_dim=rotary_dim, rotary_offset=rotary_offset)
