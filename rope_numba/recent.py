"""The last rotations that calls of a `Rope` asked for, as each layer of a forward pass asks for the same ones again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import FORWARD, Places
from .rotation import Rotation

__all__ = ["Recent"]

# Rows of so many channels are kept: those of 512 positions for a head_dim of 128, 256 KiB in float32, and twice as much
# beside them if float64 comes too.
MOST_CHANNELS = 1 << 16

# What is kept of a Rotation is its bound __call__: calling the object itself takes 0.08 us more.
Call = Callable[..., Any]


class Recent:
    """Rotations and what they were asked for with. Each is exchanged whole, as other threads may be calling."""

    __slots__ = ("several", "single")

    def __init__(self) -> None:
        self.single: tuple[int, Call] | None = None
        self.several: tuple[tuple[Any, ...], Call] | None = None

    def at_single(self, rope: Any, position: int) -> Call:
        """Return the rotation by one position."""
        recent = self.single
        if recent is None or recent[0] != position:
            recent = self.single = position, kept(rope, (position, position + 1))
        return recent[1]

    def at_several(self, rope: Any, positions: NDArray[Any]) -> Call | None:
        """Return the rotation by positions as they are now, or None for what is not kept.

        Their numbers are compared, as an array may have been written to.
        """
        if positions.ndim == 0 or positions.shape == (1,) or positions.dtype.kind not in "iu":
            return None
        if positions.size * rope.rotary_dim > MOST_CHANNELS:
            return None
        numbers = positions.tobytes()
        asked = positions.dtype, positions.shape, numbers
        recent = self.several
        if recent is None or recent[0] != asked:
            # Not of the array itself: another thread may write to it meanwhile, and this answer will be given again.
            same = np.frombuffer(bytearray(numbers), positions.dtype).reshape(positions.shape)
            recent = self.several = asked, kept(rope, rope._places(same, None, 0))
        return recent[1]


def kept(rope: Any, places: Places) -> Call:
    """Return what is kept of a new rotation."""
    rotation = Rotation(rope, rope._engines[FORWARD], places, FORWARD)
    rotation.let_go()
    return rotation.__call__
