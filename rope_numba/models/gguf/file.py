"""The header of a GGUF file, walked once from its first byte to its last, with nothing trusted that the file says.

The `gguf` package's own reader makes Python objects of every token of the vocabulary (4.1 s and 160 MB for SmolLM2's
98 MB file, where this takes 0.05 s and 0.1 MB), and cuts off silently what reaches beyond the file. The format itself
is small and fixed: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...numbers import shown

__all__ = ["GGUFFile", "Long", "read_file"]

VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32 = 0  # the tensor type in which converters write frequency factors

# What is walked at all. Headers of real models take 1 to 50 MB, nearly all of it vocabulary, with some 50 keys and up
# to 50,000 tensors; the specification ends names at 65,535 bytes, and tensors have at most 4 axes.
MOST_BYTES = 2**26
MOST_KEYS = 2**16
MOST_TENSORS = 2**18
MOST_NAME = 2**16 - 1
MOST_AXES = 4
# What is kept of it: longer values are walked over (vocabularies, chat templates).
KEPT_STRING = 4096
KEPT_ARRAY = 4096
KEPT_TENSOR = 2**16


@dataclass(frozen=True)
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
        raise TypeError(f"path is {shown(path)}; expected the path of a GGUF file, a str or os.PathLike")
    name = os.fspath(path)
    kind = os.stat(name).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe would wait for its other end
        raise ValueError(f"path is {shown_name(name)}, which is no regular file; expected a GGUF file")
    with open(name, "rb") as file:
        walk = _Walk(file, name)
        keys, count = walk.beginning()
        values = walk.values(keys)
        return walk.tensors(count, values, wanted)


def shown_name(name: str) -> str:
    """Return a name from a file or of one as an error text shows it: quoted, on one line, not for long."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-1]}"


