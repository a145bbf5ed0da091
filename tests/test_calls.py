"""How many functions a public call runs through. A loop with weights between calls pays for each: all are out of cache.

Counted are calls of Python functions and of functions written in C, as sys.setprofile reports them, after the first
calls have compiled and remembered what they need.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs_jit, normal

import rope_numba as rn

HEAD_DIM = 128


def functions_in(call: Callable[[], Any]) -> int:
    """Return how many functions a call runs through, that of the call itself included."""
    for _ in range(3):
        call()
    seen: list[str] = []
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    try:
        call()
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in seen) - 2  # `call` and sys.setprofile


@pytest.fixture
def calls(tmp_path: Path) -> dict[str, Callable[[], Any]]:
    rope, new = rn.Rope(HEAD_DIM, layout="half"), itertools.count(1).__next__
    rope.tables(64)
    q, k, cache = normal((1, 4, HEAD_DIM)), normal((1, 2, HEAD_DIM)), normal((64, 2, HEAD_DIM))
    step = rope.at(offset=7, tokens=1)
    other_layout = rn.Rope(HEAD_DIM, layout="interleaved", layout_out="half").at(offset=7, tokens=1)
    positions = np.array([7])
    on_disk = [np.memmap(tmp_path / name, np.float32, "w+", shape=x.shape) for name, x in (("q", q), ("k", k))]
    slots = np.memmap(tmp_path / "cache", np.float32, "w+", shape=cache.shape)[7:8]
    return {
        "step(q, k)": lambda: step(q, k),
        "rope(q, k, offset=n)": lambda: rope(q, k, offset=7),
        "rope(q, k, offset=n), n new": lambda: rope(q, k, offset=new()),
        "rope(q, k, positions=array)": lambda: rope(q, k, positions=positions),
        "rope(q, k, positions=list), new": lambda: rope(q, k, positions=[new()]),
        "rope(q, k, positions=tuple), new": lambda: rope(q, k, positions=(new(),)),
        "rope(q, k, positions=int), new": lambda: rope(q, k, positions=new()),
        "rope.at(offset=n)": lambda: rope.at(offset=new(), tokens=1),
        "rope.at(positions=list)": lambda: rope.at(positions=[new()]),
        "rope.inverse(q, k, offset=n)": lambda: rope.inverse(q, k, offset=7),
        "rope.shift(k, n)": lambda: rope.shift(k, 5),
        "rope.shift(k, -n)": lambda: rope.shift(k, -5),
        "rope.tables(n)": lambda: rope.tables(1),
        "apply_rope(q, k, offset=n)": lambda: rn.apply_rope(q, k, offset=new(), layout="half"),
        "step(q, k, out=(None, cache[n:m]))": lambda: step(q, k, out=(None, cache[7:8])),
        "step(q, k), layout_out=": lambda: other_layout(q, k),
        "step(memmaps)": lambda: step(*on_disk),
        "step(q, k, out=(None, memmap))": lambda: step(q, k, out=(None, slots)),
        "layouts.permute(x)": lambda: rn.layouts.permute(q, HEAD_DIM, axis=-1, source="half", target="interleaved"),
        "ragged_positions(boundaries)": lambda: rn.ragged_positions([0, 2, 5], offset=[3, 9]),
    }


# A quarter more than there are with Python 3.11 and NumPy 2.4, as other versions count otherwise. A form that goes all
# the way through the checks and their texts takes 60 to 230.
MOST = {
    "step(q, k)": 2,
    "rope(q, k, offset=n)": 4,
    "rope(q, k, offset=n), n new": 26,
    "rope(q, k, positions=array)": 20,
    "rope(q, k, positions=list), new": 38,
    "rope(q, k, positions=tuple), new": 38,
    "rope(q, k, positions=int), new": 37,
    "rope.at(offset=n)": 17,
    "rope.at(positions=list)": 23,
    "rope.inverse(q, k, offset=n)": 23,
    "rope.shift(k, n)": 37,
    "rope.shift(k, -n)": 40,
    "rope.tables(n)": 18,
    "apply_rope(q, k, offset=n)": 33,
    "step(q, k, out=(None, cache[n:m]))": 22,
    "step(q, k), layout_out=": 41,
    "step(memmaps)": 20,
    "step(q, k, out=(None, memmap))": 66,
    "layouts.permute(x)": 8,
    "ragged_positions(boundaries)": 43,
}


@needs_jit
@pytest.mark.parametrize("form", MOST)
def test_a_call_runs_through_few_functions(calls: dict[str, Callable[[], Any]], form: str) -> None:
    assert functions_in(calls[form]) <= MOST[form]
