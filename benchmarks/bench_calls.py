"""What Python costs: the public calls for one token beside the bare jitted call of the same kernel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from measure import LAYOUTS, array, measure

import rope_numba as rn
from rope_numba.kernels.launch import kernels_for

STORAGES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
CALLS = (
    "step(q, k)",
    "rope(q, k, offset=n)",
    "rope(q, k, offset=n), n new",
    "rope(q, k, positions=p)",
    "apply_rope(q, k)",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORAGES)
def test_call_overhead(benchmark: Any, dtype: str, layout: str, call: str) -> None:
    q, k = array((1, 32, 128), dtype), array((1, 8, 128), dtype)
    rope = rn.Rope(128, layout=layout)
    step, positions = rope.at(offset=777, tokens=1), np.array([777])
    step(q, k)
    kernel = kernels_for(STORAGES[dtype], layout).by_axes[3]
    seen = (q, k) if dtype == "float32" else (q.view(np.uint16), k.view(np.uint16))
    rows, told = step._rows32, step._told
    forward = itertools.cycle(range(778, 778 + 256))
    calls = {
        "step(q, k)": lambda: step(q, k),
        "rope(q, k, offset=n)": lambda: rope(q, k, offset=777),
        "rope(q, k, offset=n), n new": lambda: rope(q, k, offset=next(forward)),
        "rope(q, k, positions=p)": lambda: rope(q, k, positions=positions),
        "apply_rope(q, k)": lambda: rn.apply_rope(q, k, offset=777, layout=layout),
    }
    before = q.copy(), k.copy()
    expected = tuple(x.tobytes() for x in rope.at(offset=778 if "new" in call else 777, tokens=1)(*before))
    assert tuple(x.tobytes() for x in calls[call]()) == expected
    benchmark.group = "one token, 32+8 x 128: public calls beside the bare kernel"
    facts = {"case": "call", "call": call, "dtype": dtype, "layout": layout}
    measure(benchmark, calls[call], {"bare kernel": lambda: kernel(*seen, rows, told)}, **facts)