class _Walk:
    """A place in a file, and steps from it that end in a ValueError if the file has no room for them."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.size = os.fstat(file.fileno()).st_size
        self.place = 0

    def wrong(self, what: str, expected: str) -> ValueError:
        return ValueError(f"path is {shown_name(self.name)}, {what}; expected {expected}")

    def over(self, count: int, what: str) -> None:
        """Move on by a number of bytes, without looking at them."""
        self.place += count
        if self.place > self.size:
            what = f"cut off in {what}: that ends at byte {self.place}, the file at {self.size}"
            raise self.wrong(what, "a whole GGUF file")
        if self.place > MOST_BYTES:
            raise self.wrong(f"whose header reaches beyond byte {MOST_BYTES} in {what}", "a shorter header")

    def bytes(self, count: int, what: str) -> bytes:
        """Return the next bytes."""
        self.over(count, what)
        data = self.file.read(count)
        if len(data) != count:
            raise self.wrong(f"which became shorter while it was read, in {what}", "a whole GGUF file")
        return data

    def number(self, form: str, what: str) -> Any:
        """Return the next number, of a form as in `struct`."""
        return struct.unpack(form, self.bytes(struct.calcsize(form), what))[0]

    def skip(self, count: int, what: str) -> None:
        self.over(count, what)
        self.file.seek(self.place)

    def text(self, most: int, what: str) -> str | Long:
        """Return the next string, unless it is longer than `most` bytes."""
        length = self.number("<Q", what)
        if length > most:
            self.skip(length, what)
            return Long(length, "bytes")
        try:
            return self.bytes(length, what).decode()
        except UnicodeDecodeError:
            raise self.wrong(f"whose {what.removeprefix('the ')} is not UTF-8", "UTF-8 text") from None

    def title(self, what: str) -> str:
        """Return the next string, which is the name of something."""
        title = self.text(MOST_NAME, what)
        if isinstance(title, Long):
            raise self.wrong(f"with {what} of more than {MOST_NAME} bytes", "a shorter name")
        return title

    def beginning(self) -> tuple[int, int]:
        """Return the numbers of keys and of tensors."""
        magic = self.file.read(4)
        self.place = len(magic)
        if magic != b"GGUF":
            hint = " (a Git LFS pointer, not the file itself?)" if magic == b"vers" else ""
            raise self.wrong(f"which begins with {magic!r}{hint}", "a GGUF file, which begins with b'GGUF'")
        version = self.number("<I", "its version")
        if version % 2**16 == 0:
            raise self.wrong("a big-endian GGUF file", "a little-endian one")
        if version not in VERSIONS:
            raise self.wrong(f"GGUF of version {version}", "version 2 or 3")
        tensors, keys = self.number("<Q", "the number of its tensors"), self.number("<Q", "the number of its keys")
        for count, most, what in ((tensors, MOST_TENSORS, "tensors"), (keys, MOST_KEYS, "keys")):
            if count > most:
                raise self.wrong(f"which says that it has {count} {what}", f"{most} {what} at most")
        return keys, tensors

    def values(self, count: int) -> dict[str, Any]:
        """Return the values by key."""
        values: dict[str, Any] = {}
        for index in range(count):
            key = self.title(f"key {index + 1} of {count}")
            if key in values:
                raise self.wrong(f"with two keys {shown_name(key)}", "one of each")
            what = f"the value of {shown_name(key)}"
            values[key] = self.value(self.number("<I", what), what)
        return values

    def value(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.text(KEPT_STRING, what)
        if kind != ARRAY:
            raise self.wrong(f"with type {kind} in {what}", "a type from 0 to 12")
        element, count = self.number("<I", what), self.number("<Q", what)
        if element == STRING:
            return self.strings(count, what)
        if element not in SCALARS:
            raise self.wrong(f"with a list of type {element} in {what}", "a list of numbers or of strings")
        form = SCALARS[element]
        if count > KEPT_ARRAY:
            self.skip(count * struct.calcsize(form), what)
            return Long(count, "values")
        return list(struct.unpack(f"<{count}{form[1]}", self.bytes(count * struct.calcsize(form), what)))

    def strings(self, count: int, what: str) -> Long:
        """Walk over a list of strings, to the end of the file at most: the one place where a header takes time."""
        read, seek, place, end = self.file.read, self.file.seek, self.place, min(self.size, MOST_BYTES)
        for _ in range(count):
            length = int.from_bytes(read(8), "little")
            place += 8 + length
            if place > end:
                self.over(place - self.place, what)
            seek(length, os.SEEK_CUR)
        self.place = place
        return Long(count, "values")

    def tensors(self, count: int, values: dict[str, Any], wanted: Collection[str]) -> GGUFFile:
        """Return what is kept of the whole header; the walk stands before the list of tensors."""
        names: set[str] = set()
        found: dict[str, tuple[list[int], int, int]] = {}
        furthest = 0
        for index in range(count):
            name = self.title(f"tensor {index + 1} of {count}")
            if name in names:
                raise self.wrong(f"with two tensors {shown_name(name)}", "one of each")
            names.add(name)
            what = f"tensor {shown_name(name)}"
            axes = self.number("<I", what)
            if axes > MOST_AXES:
                raise self.wrong(f"with {axes} axes of {what}", f"{MOST_AXES} axes at most")
            shape = [self.number("<Q", what) for _ in range(axes)]
            kind, offset = self.number("<I", what), self.number("<Q", what)
            furthest = max(furthest, offset + all(shape))  # a byte at least, unless the tensor is empty
            if name in wanted:
                found[name] = (shape, kind, offset)
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in [2**power for power in range(21)]:
            raise self.wrong(f"whose general.alignment is {shown(alignment)}", "a power of two, 2**20 at most")
        data = -(-self.place // alignment) * alignment
        missing = max(data + furthest - self.size, 0) if furthest else 0
        floats = {name: self.floats(name, data, *entry) for name, entry in found.items()}
        return GGUFFile(self.name, values, frozenset(names), floats, missing)

    def floats(self, name: str, data: int, shape: list[int], kind: int, offset: int) -> NDArray[np.float64]:
        """Return the data of one tensor of one axis."""
        if kind != F32:
            raise self.wrong(f"whose tensor {name} is of type {kind}", f"float32, type {F32}")
        if len(shape) != 1 or not 1 <= shape[0] <= KEPT_TENSOR:
            raise self.wrong(f"whose tensor {name} has shape {shape}", "one axis, with a number for each pair")
        begin, end = data + offset, data + offset + 4 * shape[0]
        if end > self.size:
            what = f"cut off in tensor {name}: that ends at byte {end}, the file at {self.size}"
            raise self.wrong(what, "a whole GGUF file")
        self.file.seek(begin)
        return np.frombuffer(self.file.read(end - begin), "<f4").astype(np.float64)
