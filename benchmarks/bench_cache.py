"""A KV cache: keys written into it as they are rotated, and moved in it, beside the ways without `out=` and `shift`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measure import DTYPES, LAYOUTS, array, measure, stream_of

import rope_numba as rn

TOKENS = 512


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_keys_into_a_cache(benchmark: Any, dtype: str, layout: str) -> None:
    """Q in place and k into the cache's dtype in one call, beside rotating, casting and copying."""
    q, k = array((TOKENS, 32, 128)), array((TOKENS, 8, 128))
    cache = np.zeros((4096, 8, 128), DTYPES[dtype])
    slots = cache[100 : 100 + TOKENS]
    step = rn.Rope(128, layout=layout).at(offset=0, tokens=TOKENS)
    expected = rn.Rope(128, layout=layout, backend="numpy")(k.copy(), offset=0).astype(DTYPES[dtype])
    step(q, k, out=(None, slots))
    assert slots.tobytes() == expected.tobytes()

    def apart() -> None:
        step(q, k)
        slots[...] = k.astype(slots.dtype)

    benchmark.group = "keys into a cache, 512 tokens of 32+8 x 128"
    facts = {"case": "cache", "dtype": dtype, "layout": layout}
    measure(benchmark, lambda: step(q, k, out=(None, slots)), {"rotate, cast, copy": apart}, **facts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_shift_of_a_cache(benchmark: Any, dtype: str, layout: str, threads: int) -> None:
    """All keys of one layer, moved by one number of positions, beside the stream of the same bytes."""
    keys = array((32_768, 8, 128), dtype)
    rope = rn.Rope(128, layout=layout)
    last = keys[-1:].copy()
    rn.Rope(128, layout=layout, backend="numpy").shift(last, -5)
    rope.shift(keys, -5)
    assert keys[-1:].tobytes() == last.tobytes()
    benchmark.group = "shift of 32768 tokens, 8 x 128"
    facts = {"case": "shift", "dtype": dtype, "layout": layout, "threads": threads}
    contenders = {"stream": stream_of(keys[:16_384], keys[16_384:], threads)}
    measure(benchmark, lambda: rope.shift(keys, -5), contenders, **facts)
