"""How texts name the arguments of the readers: as Python's arguments, or as the options of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["argument", "naming"]

_names: ContextVar[Mapping[str, str]] = ContextVar("_names", default={})  # noqa: B039  (never changed)


def argument(name: str) -> str:
    """Return what the caller calls an argument of a reader.

    Examples
    --------
    >>> argument("seq_len")
    'seq_len'
    """
    return _names.get().get(name, name)


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Let `argument` return other names within a `with` block.

    Examples
    --------
    >>> with naming({"seq_len": "--seq-len"}):
    ...     argument("seq_len")
    '--seq-len'
    """
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)
