"""Positions of sequences that lie one after the other, without padding between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .hints import hinted
from .integrations.dynamo import untraced
from .numbers import min_and_max
from .positions import FARTHEST, MOST_AT_ONCE, integers

__all__ = ["ragged_positions"]


@untraced
@hinted
def ragged_positions(cu_seqlens: ArrayLike, offset: ArrayLike = 0) -> NDArray[np.int64]:
    """Return the position of each token of a ragged batch: sequences of any lengths, one after the other.

    In NumPy it is `np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1] - offset, np.diff(cu_seqlens))`.

    Parameters
    ----------
    cu_seqlens : array of int, shape (sequences + 1,)
        Where each sequence begins among all tokens, from 0, and last the number of all tokens. A sequence may be
        empty.
    offset : int or array of int, shape (sequences,)
        The position of each sequence's first token: how many of its tokens the cache holds already. Of any sign.

    Returns
    -------
    array of int64, shape (tokens,)
        To rotate q and k of shape (tokens, heads, head_dim) by.

    Raises
    ------
    TypeError
        If an argument is not made of integers.
    ValueError
        If the boundaries do not begin at 0 or go down, an offset is missing, or a number is beyond 2**53.
    MemoryError
        If there are more than 2**28 tokens.

    References
    ----------
    FlashAttention, `flash_attn_varlen_func`, whose `cu_seqlens_q` these are.

    Examples
    --------
    >>> import numpy as np
    >>> import rope_numba as rn
    >>> rn.ragged_positions([0, 3, 4, 6])  # a prompt of three tokens, of one, and of two
    array([0, 1, 2, 0, 0, 1])
    >>> positions = rn.ragged_positions([0, 3, 4, 6], offset=[0, 700, 20])
    >>> positions
    array([  0,   1,   2, 700,  20,  21])
    >>> q = rn.Rope(64)(np.ones((6, 9, 64), np.float32), positions=positions)
    """
    bounds = _integers("cu_seqlens", cu_seqlens, "integers of shape (sequences + 1,)")
    starts = _integers("offset", offset, "an int, or integers of shape (sequences,)")
    if bounds.ndim != 1 or bounds.size == 0:
        raise ValueError(f"cu_seqlens has shape {bounds.shape}; expected (sequences + 1,)")
    if bounds[0] != 0:
        raise ValueError(f"cu_seqlens begins with {bounds[0]}; expected 0, where the first sequence begins")
    if bounds[-1] > MOST_AT_ONCE:
        raise MemoryError(f"cu_seqlens ends with {bounds[-1]}; expected at most 2**28 tokens")
    lengths = bounds[1:] - bounds[:-1]
    if lengths.size and min_and_max(lengths)[0] < 0:
        place = int(np.argmax(lengths < 0))
        raise ValueError(
            f"cu_seqlens goes from {bounds[place]} down to {bounds[place + 1]}; expected each boundary at or after "
            "the one before"
        )
    if starts.ndim and starts.shape != lengths.shape:
        raise ValueError(f"offset has shape {starts.shape}; expected an int, or ({lengths.size},), one for a sequence")
    positions = np.arange(bounds[-1], dtype=np.int64)
    positions -= (bounds[:-1] - starts).repeat(lengths)
    return positions


def _integers(name: str, given: ArrayLike, wanted: str) -> NDArray[np.int64]:
    """Return integers as int64, or raise."""
    array = integers(name, given, wanted, wanted)
    if array.size:
        least, most = min_and_max(array)
        if least < -FARTHEST or most > FARTHEST:
            farthest = least if least < -FARTHEST else most
            raise ValueError(f"{name} holds {farthest}; expected at most 2**53 from 0, exact in float64")
    return array.astype(np.int64, copy=False)
