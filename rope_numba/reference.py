"""The rotation in NumPy: what the kernels are compared with, and what runs where there is no Numba.

Results are the kernels' bit for bit: every product, sum and rounding is the same, in the same precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import kind_of, overlaps_itself, storage_of
from .hints import hinted
from .literals import Layout
from .numbers import counted, whole
from .texts import escaped, shown

__all__ = ["bfloat16_to_float32", "float32_to_bfloat16", "rotate"]


def __dir__() -> list[str]:
    return sorted(__all__)


@hinted
def rotate(
    x: NDArray[Any],
    cos: NDArray[Any],
    sin: NDArray[Any],
    *,
    layout: Layout = "interleaved",
    rotary_offset: int = 0,
) -> None:
    """Rotate the pairs of x in place.

    Parameters
    ----------
    x : array, shape (..., tokens, heads, head_dim)
        float32, float64, float16 or bfloat16 (`ml_dtypes`). Of an indexed copy, such as q[mask], q stays as it was.
    cos, sin : array, shape (..., tokens, pairs)
        float64 for float64 x, else float32; leading axes as those of x, or absent.
    layout : "interleaved" or "half"
        Which two channels make a pair.
    rotary_offset : int
        First channel of the rotated block, which is 2 * pairs wide.

    Raises
    ------
    TypeError
        If x, cos or sin is of another type.
    ValueError
        If the layout is not known, shapes do not agree, the block does not fit in x, or x is read-only.

    References
    ----------
    Su et al., RoFormer, https://arxiv.org/abs/2104.09864, equation 34.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> x = np.array([[[1.0, 0.0]]])
    >>> rn.reference.rotate(x, np.array([[0.6]]), np.array([[0.8]]))
    >>> x
    array([[[0.6, 0.8]]])
    """
    storage = storage_of("x", x)
    table = np.float64 if storage == "f64" else np.float32
    for name, rows in (("cos", cos), ("sin", sin)):
        if type(rows) not in (np.ndarray, np.memmap):
            raise TypeError(f"{name} is {kind_of(rows)}; expected a plain numpy.ndarray of {np.dtype(table)}")
        if rows.dtype != table:
            raise TypeError(f"{name}.dtype is {escaped(str(rows.dtype))}; expected {np.dtype(table)}")
    if x.ndim < 3:
        raise ValueError(f"x has {counted(x.ndim, 'axis')}; expected (..., tokens, heads, head_dim)")
    if cos.ndim < 2 or cos.shape != sin.shape:
        raise ValueError(f"cos has shape {cos.shape} and sin {sin.shape}; expected (..., tokens, pairs) for both")
    if cos.shape[:-1] not in (x.shape[-3:-2], x.shape[:-2]):
        raise ValueError(
            f"cos has shape {cos.shape}; expected a row for each of the {counted(x.shape[-3], 'token')} of x"
        )
    if not x.flags.writeable:
        raise ValueError("x is read-only; expected a writeable array, as it is rotated in place")
    rotary_offset = whole("rotary_offset", rotary_offset)
    pairs = cos.shape[-1]
    if layout not in ("interleaved", "half"):
        raise ValueError(f"layout is {shown(layout)}; expected 'interleaved' or 'half'")
    if rotary_offset < 0 or rotary_offset + 2 * pairs > x.shape[-1]:
        raise ValueError(
            f"cos has {counted(pairs, 'pair')}; from channel {rotary_offset} {'it does' if pairs == 1 else 'they do'} "
            f"not fit in the {counted(x.shape[-1], 'channel')} of x"
        )
    if overlaps_itself(x):
        raise ValueError(
            f"x has elements that overlap (strides {x.strides}); expected memory of its own for each element"
        )
    bits = x.view(np.uint16) if storage in ("f16", "bf16") else x
    rotate_stored(storage, bits, cos, sin, layout, rotary_offset)


def rotate_stored(
    storage: str, x: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any], layout: str, rotary_offset: int
) -> None:
    """Rotate arrays of a known storage ("f32", "f64", "f16", "bf16"), those of 16 bits given as uint16."""
    move_stored(storage, x, storage, x, cos, sin, layout, layout, rotary_offset)


def move_stored(
    source: str,
    x: NDArray[Any],
    target: str,
    out: NDArray[Any],
    cos: NDArray[Any],
    sin: NDArray[Any],
    layout_in: str,
    layout_out: str,
    rotary_offset: int,
) -> None:
    """Rotate x of one storage and layout into out of another, which may be x; 16-bit arrays are given as uint16."""
    behind = rotary_offset + 2 * cos.shape[-1]
    c, s = cos[..., None, :], sin[..., None, :]  # the same for every head
    cos_each, sin_each = _for_channels(c, c, layout_in), _for_channels(s * -1.0, s, layout_in)
    widen, narrow = _CONVERSIONS[source][0], _CONVERSIONS[target][1]
    with np.errstate(all="ignore"):
        block = widen(x[..., rotary_offset:behind])  # x's own memory if x is computed with as it is
        copied = block.dtype != x.dtype
        a, b = _members(block, layout_in)
        # x * cos + turned * sin: rows of all channels, as NumPy's time goes by rows. turned holds b and a. The sign is
        # that of sin, and not by np.negative, which NumPy 2.4 gets wrong where it reads and writes by steps.
        turned = np.empty_like(block)
        turned_low, turned_high = _members(turned, layout_in)
        turned_low[...], turned_high[...] = b, a
        turned *= sin_each
        result = np.multiply(block, cos_each, out=block if copied or out is x else None)
        result += turned
        if layout_in != layout_out:
            for old, new in zip(_members(result, layout_in), _members(turned, layout_out), strict=True):
                new[...] = old
            result = turned
        if result is not block or copied:
            out[..., rotary_offset:behind] = narrow(result)
        if out is not x:
            for others in (slice(0, rotary_offset), slice(behind, None)):
                out[..., others] = x[..., others] if source == target else narrow(widen(x[..., others]))


def _for_channels(low: NDArray[Any], high: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return rows of channels, from those of the lower and the higher members of pairs."""
    rows = np.empty((*low.shape[:-1], 2 * low.shape[-1]), low.dtype)
    rows_low, rows_high = _members(rows, layout)
    rows_low[...], rows_high[...] = low, high
    return rows


def _members(block: NDArray[Any], layout: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return views of the lower and the higher members of all pairs."""
    if layout == "interleaved":
        return block[..., 0::2], block[..., 1::2]
    return block[..., : block.shape[-1] // 2], block[..., block.shape[-1] // 2 :]


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 numbers that bfloat16 bits stand for."""
    words = bits.astype(np.uint32)
    words <<= np.uint32(16)
    return words.view(np.float32)


def float32_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16 numbers, ties to even."""
    bits = values.view(np.uint32)
    # Just under half a unit of the last kept bit, plus that bit, carries where rounding goes up.
    rounded: NDArray[np.uint32] = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


# How a storage is read to be computed with, and how results are rounded to it.
_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "f32": (np.asarray, np.asarray),
    "f64": (np.asarray, np.asarray),
    "f16": (lambda bits: bits.view(np.float16).astype(np.float32), lambda x: x.astype(np.float16).view(np.uint16)),
    "bf16": (bfloat16_to_float32, float32_to_bfloat16),
}
