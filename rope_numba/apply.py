"""`apply_rope`: the one-shot form."""

from __future__ import annotations

import functools
from typing import Any, overload

from numpy.typing import ArrayLike

from . import arrays
from .frequencies import Frequencies
from .hints import hinted
from .integrations.dynamo import untraced
from .integrations.torch import as_array
from .literals import Backend, Layout, Order
from .numbers import counted
from .rope import Rope
from .rotation import Array, KeyArray

__all__ = ["apply_rope"]

SETTINGS = (  # what a Rope takes by keyword
    *("theta", "rotary_dim", "rotary_offset", "layout", "layout_out", "order"),
    *("frequencies", "max_position", "backend"),
)


@overload
def apply_rope(
    q: Array,
    k: None = None,
    *,
    positions: ArrayLike | None = ...,
    offset: ArrayLike | None = ...,
    out: Any = ...,
    theta: float = ...,
    rotary_dim: int | None = ...,
    rotary_offset: int = ...,
    layout: Layout = ...,
    layout_out: Layout | None = ...,
    order: Order = ...,
    frequencies: Frequencies | None = ...,
    max_position: int | None = ...,
    backend: Backend = ...,
) -> Array: ...


@overload
def apply_rope(
    q: Array,
    k: KeyArray,
    *,
    positions: ArrayLike | None = ...,
    offset: ArrayLike | None = ...,
    out: Any = ...,
    theta: float = ...,
    rotary_dim: int | None = ...,
    rotary_offset: int = ...,
    layout: Layout = ...,
    layout_out: Layout | None = ...,
    order: Order = ...,
    frequencies: Frequencies | None = ...,
    max_position: int | None = ...,
    backend: Backend = ...,
) -> tuple[Array, KeyArray]: ...


@untraced
@functools.partial(hinted, also=SETTINGS)
def apply_rope(
    q: Any,
    k: Any = None,
    *,
    positions: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    out: Any = None,
    **settings: Any,
) -> Any:
    """Rotate q, and k if given, in place, by a `Rope` of q's head_dim and the given settings: the one-shot form.

    Parameters
    ----------
    q, k : array
        As for calling a `Rope`. Of an indexed copy, such as q[mask], q stays as it was: see the Notes of
        `Rope`.
    positions, offset, out
        As for calling a `Rope`.
    theta, rotary_dim, rotary_offset, layout, layout_out, order, frequencies, max_position, backend
        As for making a `Rope`.

    Returns
    -------
    q, or (q, k)
        The same arrays, or those of `out`.

    Raises
    ------
    TypeError, ValueError
        As a `Rope` does.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> q, k = np.ones((1, 9, 64), np.float32), np.ones((1, 3, 64), np.float32)
    >>> q, k = rn.apply_rope(q, k, offset=7, theta=10_000.0, layout="half")
    """
    arrays.storage_of("q", as_array("q", q))
    if q.ndim < 2:
        raise ValueError(f"q has {counted(q.ndim, 'axis')}; expected 2, 3 or 4, the last one head_dim")
    try:
        rope = _rope_of(q.shape[-1], **settings)
    except (TypeError, ValueError):  # a setting that cannot be hashed, or that a Rope refuses: let that say so
        rope = Rope(q.shape[-1], **settings)
    return rope(q, k, positions=positions, offset=offset, out=out)


@functools.lru_cache(maxsize=64, typed=True)
def _rope_of(head_dim: int, **settings: Any) -> Rope:
    return Rope(head_dim, **settings)
