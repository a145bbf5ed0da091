"""The header of a GGUF file, walked once from its first byte to its last, with nothing trusted that the file says.

The `gguf` package's own reader makes Python objects of every token of the vocabulary (4.1 s and 160 MB for SmolLM2's
98 MB file, where this takes 0.05 s and 0.1 MB), and cuts off silently what reaches beyond the file. The format itself
is small and fixed: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...texts import shown
from ...wording import argument
from ..local import open_regular, shown_path

__all__ = ["GGUFFile", "Long", "read_file"]

VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRUCTS = {kind: struct.Struct(form) for kind, form in SCALARS.items()}
COUNT, TYPE, LIST = STRUCTS[10], STRUCTS[4], struct.Struct("<IQ")
STRING, ARRAY = 8, 9
F32 = 0  # the tensor type in which converters write frequency factors

# What is walked at all. Headers of real models take 1 to 50 MB, nearly all of it vocabulary: up to 262,144 tokens and
# 515,000 merges, some 50 keys and up to 50,000 tensors; the specification ends names at 65,535 bytes, and tensors have
# at most 4 axes. All of it together, at its most costly, takes less than a second.
MOST_BYTES = 2**26
MOST_KEYS = 2**13
MOST_TENSORS = 2**16
MOST_STRINGS = 2**20  # in all lists together
MOST_NAME = 2**16 - 1
MOST_AXES = 4
# What is kept of it: longer values are walked over (vocabularies, chat templates), and so is all beyond a total. Python
# makes 18 bytes of one in a list.
KEPT_STRING = 4096
KEPT_ARRAY = 4096
KEPT_BYTES = 2**20
KEPT_TENSOR = 2**16
AHEAD = 2**15  # bytes that are read at once

PLACES = [struct.Struct(f"<{axes}QIQ") for axes in range(MOST_AXES + 1)]  # the shape, type and offset of a tensor
Where = tuple[Any, ...]  # a format and what to fill in: text that is made only for an error


@dataclass(slots=True)
class Long:
    """A value that was walked over because it is long, or a list of strings."""

    count: int
    what: str  # "bytes" of a string, or "values" of a list

    def __repr__(self) -> str:
        return f"{'a string' if self.what == 'bytes' else 'a list'} of {self.count} {self.what}"


@dataclass(frozen=True)
class GGUFFile:
    """What was kept of a header."""

    path: str
    values: dict[str, Any]  # by key: int, float, bool, str, a list of them, or Long
    tensors: frozenset[str]  # the names of all tensors
    floats: dict[str, NDArray[np.float64]]  # the data of the tensors that were asked for and are there
    missing: int  # bytes at least that the file lacks at its end; 0 unless it was cut off


def read_file(path: str | os.PathLike[str], wanted: Collection[str]) -> GGUFFile:
    """Return the header of a GGUF file, and the data of those of its tensors that are named in `wanted`.

    Raises
    ------
    TypeError
        If `path` is not a path.
    ValueError
        If the file is no GGUF file of version 2 or 3, little-endian, or is cut off within what is read.
    OSError
        If it cannot be opened.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        what = "the path of a GGUF file, a str or os.PathLike"
        raise TypeError(f"{argument('path')} is {shown(path)}; expected {what}")
    name = os.fspath(path)
    with open_regular("path", name, "a GGUF file") as file:
        walk = _Walk(file, name)
        keys, count = walk.beginning()
        values = walk.values(keys)
        return walk.tensors(count, values, wanted)


