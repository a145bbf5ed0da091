"""Multi-axis positions: which of a token's positions (time, height, width) turns each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..hints import hinted
from ..numbers import element_count, shown, whole
from .arguments import flag
from .base import Frequencies

__all__ = ["mrope"]

TIME, HEIGHT, WIDTH = 0, 1, 2
MOST_SECTIONS = 64  # numbers that are looked at one by one; 3 are expected


@hinted
def mrope(frequencies: Frequencies, *, sections: Sequence[int], interleaved: bool = False) -> Frequencies:
    """Return the same frequencies, shared out between three positions of each token: time, height, width.

    Text tokens have the same position three times, and rotate as without sections, bit for bit.

    Parameters
    ----------
    frequencies : Frequencies
        Those of any scheme, for positions of one axis.
    sections : sequence of 3 int
        Pairs that follow time, height and width, each 1 or more; together all pairs.
    interleaved : bool
        False: first all pairs of time, then of height, then of width (Qwen2-VL, Qwen2.5-VL, GLM-4V). True: pairs take
        turns, and time has those that are left (Qwen3-VL, Qwen3.5). It has nothing to do with the layout of channels.

    Returns
    -------
    Frequencies
        With streams 0 (time), 1 (height) and 2 (width).

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or outside its range.

    References
    ----------
    Wang et al., Qwen2-VL, https://arxiv.org/abs/2409.12191, section 2.1; transformers, `models/qwen2_vl` and
    `models/qwen3_vl`.

    Examples
    --------
    >>> import rope_numba as rn
    >>> plain = rn.frequencies.default(16)
    >>> rn.frequencies.mrope(plain, sections=[2, 3, 3]).streams
    array([0, 0, 1, 1, 1, 2, 2, 2])
    >>> rn.frequencies.mrope(plain, sections=[4, 2, 2], interleaved=True).streams
    array([0, 1, 2, 0, 1, 2, 0, 0])
    """
    if not isinstance(frequencies, Frequencies):
        raise TypeError(f"frequencies is {shown(frequencies)}; expected a rope_numba.Frequencies")
    if frequencies.stream_count > 1:
        raise ValueError(f"frequencies has {frequencies.stream_count} streams; expected frequencies of one stream")
    counts = _sections(sections, frequencies.pairs)
    streams = (_in_turns if flag("interleaved", interleaved) else _in_blocks)(counts, frequencies.pairs)
    taken = [streams.count(axis) for axis in (TIME, HEIGHT, WIDTH)]
    if taken != counts:
        raise ValueError(f"sections is {counts}; expected sections that can take turns, which these do as {taken}")
    return frequencies.replaced(streams=streams)


def _sections(sections: Sequence[int], pairs: int) -> list[int]:
    wanted = f"expected 3 numbers of pairs, for time, height and width, whose sum is {pairs}"
    if element_count(sections) > MOST_SECTIONS:
        raise ValueError(f"sections has {element_count(sections)} numbers; {wanted}")
    given = sections.tolist() if isinstance(sections, np.ndarray) else sections
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"sections is {shown(sections)}; {wanted}")
    counts = [whole(f"sections[{axis}]", count) for axis, count in enumerate(given)]
    if len(counts) != 3 or sum(counts) != pairs:
        raise ValueError(f"sections is {shown(counts)}; {wanted}")
    for axis, count in enumerate(counts):
        if count < 1:
            raise ValueError(f"sections[{axis}] is {count}; expected 1 pair or more")
    return counts


def _in_blocks(counts: list[int], pairs: int) -> list[int]:
    return [axis for axis, count in enumerate(counts) for _ in range(count)]


def _in_turns(counts: list[int], pairs: int) -> list[int]:
    return [pair % 3 if pair < 3 * counts[pair % 3] else TIME for pair in range(pairs)]
