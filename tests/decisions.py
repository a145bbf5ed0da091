"""Decisions that are read from bytes, which hypothesis draws and shrinks: an example costs it one draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Decisions, read from bytes; where they have run out, the plainest."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def below(self, count: int) -> int:
        self.place += 1
        return self.data[self.place - 1] % count if self.place <= len(self.data) else 0

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def rarely(self, one_in: int) -> bool:
        return self.below(one_in) == one_in - 1
