"""How an array lies in memory, seen from jitted code: its axes, and whether it is plain that no element is shared."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

# (batch, tokens, heads, batch stride, token stride, head stride); strides are in bytes.
Axes = tuple[int, int, int, int, int, int]


@register_jitable
def axes(x: Any, head_major: int) -> Axes:
    """Return an array's axes, whatever its rank and order; an axis that it has not got counts one."""
    batch, tokens, batch_stride, token_stride = 1, 1, 0, 0
    rank = len(x.shape)
    heads, head_stride = x.shape[rank - 2], x.strides[rank - 2]
    if rank > 2:
        tokens, token_stride = x.shape[rank - 3], x.strides[rank - 3]
        if head_major:
            tokens, token_stride, heads, head_stride = heads, head_stride, tokens, token_stride
    if rank > 3:
        batch, batch_stride = x.shape[0], x.strides[0]
    return batch, tokens, heads, batch_stride, token_stride, head_stride


@register_jitable
def aligned(address: int, itemsize: int, x: Axes) -> bool:
    """Tell whether every element starts at a multiple of the element's size."""
    batch, tokens, heads, batch_stride, token_stride, head_stride = x
    bits = address
    if batch > 1:
        bits |= batch_stride
    if tokens > 1:
        bits |= token_stride
    if heads > 1:
        bits |= head_stride
    return bits % itemsize == 0


@register_jitable
def steps_over(extent: int, size: int, stride: int) -> int:
    """Return the extent of an axis's repetitions of something, or -1 if they would overlap. All in bytes."""
    if extent < 0:
        return -1
    if size <= 1:
        return extent
    if abs(stride) < extent:
        return -1
    return extent + abs(stride) * (size - 1)


@register_jitable
def nested(row: int, x: Axes) -> bool:
    """Tell whether it is plain that no two elements share memory: each axis steps over all that lies inside it.

    row is the size of one head of one token, in bytes.
    """
    batch, tokens, heads, batch_stride, token_stride, head_stride = x
    heads_first = steps_over(row, heads, head_stride)
    inside = steps_over(heads_first, tokens, token_stride)
    if inside < 0:
        inside = steps_over(steps_over(row, tokens, token_stride), heads, head_stride)
    if steps_over(inside, batch, batch_stride) >= 0:
        return True
    return steps_over(steps_over(heads_first, batch, batch_stride), tokens, token_stride) >= 0


@register_jitable
def reach(size: int, stride: int) -> tuple[int, int]:
    """Return how far an axis reaches below and above its first element, in bytes."""
    length = (size - 1) * stride
    return min(length, 0), max(length, 0)


@register_jitable
def room(x: Any, x_axes: Axes, itemsize: int, head_dim: int, batch: int, tokens: int) -> tuple[int, int]:
    """Return the first address of an array's memory and the one behind it, or zeros.

    These if it has no elements, or others than are asked for, or if they are not aligned, or not plainly apart.
    """
    _, _, heads, batch_stride, token_stride, head_stride = x_axes
    row = head_dim * itemsize
    if x_axes[0] != batch or x_axes[1] != tokens or batch == 0 or tokens == 0 or heads == 0:
        return 0, 0
    if x.shape[-1] != head_dim or x.strides[-1] != itemsize:
        return 0, 0
    if not aligned(x.address, itemsize, x_axes) or not nested(row, x_axes):
        return 0, 0
    below, above = reach(heads, head_stride)
    token_below, token_above = reach(tokens, token_stride)
    batch_below, batch_above = reach(batch, batch_stride)
    return x.address + below + token_below + batch_below, x.address + above + token_above + batch_above + row


@register_jitable
def meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Tell whether two stretches of memory, of `room`, have an address in common."""
    return a[0] < b[1] and b[0] < a[1]


@register_jitable
def apart(q_address: int, k_address: int, row: int, q: Axes, k: Axes) -> bool:
    """Tell whether it is plain that q and k have no element in common."""
    batch, tokens, heads, batch_stride, token_stride, head_stride = q
    _, _, k_heads, k_batch_stride, k_token_stride, k_head_stride = k
    # All of q before all of k, or behind it.
    below, above = reach(heads, head_stride)
    q_first, q_end = q_address + below, q_address + above + row
    below, above = reach(k_heads, k_head_stride)
    k_first, k_end = k_address + below, k_address + above + row
    token_below, token_above = reach(tokens, token_stride)
    batch_below, batch_above = reach(batch, batch_stride)
    k_token_below, k_token_above = reach(tokens, k_token_stride)
    k_batch_below, k_batch_above = reach(batch, k_batch_stride)
    if q_end + token_above + batch_above <= k_first + k_token_below + k_batch_below:
        return True
    if k_end + k_token_above + k_batch_above <= q_first + token_below + batch_below:
        return True
    # Views of one packed array: the heads of one token are apart, and tokens step over the heads of both.
    if batch > 1 and batch_stride != k_batch_stride:
        return False
    if tokens > 1 and token_stride != k_token_stride:
        return False
    if q_first < k_end and k_first < q_end:
        return False
    both = max(q_end, k_end) - min(q_first, k_first)
    if steps_over(steps_over(both, tokens, token_stride), batch, batch_stride) >= 0:
        return True
    return steps_over(steps_over(both, batch, batch_stride), tokens, token_stride) >= 0
