"""The values of one architecture in a GGUF file, each checked for what it is when it is asked for."""

from __future__ import annotations

from typing import Any

from ...numbers import shown

__all__ = ["Metadata"]

LEAST, MOST = 2.0**-149, 2.0**128


class Metadata:
    """The keys below the prefix of an architecture: `llama.rope.freq_base` is asked for as `rope.freq_base`.

    Each method returns None where the file has no such key, and raises a ValueError that names it where its value is of
    another kind.
    """

    def __init__(self, values: dict[str, Any], architecture: str) -> None:
        self.values, self.architecture = values, architecture

    def path(self, name: str) -> str:
        """Return the whole key."""
        return f"{self.architecture}.{name}"

    def __contains__(self, name: str) -> bool:
        return self.path(name) in self.values

    def below(self, name: str) -> list[str]:
        """Return the names of all keys that begin with one."""
        start = len(self.architecture) + 1
        return [key[start:] for key in self.values if key.startswith(self.path(name))]

    def wrong(self, name: str, expected: str) -> ValueError:
        """Return the error for a value that is of another kind than expected."""
        return ValueError(f"{self.path(name)} is {shown(self.values.get(self.path(name)))}; expected {expected}")

    def number(self, name: str) -> float | None:
        """Return a number, of the range of float32, as which it should have been stored."""
        value = self.values.get(self.path(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, "a number")
        if value != 0.0 and not LEAST <= abs(value) <= MOST:
            raise self.wrong(name, "a finite number of float32's range")
        return float(value)

    def positive(self, name: str) -> float | None:
        """Return a number above 0."""
        value = self.number(name)
        if value is not None and value <= 0.0:
            raise self.wrong(name, "a number above 0")
        return value

    def whole(self, name: str, least: int = 0, most: int = 2**53) -> int | None:
        """Return a whole number."""
        value = self.values.get(self.path(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.values.get(self.path(name))
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def flag(self, name: str) -> bool | None:
        """Return a bool."""
        value = self.values.get(self.path(name))
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def wholes(self, name: str) -> list[int] | int | None:
        """Return a whole number for all layers, or a list with one for each; true and false count as 1 and 0."""
        value = self.values.get(self.path(name))
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if not isinstance(value, list) or not all(isinstance(entry, int) for entry in value):
            raise self.wrong(name, "a whole number, or a list of them")
        return [int(entry) for entry in value]
