"""Arrays that indexing has made are copies: calls write to the copy, the documents say so, and assigning works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal

import rope_numba as rn

README = (Path(__file__).parent.parent / "README.md").read_text()
ROPE = rn.Rope(8, layout="half")
STEP = ROPE.at(offset=3, tokens=4)
COS, SIN = ROPE.tables(4)

# How an array comes to be a copy of part of another one.
PICKS: dict[str, Any] = {
    "list": [7, 2, 5, 0],
    "array": np.array([7, 2, 5, 0]),
    "mask": np.array([True, False, True, True, False, True, False, False]),
}


def rotated(rotate: Callable[..., Any]) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        rotate(x, COS, SIN)
        return x

    return call


CALLS: dict[str, Callable[[Any], Any]] = {
    "rope": lambda x: ROPE(x, offset=3),
    "positions": lambda x: ROPE(x, positions=[3, 4, 5, 9]),
    "inverse": lambda x: ROPE.inverse(x, offset=3),
    "shift": lambda x: ROPE.shift(x, 7),
    "step": STEP,
    "apply_rope": lambda x: rn.apply_rope(x, offset=3, layout="half"),
    "numpy": lambda x: rn.Rope(8, backend="numpy")(x, offset=3),
    "reference": rotated(rn.reference.rotate),
    "rotate_interleaved": rotated(rn.rotate_interleaved),
    "rotate_half_split": rotated(rn.rotate_half_split),
}


@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_writes_to_the_copy_and_assigning_brings_it_back(name: str, pick: str) -> None:
    given = normal((8, 2, 8))
    cache, chosen = given.copy(), PICKS[pick]
    CALLS[name](cache[chosen])
    assert_same_bits(cache, given)  # which no call can see
    apart = [given[place].copy() for place in np.arange(8)[chosen]]
    wanted = CALLS[name](np.stack(apart))
    cache[chosen] = CALLS[name](cache[chosen])
    assert_same_bits(cache[chosen], wanted)
    others = np.setdiff1d(np.arange(8), np.arange(8)[chosen])
    assert_same_bits(cache[others], given[others])
    assert (wanted != np.stack(apart)).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("pick", PICKS)
def test_out_goes_to_the_copy_and_assigning_gives_the_bits_that_out_would(pick: str, dtype: str) -> None:
    q, k = normal((4, 3, 8)), normal((4, 2, 8), seed=1)
    cache, chosen = np.zeros((8, 2, 8), DTYPES[dtype]), PICKS[pick]
    ROPE(q.copy(), k.copy(), offset=3, out=(None, cache[chosen]))
    assert not cache.astype(np.float32).any()
    wanted = np.zeros((4, 2, 8), DTYPES[dtype])
    ROPE(q.copy(), k.copy(), offset=3, out=(None, wanted))
    cache[chosen] = ROPE(q, k, offset=3)[1]
    assert_same_bits(cache[chosen], wanted)


def test_slices_are_views_and_are_rotated_where_they_are() -> None:
    cache = normal((8, 2, 8))
    before = cache.copy()
    ROPE.shift(cache[2:6], 7)
    assert (cache[2:6] != before[2:6]).any()
    assert_same_bits(cache[6:], before[6:])


def test_reshaping_what_cannot_be_a_view_makes_a_copy_too() -> None:
    x = normal((2, 4, 8))
    before = x.copy()
    ROPE(x.swapaxes(0, 1).reshape(8, 8)[:4, None], offset=3)
    ROPE(x.astype(np.float64), positions=[3, 4])
    assert_same_bits(x, before)


def test_jitted_code_copies_too_and_assigns_likewise() -> None:
    numba = pytest.importorskip("numba")

    @numba.njit
    def rotate(x: Any, mask: Any, cos: Any, sin: Any, assigning: bool) -> None:
        part = x[mask]
        rn.rotate_half_split(part, cos, sin)
        if assigning:
            x[mask] = part

    x, mask = normal((8, 2, 8)), PICKS["mask"]
    before, wanted = x.copy(), x[mask]
    rn.rotate_half_split(wanted, COS, SIN)
    rotate(x, mask, COS, SIN, False)
    assert_same_bits(x, before)
    rotate(x, mask, COS, SIN, True)
    assert_same_bits(x[mask], wanted)


IN_PLACE = {
    **{f"Rope.{name}": getattr(rn.Rope, name) for name in ("__call__", "inverse", "shift")},
    "Rope": rn.Rope,
    "Rotation": rn.Rotation,
    "Rotation.__call__": rn.Rotation.__call__,
    "apply_rope": rn.apply_rope,
    "reference.rotate": rn.reference.rotate,
    "rotate_interleaved": rn.rotate_interleaved,
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_whatever_writes_in_place_speaks_of_indexed_copies(name: str) -> None:
    text = " ".join((IN_PLACE[name].__doc__ or "").split())
    refers = "are those of calling the `Rope`" in text  # inverse has no words of its own
    assert refers or "ndexed copy" in text or "Indexing with a list, an array or a mask makes a copy" in text


def test_the_way_that_works_stands_in_examples_that_are_run() -> None:
    for text in (rn.Rope.__doc__ or "", README):
        assert "cache[slots] = k" in text
        assert "cache[slots] = rope.shift(" in text
