"""What Python costs: the public calls for one token beside the bare jitted call of the same kernel."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from measure import LAYOUTS, SECONDS, array, measure, numpy_expression, numpy_in_place

import rope_numba as rn
from rope_numba.kernels.launch import in_place_for

STORAGES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
CALLS = (
    "step(q, k)",
    "rope(q, k, offset=n)",
    "rope(q, k, offset=n), n new",
    "rope(q, k, positions=p)",
    "apply_rope(q, k)",
    "step(q, k, out=(None, cache[n]))",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORAGES)
def test_call_overhead(benchmark: Any, dtype: str, layout: str, call: str) -> None:
    q, k, cache = array((1, 32, 128), dtype), array((1, 8, 128), dtype), array((64, 8, 128), dtype)
    rope = rn.Rope(128, layout=layout)
    step, positions = rope.at(offset=777, tokens=1), np.array([777])
    step(q, k)
    kernel = in_place_for(STORAGES[dtype], layout).get()
    rows, flags = step._rows32, step._flags
    forward = itertools.cycle(range(778, 778 + 256))
    calls = {
        "step(q, k)": lambda: step(q, k),
        "rope(q, k, offset=n)": lambda: rope(q, k, offset=777),
        "rope(q, k, offset=n), n new": lambda: rope(q, k, offset=next(forward)),
        "rope(q, k, positions=p)": lambda: rope(q, k, positions=positions),
        "apply_rope(q, k)": lambda: rn.apply_rope(q, k, offset=777, layout=layout),
        "step(q, k, out=(None, cache[n]))": lambda: step(q, k, out=(None, cache[7:8])),
    }
    before = q.copy(), k.copy()
    expected = tuple(x.tobytes() for x in rope.at(offset=778 if "new" in call else 777, tokens=1)(*before))
    assert tuple(x.tobytes() for x in calls[call]()) == expected
    benchmark.group = "one token, 32+8 x 128: public calls beside the bare kernel"
    facts = {"case": "call", "call": call, "dtype": dtype, "layout": layout}
    measure(benchmark, calls[call], {"bare kernel": lambda: kernel(q, k, rows, flags)}, **facts)


BATCHES = (8, 64)
OF_BATCHES = ("step(q, k)", "rope(q, k, positions=p)", "rope(q, k, positions=p), p new", "rope.at(positions=p)")


@pytest.mark.parametrize("call", OF_BATCHES)
@pytest.mark.parametrize("tokens", BATCHES)
def test_a_batch_at_places_of_its_own(benchmark: Any, tokens: int, call: str) -> None:
    """One token for each of some sequences: every layer asks for the same positions, the next pass for others."""
    q, k = array((tokens, 32, 128)), array((tokens, 8, 128))
    rope, places = rn.Rope(128), np.random.default_rng(0).integers(0, 8192, tokens)
    passes = itertools.cycle([(places + step) % 8192 for step in range(64)])
    step = rope.at(positions=places)
    calls: dict[str, Callable[[], Any]] = {
        "step(q, k)": lambda: step(q, k),
        "rope(q, k, positions=p)": lambda: rope(q, k, positions=places),
        "rope(q, k, positions=p), p new": lambda: rope(q, k, positions=next(passes)),
        "rope.at(positions=p)": lambda: rope.at(positions=next(passes)),
    }
    calls[call]()
    for _ in range(64):  # the rows of all these places
        rope.at(positions=next(passes))
    benchmark.group = "a batch at places of its own, 32+8 x 128, float32, interleaved"
    measure(benchmark, calls[call], case="batch", tokens=tokens, call=call)


BESIDE = (
    "step(q, k)",
    "rope(q, k, offset=n)",
    "step(q, k, out=(None, cache[n]))",
    "NumPy in place",
    "NumPy expression",
)


@pytest.mark.parametrize("call", BESIDE)
def test_beside_a_busy_thread(benchmark: Any, call: str) -> None:
    """The mean of many calls alone, and while another thread computes in Python, which asks for the lock all the time.

    A mean, as what is lost to the other thread comes in pieces of 5 ms.
    """
    q, k, cache = array((1, 32, 128)), array((1, 8, 128)), array((64, 8, 128))
    rope = rn.Rope(128)
    step, (cos, sin) = rope.at(offset=777, tokens=1), (table[777:778, None] for table in rope.tables(778))
    calls = {
        "step(q, k)": lambda: step(q, k),
        "rope(q, k, offset=n)": lambda: rope(q, k, offset=777),
        "step(q, k, out=(None, cache[n]))": lambda: step(q, k, out=(None, cache[7:8])),
        "NumPy in place": numpy_in_place(q, k, cos, sin, "interleaved"),
        "NumPy expression": numpy_expression(q, k, cos, sin, "interleaved"),
    }
    calls[call]()
    seconds = SECONDS if benchmark.enabled else 0.001
    alone = mean_over(seconds / 4, calls[call])
    done = threading.Event()
    other = threading.Thread(target=compute_until, args=(done,), daemon=True)
    other.start()
    benchmark.group = "one token, 32+8 x 128, beside a thread that is busy in Python"
    try:
        beside = benchmark.pedantic(mean_over, args=(seconds, calls[call]), rounds=1)
    finally:
        done.set()
    other.join()
    benchmark.extra_info.update(case="call", call=call, us=beside * 1e6, alone_us=alone * 1e6)


def compute_until(done: threading.Event) -> None:
    """Keep Python busy."""
    count = 0
    while not done.is_set():
        count += 1


def mean_over(seconds: float, call: Callable[[], Any]) -> float:
    """Return the mean time of as many calls as fit into so many seconds."""
    begin, calls, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        for _ in range(10):
            call()
        calls, passed = calls + 10, time.perf_counter() - begin
    return passed / calls