class _Walk:
    """A place in a file, and steps from it that end in a ValueError if the file has no room for them."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.size = os.fstat(file.fileno()).st_size
        self.data, self.begin, self.at = b"", 0, 0  # what was read, where in the file it lies, and the place in it
        self.where: Where = ("",)  # what the walk is in
        self.room, self.strings_left = KEPT_BYTES, MOST_STRINGS

    def wrong(self, what: str, expected: str) -> ValueError:
        return ValueError(f"{argument('path')} is {shown_path(self.name)}, {what}; expected {expected}")

    @property
    def what(self) -> str:
        """What the walk is in, for error texts."""
        form, *names = self.where
        return str(form).format(*map(shown, names))

    def check(self, place: int) -> None:
        """Raise if the walk may not go on to a place in the file."""
        if place > self.size:
            what = f"cut off in {self.what}: that ends at byte {place}, the file at {self.size}"
            raise self.wrong(what, "a whole GGUF file")
        if place > MOST_BYTES:
            raise self.wrong(f"whose header reaches beyond byte {MOST_BYTES} in {self.what}", "a shorter header")

    def step(self, count: int) -> int:
        """Move on by a number of bytes; return where in `data` they begin."""
        at = self.at
        self.at = at + count
        if self.at <= len(self.data):
            return at
        begin = self.begin + at
        self.check(begin + count)
        self.file.seek(begin)
        self.data, self.begin, self.at = self.file.read(max(count, AHEAD)), begin, count
        if len(self.data) < count:
            raise self.wrong(f"which became shorter while it was read, in {self.what}", "a whole GGUF file")
        return 0

    def skip(self, count: int) -> None:
        """Move on by a number of bytes, without reading them."""
        self.check(self.begin + self.at + count)
        self.at += count

    def number(self, form: struct.Struct) -> Any:
        """Return the next number."""
        at = self.step(form.size)
        return form.unpack_from(self.data, at)[0]

    def text(self, most: int) -> str | Long:
        """Return the next string, unless it is longer than `most` bytes."""
        length = self.number(COUNT)
        if length > most:
            self.skip(length)
            return Long(length, "bytes")
        return self.decoded(self.step(length), length)

    def title(self) -> tuple[str, int]:
        """Return the next string, which is the name of something, and the number of 32 bits behind it."""
        at = self.step(COUNT.size)
        (length,) = COUNT.unpack_from(self.data, at)
        if length > MOST_NAME:
            self.skip(length)
            raise self.wrong(f"with {self.what} of more than {MOST_NAME} bytes", "a shorter name")
        at = self.step(length + TYPE.size)
        return self.decoded(at, length), TYPE.unpack_from(self.data, at + length)[0]

    def decoded(self, at: int, length: int) -> str:
        try:
            return self.data[at : at + length].decode()
        except UnicodeDecodeError:
            raise self.wrong(f"whose {self.what.removeprefix('the ')} is not UTF-8", "UTF-8 text") from None

    def beginning(self) -> tuple[int, int]:
        """Return the numbers of keys and of tensors."""
        magic = self.file.read(4)
        if magic != b"GGUF":
            hint = " (a Git LFS pointer, not the file itself?)" if magic == b"vers" else ""
            raise self.wrong(f"which begins with {magic!r}{hint}", "a GGUF file, which begins with b'GGUF'")
        self.begin, self.where = 4, ("its version",)
        version = self.number(TYPE)
        if version % 2**16 == 0:
            raise self.wrong("a big-endian GGUF file", "a little-endian one")
        if version not in VERSIONS:
            raise self.wrong(f"GGUF of version {version}", "version 2 or 3")
        counts = []
        for what in ("tensors", "keys"):
            self.where = (f"the number of its {what}",)
            counts.append(self.number(COUNT))
        for count, most, what in zip(counts, (MOST_TENSORS, MOST_KEYS), ("tensors", "keys"), strict=True):
            if count > most:
                raise self.wrong(f"which says that it has {count} {what}", f"{most} {what} at most")
        return counts[1], counts[0]

    def values(self, count: int) -> dict[str, Any]:
        """Return the values by key."""
        values: dict[str, Any] = {}
        for index in range(count):
            self.where = ("key {} of {}", index + 1, count)
            key, kind = self.title()
            if key in values:
                raise self.wrong(f"with two keys {shown(key)}", "one of each")
            self.where = ("the value of {}", key)
            values[key] = self.value(kind)
        return values

    def value(self, kind: int) -> Any:
        if kind in STRUCTS:
            return self.number(STRUCTS[kind])
        if kind == STRING:
            kept = self.text(min(KEPT_STRING, self.room))
            self.room -= len(kept) if isinstance(kept, str) else 0
            return kept
        if kind != ARRAY:
            raise self.wrong(f"with type {kind} in {self.what}", "a type from 0 to 12")
        at = self.step(LIST.size)
        element, count = LIST.unpack_from(self.data, at)
        if element == STRING:
            return self.strings(count)
        if element not in SCALARS:
            raise self.wrong(f"with a list of type {element} in {self.what}", "a list of numbers or of strings")
        form = SCALARS[element]
        size = count * STRUCTS[element].size
        if count > KEPT_ARRAY or size > self.room:
            self.skip(size)
            return Long(count, "values")
        self.room -= size
        at = self.step(size)
        return list(struct.unpack_from(f"<{count}{form[1]}", self.data, at))

    def strings(self, count: int) -> Long:
        """Walk over a list of strings."""
        self.check(self.begin + self.at + 8 * count)  # each takes 8 bytes or more
        if count > self.strings_left:
            raise self.wrong(f"with more than {MOST_STRINGS} strings in lists", "fewer")
        self.strings_left -= count
        length_at, data, at = COUNT.unpack_from, self.data, self.at
        for _ in range(count):
            try:
                at += 8 + length_at(data, at)[0]
            except (struct.error, OverflowError):  # beyond what was read
                self.at = at
                self.skip(self.number(COUNT))
                data, at = self.data, self.at
        self.at = at
        self.skip(0)
        return Long(count, "values")

    def tensor(self, index: int, count: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of the next tensor, and its shape, type and offset."""
        self.where = ("tensor {} of {}", index + 1, count)
        name, axes = self.title()
        self.where = ("tensor {}", name)
        if axes > MOST_AXES:
            raise self.wrong(f"with {axes} axes of {self.what}", f"{MOST_AXES} axes at most")
        at = self.step(PLACES[axes].size)
        return name, PLACES[axes].unpack_from(self.data, at)

    def tensors(self, count: int, values: dict[str, Any], wanted: Collection[str]) -> GGUFFile:
        """Return what is kept of the whole header; the walk stands before the list of tensors."""
        names: set[str] = set()
        found: dict[str, tuple[int, ...]] = {}
        furthest, wanted = 0, frozenset(wanted)
        count_at, type_at, data, at = COUNT.unpack_from, TYPE.unpack_from, self.data, self.at
        for index in range(count):
            # As `tensor` does, in half the time: 2 us for each of up to 65,536.
            try:
                end = at + 8 + count_at(data, at)[0]
                form = PLACES[type_at(data, end)[0]]
                entry = form.unpack_from(data, end + 4)
                name = data[at + 8 : end].decode()
                at = end + 4 + form.size
            except (struct.error, IndexError, OverflowError, UnicodeDecodeError):  # beyond what was read, or wrong
                self.at = at
                name, entry = self.tensor(index, count)
                data, at = self.data, self.at
            if name in names:
                raise self.wrong(f"with two tensors {shown(name)}", "one of each")
            names.add(name)
            if entry[-1] >= furthest:
                furthest = entry[-1] + all(entry[:-2])  # a byte at least, unless the tensor is empty
            if name in wanted:
                found[name] = entry
        self.at = at
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in [2**power for power in range(21)]:
            raise self.wrong(f"whose general.alignment is {shown(alignment)}", "a power of two, 2**20 at most")
        begin = -(-(self.begin + self.at) // alignment) * alignment
        missing = max(begin + furthest - self.size, 0) if furthest else 0
        floats = {name: self.floats(name, begin, entry) for name, entry in found.items()}
        return GGUFFile(self.name, values, frozenset(names), floats, missing)

    def floats(self, name: str, data: int, entry: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the data of one tensor of one axis."""
        *shape, kind, offset = entry
        if kind != F32:
            raise self.wrong(f"whose tensor {name} is of type {kind}", f"float32, type {F32}")
        if len(shape) != 1 or not 1 <= shape[0] <= KEPT_TENSOR:
            raise self.wrong(f"whose tensor {name} has shape {shape}", "one axis, with a number for each pair")
        begin, end = data + offset, data + offset + 4 * shape[0]
        if end > self.size:
            what = f"cut off in tensor {name}: that ends at byte {end}, the file at {self.size}"
            raise self.wrong(what, "a whole GGUF file")
        self.file.seek(begin)
        with np.errstate(invalid="ignore"):  # a signalling NaN; who takes the numbers refuses every NaN
            return np.frombuffer(self.file.read(end - begin), "<f4").astype(np.float64)
