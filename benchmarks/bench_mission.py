"""One benchmark for each noun of the mission, beside what it saves; tests/test_mission.py holds the facts."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from measure import array, measure

import rope_numba as rn
from rope_numba.tables import compute

TOKENS = 512


def prompt() -> tuple[Any, Any]:
    """Return q and k of a prompt."""
    return array((TOKENS, 32, 128)), array((TOKENS, 8, 128))


def test_in_place(benchmark: Any) -> None:
    q, k = prompt()
    step = rn.Rope(128).at(offset=0, tokens=TOKENS)
    assert step(q, k)[0] is q
    contenders = {"copying first": lambda: step(q.copy(), k.copy())}
    measure(benchmark, lambda: step(q, k), contenders, case="mission", noun="in place")


def test_adjacent_pairs(benchmark: Any) -> None:
    q, k = prompt()
    adjacent = rn.Rope(128, layout="interleaved").at(offset=0, tokens=TOKENS)
    half = rn.Rope(128, layout="half").at(offset=0, tokens=TOKENS)
    contenders = {"pairs half a head apart": lambda: half(q, k)}
    measure(benchmark, lambda: adjacent(q, k), contenders, case="mission", noun="adjacent pairs")


def test_parallel(benchmark: Any) -> None:
    q, k = array((4096, 32, 128)), array((4096, 8, 128))
    step = rn.Rope(128).at(offset=0, tokens=4096)
    most = numba.get_num_threads()

    def on(threads: int) -> None:
        numba.set_num_threads(threads)
        step(q, k)
        numba.set_num_threads(most)

    contenders = {"one thread": lambda: on(1)}
    measure(benchmark, lambda: on(most), contenders, case="mission", noun="parallel", threads=most)


def test_cached_table(benchmark: Any) -> None:
    rope = rn.Rope(128)
    places = np.arange(TOKENS)
    rope.at(offset=0, tokens=TOKENS)
    contenders = {"computing the rows anew": lambda: compute(places, rope.frequencies, np.dtype(np.float32))}
    measure(benchmark, lambda: rope.at(offset=0, tokens=TOKENS), contenders, case="mission", noun="cached table")


def test_numpy_fallback(benchmark: Any) -> None:
    q, k = prompt()
    kernel = rn.Rope(128).at(offset=0, tokens=TOKENS)
    fallback = rn.Rope(128, backend="numpy").at(offset=0, tokens=TOKENS)
    contenders = {'backend="numpy"': lambda: fallback(q, k)}
    measure(benchmark, lambda: kernel(q, k), contenders, case="mission", noun="NumPy fallback")


def test_equivalence(benchmark: Any) -> None:
    """The comparison itself: kernel and NumPy from the same numbers, each bit compared."""
    q, k = prompt()
    kernel, fallback = rn.Rope(128), rn.Rope(128, backend="numpy")

    def both_agree() -> None:
        ours, numpys = (q.copy(), k.copy()), (q.copy(), k.copy())
        kernel(*ours, offset=7)
        fallback(*numpys, offset=7)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, numpys, strict=True))

    ours = q.copy(), k.copy()
    measure(
        benchmark,
        both_agree,
        {"the kernel's part": lambda: kernel(*ours, offset=7)},
        case="mission",
        noun="equivalence",
    )
