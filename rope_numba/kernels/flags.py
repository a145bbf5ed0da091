"""What a caller tells a compiled entry about a call, in one number, and what an entry answers.

Each argument of a call costs time, so the flags, head_dim and rotary_offset share one number. No Numba here: `Rope`
makes these numbers before it needs a kernel. `geometry.unpack_flags` reads them.
"""

from __future__ import annotations

from enum import IntEnum

HEAD_MAJOR = 1  # the heads axis comes before the tokens axis (order "htd")
NO_KEY = 2  # there is no k; the one given is a placeholder
SKIP_CHECKS = 4  # arrays.py or precheck.py has made sure that no element is shared
PER_BATCH = 8  # the positions were given for each row of a batch
SINGLE_POSITION = 16  # there is one row of cosines and sines, for all tokens
SERIAL_ONLY = 32  # only work for one thread is wanted; NEEDS_CHECK is the answer to more

# The first bits of rotary_offset and head_dim.
ROTARY_OFFSET_SHIFT, HEAD_DIM_SHIFT = 6, 26
MAX_HEAD_DIM = (1 << (HEAD_DIM_SHIFT - ROTARY_OFFSET_SHIFT)) - 1


class Status(IntEnum):
    """What an entry answers."""

    ROTATED = 0
    NEEDS_CHECK = 1  # nothing was written: the call is wrong, or too unusual for an entry's checks; arrays.py decides


def pack_flags(flags: int, head_dim: int, rotary_offset: int) -> int:
    """Return the number for a call."""
    return flags | rotary_offset << ROTARY_OFFSET_SHIFT | head_dim << HEAD_DIM_SHIFT
