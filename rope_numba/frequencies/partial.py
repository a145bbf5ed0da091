"""The scheme of Gemma 4's global layers, in which only some pairs turn, of all that a head has."""

from __future__ import annotations

import math

from ..hints import hinted
from ..numbers import counted, positive
from .arguments import one_or_more, rotary_width
from .base import Frequencies
from .plain import default

__all__ = ["proportional"]


@hinted
def proportional(
    head_dim: int, theta: float = 10_000.0, *, partial_rotary_factor: float = 1.0, factor: float = 1.0
) -> Frequencies:
    """Return frequencies of which only the first ones turn, spread as if all of the head's pairs did.

    It is not the ordinary partial rotation, which is the default scheme of a smaller `rotary_dim`: here the exponents
    are divided by `head_dim`, and in layout "half" the members of a pair are head_dim / 2 apart.

    Parameters
    ----------
    head_dim : int
        Channels of one head, an even number: there are head_dim / 2 frequencies.
    theta : float
        The base: finite, above 0 and not 1.
    partial_rotary_factor : float
        Share of the pairs that turn, above 0 and at most 1. The others have frequency 0 and stay as they are.
    factor : float
        What the frequencies are divided by, 1 or more.

    Returns
    -------
    Frequencies

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    transformers, `_compute_proportional_rope_parameters`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> rn.frequencies.proportional(8, 10_000.0, partial_rotary_factor=0.5).inv_freq
    array([1. , 0.1, 0. , 0. ])
    """
    head_dim = rotary_width("head_dim", head_dim)
    plain = default(head_dim, theta)
    share = positive("partial_rotary_factor", partial_rotary_factor)
    if share > 1.0:
        raise ValueError(f"partial_rotary_factor is {share}; expected at most 1")
    turning = math.floor(share * head_dim / 2)
    if turning == 0:
        raise ValueError(f"partial_rotary_factor is {share}; expected enough for one of {counted(plain.pairs, 'pair')}")
    factor = one_or_more("factor", factor)
    speeds = plain.inv_freq.tolist()
    turned = [speed / factor for speed in speeds[:turning]]
    return Frequencies(turned + [0.0] * (plain.pairs - turning), theta=plain.theta)
