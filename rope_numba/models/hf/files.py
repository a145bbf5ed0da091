"""What a user hands over, opened: a path, a dict or a configuration object becomes one dict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...numbers import shown

__all__ = ["opened"]

LARGEST_FILE = 16 * 2**20  # bytes; a real config.json has a few thousand
NAMES = ("config.json", "params.json")


def opened(config: object) -> tuple[dict[str, Any], str]:
    """Return a configuration as a dict, and in words what it was read from."""
    if isinstance(config, (str, os.PathLike)):
        path = _file(Path(config))
        return _parsed(path), str(path)
    if isinstance(config, Mapping):
        return dict(config), "a dict"
    if callable(getattr(config, "to_dict", None)):
        values = config.to_dict()  # type: ignore[attr-defined]
        if isinstance(values, Mapping):
            return dict(values), f"a {type(config).__name__}"
    raise TypeError(f"config is {shown(config)}; expected a path, a dict or a configuration object")


def _file(path: Path) -> Path:
    if path.is_dir():
        for name in NAMES:
            if (path / name).is_file():
                return path / name
        raise ValueError(f"config is the folder {str(path)!r}; expected one that holds {' or '.join(NAMES)}")
    if path.suffix.lower() == ".gguf":
        raise ValueError(f"config is {str(path)!r}; expected a config.json, as GGUF files have a reader of their own")
    return path


def _parsed(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise ValueError(f"{path.name} has more than {LARGEST_FILE} bytes; expected a configuration file")
    try:
        values = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_contradictions)
    except ContradictionError as error:
        raise ValueError(f"{path.name} {error}; expected each key once") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply; expected a configuration file") from None
    except ValueError as error:  # of json, of UTF-8, or a number of thousands of digits
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path.name} is not JSON ({reason}); expected a configuration file") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds {shown(values)}; expected a JSON object")
    return values


class ContradictionError(ValueError):
    """A key stands twice, with two values."""


def _without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise ContradictionError(f"has the key {shown(key)} twice, as {shown(values[key])} and as {shown(value)}")
        values[key] = value
    return values
