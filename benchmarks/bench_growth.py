"""Long contexts: a decoded token at any position, the longest single step, and prompts past a table's reserve."""

from __future__ import annotations

import gc
import itertools
import time
from typing import Any

import numpy as np
import pytest
from bench_start import run_once
from measure import ROWS_ONLY, SECONDS, array, measure

import rope_numba as rn

THETA = itertools.count(10_001)  # another one for each benchmark: tables that nothing has filled
BLOCK = 64  # positions that a table fills together
LAYERS = 8
STEPS = int(2_000_000 * min(SECONDS, 1.0))  # of the walk whose longest step is looked for
PAST = 2_000_000  # the reserve of a table for a head of 128 ends at 131,072
WALKS = {"64 pairs": (64, 1.0, 1), "128 pairs, YaRN": (128, 1.3, 1), "16 pairs": (16, 1.0, 1), "8 models": (64, 1.0, 8)}


def ropes(pairs: int, factor: float, count: int) -> list[rn.Rope]:
    """Return ropes whose tables are empty."""
    inv_freqs = [rn.frequencies.default(2 * pairs, float(next(THETA))).inv_freq for _ in range(count)]
    return [rn.Rope(2 * pairs, frequencies=rn.Frequencies(inv_freq, factor)) for inv_freq in inv_freqs]


@pytest.mark.parametrize("position", [1_000, 10_000, 100_000, 1_000_000])
def test_decoding_from(benchmark: Any, position: int) -> None:
    """As many tokens as a block has positions, one after another, in a block that is new; beside one that is filled."""
    q, k = array((1, 32, 128)), array((1, 8, 128))
    (rope,) = ropes(64, 1.0, 1)
    blocks = itertools.count(position // BLOCK)

    def decode(block: int) -> None:
        for place in range(BLOCK * block, BLOCK * block + BLOCK):
            rope(q, k, offset=place)

    decode(0)
    benchmark.group = "decoding, 32+8 x 128"
    contenders = {"in a block that is filled": lambda: decode(0)}
    measure(
        benchmark, lambda: decode(next(blocks)), contenders, case="growth", position=position, tokens_of_a_lap=BLOCK
    )


@pytest.mark.parametrize("walk", WALKS)
def test_longest_step(benchmark: Any, walk: str) -> None:
    """Decode from position 0 on, the models in turn; processor time of each step, as others' work is not ours."""
    pairs, factor, count = WALKS[walk]
    steps, tokens = ropes(pairs, factor, count), STEPS if benchmark.enabled else 2_000
    q = array((1, 2, 2 * pairs))
    ropes(pairs, factor, 1)[0](q, offset=0)  # compiles
    taken = np.zeros(tokens)

    def decode() -> None:
        for position in range(tokens):
            begin = time.thread_time()
            steps[position % count](q, offset=position)
            taken[position] = time.thread_time() - begin

    benchmark.group = f"the longest of {STEPS:,} steps"
    gc.freeze()  # so that no step's time holds a walk of Python's collector over pytest's own objects
    benchmark.pedantic(decode, rounds=1)
    gc.unfreeze()
    assert taken.sum() > 0.0
    longest = {"longest_us": taken.max() * 1e6, "of_10000_us": float(np.quantile(taken, 0.9999)) * 1e6}
    benchmark.extra_info.update(case="growth", walk=walk, steps=tokens, us=float(taken.mean()) * 1e6, **longest)


@pytest.mark.parametrize("asked", ["by every layer", "once, rope.at"])
@pytest.mark.parametrize("tokens", [512, 4096, 16_384])
def test_prompt_past_the_reserve(benchmark: Any, tokens: int, asked: str) -> None:
    """A prompt in some layers at positions that a table keeps no rows of, beside the same at positions of the table."""
    q, k = array((tokens, 32, 128)), array((tokens, 8, 128))
    (rope,) = ropes(64, 1.0, 1)
    layers = LAYERS if benchmark.enabled else 2
    starts = itertools.count(PAST, 1_000_003)

    def rotate(first: int) -> None:
        step = rope.at(offset=first, tokens=tokens)
        for _ in range(layers):
            if asked == "by every layer":
                rope(q, k, offset=first)
            else:
                step(q, k)

    rotate(100)
    benchmark.group = f"a prompt in {LAYERS} layers, past the reserve"
    contenders = {"within": lambda: rotate(100)}
    facts = {"case": "growth", "tokens": tokens, "asked": asked}
    measure(benchmark, lambda: rotate(next(starts)), contenders, **facts)


@pytest.mark.parametrize("positions", [4_096, 131_072, 1_000_000, 10_000_000])
def test_rows_of_all_positions(benchmark: Any, positions: int) -> None:
    """Ask for the rows of all positions, 4,096 at a time, in a process of its own; and see what memory it keeps."""
    told: list[tuple[float, dict[str, Any]]] = []
    asked = min(positions, 20_000) if not benchmark.enabled else min(positions, 1_000_000) if ROWS_ONLY else positions
    benchmark.group = "rows of all positions, head_dim 128 (whole processes)"
    benchmark.pedantic(lambda: told.append(run_once(("rows", asked))), rounds=1)
    seconds, seen = told[-1]
    assert seen["bytes"] <= 68 << 20
    benchmark.extra_info.update(case="growth", us=seconds * 1e6, **seen)
