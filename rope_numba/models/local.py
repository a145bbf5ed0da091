"""Files on this machine: opened only if they are regular ones, with one clear line for whatever else is named."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NoReturn

from ..texts import shown
from ..wording import argument

__all__ = ["FileError", "is_folder", "open_regular", "shown_path"]

HUB = re.compile(r"[\w.-]+/[\w.-]+")
BARE = re.compile(r"[A-Za-z][\w-]*(\.\d[\w-]*)*")  # "gpt2", "llama3.2": a file would have another ending
OLLAMA = re.compile(r"[\w./-]+:[\w.-]+")
REGISTRIES = ("hf.co/", "huggingface.co/", "ollama.com/", "registry.ollama.ai/")
MOST_PATH = 100  # characters of a path in an error text


class FileError(OSError, ValueError):
    """A path leads to no file that can be read; `reason` says why, without the path."""

    reason = ""


class MissingFileError(FileError, FileNotFoundError):
    """A path leads to nothing."""


class FolderError(FileError, IsADirectoryError):
    """A path leads to a folder, where a file is meant."""


class ForbiddenFileError(FileError, PermissionError):
    """A path leads to what this user must not read."""


def shown_path(path: str) -> str:
    """Return a path as an error text shows it."""
    return shown(path, MOST_PATH)


def is_folder(name: str, path: str, wanted: str) -> bool:
    """Tell whether a path leads to a folder, or raise if it leads to nothing."""
    return stat.S_ISDIR(_mode(name, path, wanted))


@contextmanager
def open_regular(name: str, path: str, wanted: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading within a `with` block, without waiting for anything.

    Parameters
    ----------
    name : str
        The argument, for error texts.
    path : str
        Where the file is.
    wanted : str
        What is expected there, for error texts.

    Raises
    ------
    ValueError
        If it is something else: a pipe, a device, a socket.
    FileError
        An OSError and a ValueError: if there is nothing, or a folder, or it cannot be opened, or read within the block.
    """
    mode = _mode(name, path, wanted)
    if stat.S_ISDIR(mode):
        raise FolderError(f"{argument(name)} is the folder {shown_path(path)}; expected {wanted}")
    _check_regular(mode, name, path, wanted)  # before it is opened, which has an effect on some devices
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            _check_regular(os.fstat(file.fileno()).st_mode, name, path, wanted)  # another may stand there by now
            yield file
    except FileError:
        raise
    except OSError as error:
        _refuse(error, name, path, wanted, "opened" if error.filename is not None else "read")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _check_regular(mode: int, name: str, path: str, wanted: str) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"{argument(name)} is {shown_path(path)}, which is no regular file; expected {wanted}")


def _mode(name: str, path: str, wanted: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        _refuse(error, name, path, wanted)
    except ValueError:  # a null byte, or a surrogate that no file name has
        what = "a null byte" if "\0" in path else "characters that no file name has"
        raise ValueError(f"{argument(name)} is {shown_path(path)}, which holds {what}; expected {wanted}") from None


def _refuse(error: OSError, name: str, path: str, wanted: str, done: str = "opened") -> NoReturn:
    """Raise an error of one line for one of the system."""
    reason = error.strerror or f"it cannot be {done}"
    kind: type[FileError] = FileError
    what = f"which cannot be {done} ({reason})"
    if isinstance(error, FileNotFoundError):
        hint = _hint(path)
        kind, what = MissingFileError, f"which does not exist{hint}"
        reason += f"{hint}; expected {wanted}" if hint else ""
    elif isinstance(error, PermissionError):
        kind = ForbiddenFileError
    refused = kind(f"{argument(name)} is {shown_path(path)}, {what}; expected {wanted}")
    refused.errno, refused.reason = error.errno, reason
    raise refused from None


def _hint(path: str) -> str:
    """Return a remark for names that other programs download by."""
    if path.startswith(("http://", "https://", "hf://")):
        return " (an address: nothing is downloaded)"
    if path.endswith((".json", ".gguf")):
        return ""
    if OLLAMA.fullmatch(path):
        return " (a name of Ollama? nothing is downloaded)"
    if path.startswith(REGISTRIES):
        return " (a name on the Hugging Face Hub or of Ollama? nothing is downloaded)"
    if HUB.fullmatch(path):
        return " (a name on the Hugging Face Hub? nothing is downloaded)"
    if BARE.fullmatch(path):
        return " (a name of a model? nothing is downloaded)"
    if path.startswith("~"):
        return " (~ is not expanded)"
    return ""
