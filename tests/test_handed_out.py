"""Arrays that the package hands out: whoever writes to their memory, by whatever way, changes no later rotation."""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from numpy.typing import NDArray

import rope_numba as rn

FREQUENCIES = rn.frequencies.mrope(rn.frequencies.default(16, 777.0), sections=[2, 3, 3])

# By name, arrays that a caller gets from a Rope. (Its results are the caller's own arrays.)
HANDED_OUT: dict[str, Callable[[rn.Rope], Iterator[Any]]] = {
    "tables": lambda rope: iter(rope.tables(64)),
    "tables of one position": lambda rope: iter(rope.tables(1)),
    "inv_freq": lambda rope: iter([rope.frequencies.inv_freq]),
    "streams": lambda rope: iter([rope.frequencies.streams]),
    "inv_freq of a copy": lambda rope: iter([copy.copy(rope).frequencies.inv_freq]),
    "a pickle's arguments": lambda rope: (x for x in rope.frequencies.__reduce__()[1] if isinstance(x, np.ndarray)),
    "attributes": lambda rope: (
        x for name in dir(rope) + dir(rope.frequencies) if not name.startswith("_") for x in reached(rope, name)
    ),
}


def reached(rope: rn.Rope, name: str) -> Iterator[Any]:
    """Yield what an attribute of a Rope or of its frequencies holds that has memory."""
    for owner in (rope, rope.frequencies):
        value = getattr(owner, name, None)
        for part in value if isinstance(value, tuple) else [value]:
            if isinstance(part, (np.ndarray, bytes, bytearray, memoryview)):
                yield part


def torch_of(x: Any) -> Any:
    """Return a tensor over an array's memory."""
    if importlib.util.find_spec("torch") is None:
        if os.environ.get("CI"):
            pytest.fail("missing torch: pip install '.[peers]'")
        pytest.skip("missing torch: pip install '.[peers]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        if isinstance(x, np.ndarray):
            return torch.from_numpy(x)
        return torch.frombuffer(x, dtype=torch.uint8)


def by_flag(x: Any) -> None:
    x = np.asarray(x)
    x.flags.writeable = True
    x[...] = 3


def by_address(x: Any) -> None:
    x = np.frombuffer(x, np.uint8) if isinstance(x, (bytes, bytearray, memoryview)) else x
    for row in x.reshape(-1, x.shape[-1]):
        ctypes.memset(row.ctypes.data, 0x40, row.nbytes)


def by_interface(x: Any) -> None:
    described = x.__array_interface__
    writeable = {**described, "data": (described["data"][0], False)}
    np.asarray(type("Memory", (), {"__array_interface__": writeable, "holds": x})())[...] = 3


def by_base(x: Any) -> None:
    while isinstance(x, np.ndarray) and x.base is not None:
        x = x.base
        if isinstance(x, memoryview):
            x = x.obj
    by_flag(x)


def by_dlpack(x: Any) -> None:
    shared = np.from_dlpack(x)
    shared.flags.writeable = True
    shared[...] = 3


def by_torch(x: Any) -> None:
    torch_of(x).fill_(3)


WAYS: dict[str, Callable[[Any], None]] = {
    "flag": by_flag,
    "address": by_address,
    "interface": by_interface,
    "base": by_base,
    "dlpack": by_dlpack,
}


def answers(rope: rn.Rope) -> list[NDArray[Any]]:
    """Return what a Rope computes and says: rotations near and far, in two types, and its tables."""
    found: list[NDArray[Any]] = []
    for offset in (0, 40, 5_000, 10_000_000):
        for dtype in ("float32", "float64"):
            found += [rope(normal((70, 2, 16), dtype), offset=offset), rope.shift(normal((70, 2, 16), dtype), offset)]
    three = np.arange(3 * 70).reshape(3, 1, 70)
    found.append(rope(normal((1, 70, 2, 16)), positions=three))
    return [*found, *rope.tables(64), rope.frequencies.inv_freq, rope.frequencies.streams]


def check(name: str, write: Callable[[Any], None]) -> None:
    """Write to all that is handed out under a name; fail if a Rope with the same frequencies answers otherwise."""

    def fresh() -> rn.Rope:
        return rn.Rope(16, frequencies=rn.frequencies.mrope(rn.frequencies.default(16, 777.0), sections=[2, 3, 3]))

    used = fresh()
    before = answers(fresh())
    for x in HANDED_OUT[name](used):
        try:
            write(x)
        except (ValueError, BufferError, AttributeError, TypeError, RuntimeError):
            continue  # refused: that will do as well
    for rope in (used, fresh(), pickle.loads(pickle.dumps(used))):
        for mine, other in zip(answers(rope), before, strict=True):
            assert_same_bits(mine, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HANDED_OUT)
def test_writing_to_what_is_handed_out_changes_no_rotation(name: str, way: str) -> None:
    check(name, WAYS[way])


@pytest.mark.peers
@pytest.mark.parametrize("name", HANDED_OUT)
def test_a_tensor_over_what_is_handed_out_changes_no_rotation(name: str) -> None:
    torch_of(np.ones(1))
    check(name, by_torch)


def test_what_is_handed_out_says_that_it_is_read_only() -> None:
    rope = rn.Rope(16, frequencies=FREQUENCIES)
    for name in ("tables", "tables of one position", "inv_freq", "streams"):
        for x in HANDED_OUT[name](rope):
            assert not x.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                x[...] = 0


def test_each_access_hands_out_memory_of_its_own() -> None:
    rope = rn.Rope(16, frequencies=FREQUENCIES)
    for name in ("tables", "inv_freq", "streams"):
        for one, other in zip(HANDED_OUT[name](rope), HANDED_OUT[name](rope), strict=True):
            assert not np.shares_memory(one, other)
    cos, sin = rope.tables(64)
    assert not np.shares_memory(cos, sin)
