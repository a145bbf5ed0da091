"""What a user hands over, opened: a path, a dict or a configuration object becomes one dict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ...integrations.torch import check_storages
from ...texts import escaped, shown, type_name
from ...wording import argument
from ..local import is_folder, open_regular, shown_path

__all__ = ["opened"]

LARGEST_FILE = 16 * 2**20  # bytes; a real config.json has a few thousand
# What Python makes of JSON can take 30 times its bytes, and so the pieces are counted before. The largest real files
# list 21,000 labels twice, or the quantisation of each of 47,000 matrices.
MOST_CONTAINERS = 2**16
MOST_VALUES = 2**18
LONGEST_INT = 1000  # digits; Python takes the square of their number in time
NAMES = ("config.json", "params.json")
WANTED = "the path of a config.json, or of its folder"


def opened(config: object) -> tuple[dict[str, Any], str]:
    """Return a configuration as a dict, and in words what it was read from."""
    if isinstance(config, (str, os.PathLike)) and isinstance(os.fspath(config), str):
        path = _file(os.fspath(config))
        return _parsed(path), path
    if isinstance(config, Mapping):
        check_storages("config", config)
        return dict(config), "a dict"
    if callable(getattr(config, "to_dict", None)):
        values = config.to_dict()  # type: ignore[attr-defined]
        if isinstance(values, Mapping):
            check_storages("config", values)
            return dict(values), f"a {type_name(config)}"
    raise TypeError(f"{argument('config')} is {shown(config)}; expected a path, a dict or a configuration object")


def _file(path: str) -> str:
    if path.lower().endswith(".gguf"):
        raise _is_gguf(path)
    if not is_folder("config", path, WANTED):
        return path
    there = [os.path.join(path, name) for name in NAMES if os.path.isfile(os.path.join(path, name))]
    if there:
        return there[0]
    try:
        names = os.listdir(path)
    except OSError:  # a folder that may not be listed: the text is right without the hint
        names = []
    gguf = min((name for name in names if name.lower().endswith(".gguf")), default=None)
    hint = "" if gguf is None else f", which holds the GGUF file {shown(gguf)}"
    raise ValueError(
        f"{argument('config')} is the folder {shown_path(path)}{hint}; expected one that holds {' or '.join(NAMES)}"
    )


def _is_gguf(path: str) -> ValueError:
    reader = "a config.json, as GGUF files have a reader of their own"
    return ValueError(f"{argument('config')} is {shown_path(path)}; expected {reader}")


def _parsed(path: str) -> dict[str, Any]:
    name = escaped(os.path.basename(path))
    raw = _read(path, name)
    try:
        values = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_without_contradictions, parse_int=_int_of_few_digits
        )
    except ContradictionError as error:
        raise ValueError(f"{name} {error}; expected each key once") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply; expected a configuration file") from None
    except ValueError as error:  # of json, of UTF-8, or a number of thousands of digits
        reason = escaped(str(error), 200)
        raise ValueError(f"{name} is not JSON ({reason}); expected a configuration file") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds {shown(values)}; expected a JSON object")
    return values


def _read(path: str, name: str) -> bytes:
    """Return the bytes of a file that is not too large to be read and parsed at once."""
    with open_regular("config", path, WANTED) as file:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(min(size, 4))
        if raw == b"GGUF":
            raise _is_gguf(path)
        if size > LARGEST_FILE:
            raise ValueError(f"{name} has more than {LARGEST_FILE} bytes; expected a configuration file")
        raw += file.read(size - len(raw))
    containers = raw.count(b"[") + raw.count(b"{")
    for count, most, what in (
        (containers, MOST_CONTAINERS, "lists and objects"),
        (containers + raw.count(b","), MOST_VALUES, "values"),
    ):
        if count > most:
            raise ValueError(f"{name} has more than {most} {what}; expected a configuration file")
    return raw


def _int_of_few_digits(text: str) -> int:
    if len(text) > LONGEST_INT:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


class ContradictionError(ValueError):
    """A key stands twice, with two values."""


def _without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise ContradictionError(f"has the key {shown(key)} twice, as {shown(values[key])} and as {shown(value)}")
        values[key] = value
    return values
