"""What a caller tells the compiled entry about a call, in one number, as each argument costs a call.

No Numba here: `Rope` makes these numbers before it needs a kernel.
"""

from __future__ import annotations

HEAD_MAJOR = 1  # the heads axis comes before the tokens axis (order "htd")
ALONE = 2  # there is no k; the one given is a placeholder
TRUSTED = 4  # arrays.py, or look.py, has made sure that no element is shared
PER_ROW = 8  # the positions were given for each row of a batch
ONE_ROW = 16  # there is one row of cosines and sines, for all tokens
SHARED = 32  # a plan is wanted, for a launch on several threads
SMALL = 64  # only work for one thread is wanted; ASK is the answer to more

# The first bits of rotary_offset and head_dim.
OFFSET, HEAD_DIM = 7, 27
WIDEST_HEAD = (1 << (HEAD_DIM - OFFSET)) - 1


def tell(flags: int, head_dim: int, rotary_offset: int) -> int:
    """Return the number for a call."""
    return flags | rotary_offset << OFFSET | head_dim << HEAD_DIM
