"""Memory: tables keep to their bounds whatever positions come, and neither calls nor Ropes leave anything behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run

import rope_numba as rn
from rope_numba import tables

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")

MEASURE = """
import gc
PAGE = os.sysconf("SC_PAGE_SIZE")
def megabytes():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE / 2**20
"""

places = st.one_of(
    st.tuples(st.just("at"), st.integers(-200, 9_000), st.integers(0, 600)),
    st.tuples(st.just("at"), st.integers(-(2**53), 2**53 - 70), st.integers(0, 70)),
    st.tuples(st.just("tables"), st.integers(0, 900), st.just(0)),
    st.tuples(st.just("call"), st.integers(-200, 2**40), st.integers(0, 5)),
    st.tuples(st.just("gather"), st.integers(0, 2**32), st.integers(0, 40)),
)


@settings(max_examples=100)
@given(
    steps=st.lists(
        st.tuples(places, st.sampled_from([2, 8, 64, 600]), st.integers(0, 4), st.booleans()), min_size=1, max_size=12
    )
)
def test_tables_keep_to_their_bounds_whatever_positions_come(steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_tables", {})
        for name, bound in (
            ("TABLE_BYTES", 64 << 10),
            ("TOTAL_BYTES", 192 << 10),
            ("MOST_TABLES", 5),
            ("BEYOND_BYTES", 16 << 10),
        ):
            patch.setattr(tables, name, bound)
        for (kind, start, length), head_dim, scheme, double in steps:
            frequencies = rn.frequencies.default(head_dim, 10_000.0 + scheme)
            rope = rn.Rope(head_dim, frequencies=frequencies, backend="numpy")
            dtype = np.float64 if double else np.float32
            if kind == "at":
                step = rope.at(offset=start, tokens=length)
                step(np.ones((length, 1, head_dim), dtype))
                rows, positions = step._rows32[0], np.arange(start, start + length)
            elif kind == "tables":
                rows = np.stack(rope.tables(start), axis=1)
                positions = np.arange(start)
            elif kind == "call":
                rope(np.ones((length, 1, head_dim), dtype), offset=start)
                rows, positions = np.empty((0, 2, head_dim // 2), np.float32), np.arange(0)
            else:
                positions = np.random.default_rng(start).integers(0, 12_000, length)
                rows = rope.at(positions=positions)._rows32[0]
            few = np.unique(np.linspace(0, len(positions) - 1, 5).astype(int)) if len(positions) else slice(0)
            assert_same_bits(rows[few], tables.compute(positions[few], frequencies, np.dtype(np.float32)))
            held = list(tables._tables.values())
            rows_kept = [table.memory[1].count(1) * table.block_bytes + table.beyond[1].nbytes for table in held]
            assert all(kept <= table.bytes for kept, table in zip(rows_kept, held, strict=True))
            assert all(kept <= 128 << 10 for kept in rows_kept)  # the reserve, and a last block past it
            assert len(held) <= 5
            assert sum(rows_kept) <= 192 << 10
            assert not any(table.dropped for table in held)


@needs_proc
@pytest.mark.process
@pytest.mark.parametrize("huge_pages", ["0", "1"])
def test_the_memory_of_the_process_keeps_to_the_bound_of_all_tables(
    huge_pages: str, warm_cache: dict[str, str]
) -> None:
    # Scattered positions touch a page of memory each, which is 2 MiB where the kernel gives large ones: blocks of
    # 32 KiB once took 1.2 GiB, and were counted as 20 MiB.
    code = """
from rope_numba import tables
rng, most = np.random.default_rng(0), 0.0
rn.Rope(64, backend="numpy").at(offset=0, tokens=100)
before = megabytes()
for number in range(60):
    rope = rn.Rope((64, 128, 256)[number % 3], theta=10_000.0 + number, backend="numpy")
    for position in rng.integers(0, 300_000, 30).tolist():
        rope.at(offset=position, tokens=1)
    rope.at(positions=rng.integers(0, 60_000, 30))
    rope(np.ones((1, 1, rope.head_dim)), offset=int(rng.integers(0, 60_000)))
    most = max(most, megabytes() - before)
bound = tables.TOTAL_BYTES >> 20
print(bound, most < bound + 16, most)
"""
    printed = run(MEASURE + code, warm_cache, NUMPY_MADVISE_HUGEPAGE=huge_pages).split()
    assert printed[:2] == ["256", "True"], printed


CALLS = {
    "a prepared step": "step = rope.at(offset=70, tokens=1)\ndef call(n): step(q, k)",
    "offset": "def call(n): rope(q, k, offset=n & 4095)",
    "positions": "def call(n): rope(q, k, positions=[n & 4095])",
    "positions that are scattered and negative": "def call(n): rope(q, k, positions=[(n * 7919) % 200_000 - 1000])",
    "another Rotation": "def call(n): rope.at(offset=n & 4095, tokens=1)(q)",
    "float64, out=, inverse and shift": """
wide, target = q.astype(np.float64), np.empty_like(q)
def call(n):
    rope(wide, offset=n & 4095)
    rope(q, offset=n & 4095, out=target)
    rope.inverse(q, offset=n & 4095)
    rope.shift(k, n % 100 - 50)
""",
    "refused arrays": """
bad = q[:, :, ::2], q.astype(np.int32), [[1.0]], None, q[:, :, :32], np.broadcast_to(q, (1, 9, 64))
def call(n):
    try:
        step(bad[n % 6], k)
    except (TypeError, ValueError):
        return
    raise AssertionError(n)
step = rope.at(offset=70, tokens=1)
""",
    "refused positions": """
bad = dict(offset=1.5), dict(offset=2**60), dict(positions=[1.0]), dict(positions=[[1], [2, 3]]), dict(positions=[True])
def call(n):
    try:
        rope(q, k, **bad[n % 5])
    except (TypeError, ValueError):
        return
    raise AssertionError(n)
""",
    "apply_rope": "def call(n): rn.apply_rope(q, k, offset=n & 4095, theta=10_000.0 + (n & 1))",
}


@needs_proc
@pytest.mark.process
def test_a_million_calls_of_every_kind_leave_nothing_behind(warm_cache: dict[str, str]) -> None:
    # Mostly what a decode loop does; memory in use may not grow by 1 MiB over all of them.
    code = f"""
import json
rope = rn.Rope(64)
q, k = np.zeros((1, 9, 64), np.float32), np.zeros((1, 3, 64), np.float32)
rope.at(offset=0, tokens=4096)
rope(q.astype(np.float64), offset=4095)
calls = []
for kind, code in {CALLS!r}.items():
    names = dict(rope=rope, q=q, k=k, np=np, rn=rn)
    exec(code, names)
    calls.append(names["call"])
def repeat(often, seldom):
    for place, call in enumerate(calls):
        for n in range(often if place < 2 else seldom):
            call(n)
repeat(8_192, 8_192)
before = megabytes()
assert 2 * 360_000 + 40_000 * (len(calls) - 2) == 1_000_000
repeat(360_000, 40_000)
print(round(megabytes() - before, 3))
"""
    assert float(run(MEASURE + code, warm_cache, timeout=400)) <= 1.0


LIMITED = """
import resource
from rope_numba import tables
float32 = np.dtype(np.float32)
def virtual():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * PAGE
def right(rope, first, tokens, limit=resource.RLIM_INFINITY):
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        rows = rope.at(offset=first, tokens=tokens)._rows32[0]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    positions = np.arange(first, first + tokens)
    return rows.tobytes() == tables.compute(positions, rope.frequencies, float32).tobytes()
rn.Rope(64, backend="numpy").at(offset=0, tokens=10_000)
"""


@needs_proc
def test_ropes_work_under_a_limit_of_address_space_and_take_no_more_than_they_fill(warm_cache: dict[str, str]) -> None:
    # 34 Ropes once reserved 2 GiB for some positions each.
    code = """
before = virtual()
ropes = [rn.Rope(128, theta=1_000.0 + n, backend="numpy") for n in range(100)]
good = all(right(rope, 7, 10) for rope in ropes)
grown = virtual() - before
limit = virtual() + (16 << 20)
for first in (2_000, 20_000, 100_000):
    good = good and all(right(rope, first, 100, limit) for rope in ropes[:20])
print(good, grown < 80 << 20, grown >> 20)
"""
    printed = run(MEASURE + LIMITED + code, warm_cache).split()
    assert printed[:2] == ["True", "True"], printed


@needs_proc
def test_tables_that_are_held_in_memory_stay_under_the_bound_of_all_tables(warm_cache: dict[str, str]) -> None:
    # mlockall makes all that is reserved from then on resident: 20 Ropes once took 1.6 GiB.
    code = """
import ctypes
locked = ctypes.CDLL(None, use_errno=True).mlockall(3)  # MCL_CURRENT | MCL_FUTURE
if locked:
    print("mlockall:", os.strerror(ctypes.get_errno()))
    raise SystemExit
before = megabytes()
good = all(right(rn.Rope(128, theta=1_000.0 + n, backend="numpy"), 7, 10) for n in range(20))
few = megabytes() - before
good = good and all(right(rn.Rope(128, theta=1_000.0 + n, backend="numpy"), 100_000, 10) for n in range(20))
print(good, few < 32, megabytes() - before < (tables.TOTAL_BYTES >> 20) + 16, few, megabytes() - before)
"""
    printed = run(MEASURE + LIMITED + code, {**warm_cache, "OPENBLAS_NUM_THREADS": "1"})
    if printed.startswith("mlockall:"):
        pytest.skip(f"this user may not lock memory ({printed})")
    assert printed.split()[:3] == ["True", "True", "True"], printed


@needs_proc
@pytest.mark.process
def test_a_rope_per_request_grows_no_cache(warm_cache: dict[str, str]) -> None:
    # Other frequencies in each request, and every function, dict, list and set of the package's modules looked at.
    # Without large pages of memory, which the kernel gives or not as it pleases: within the bound, but never flat.
    code = """
from rope_numba import tables
def request(n):
    q = np.zeros((1, 2, 64), np.float32)
    rn.Rope(64, theta=10_000.0 + n)(q, offset=n % 300_000)
    rn.Rope(64, frequencies=rn.frequencies.default(64, 30_000.0 + n)).at(positions=[n])(q.astype(float))
    rn.apply_rope(q, offset=3, theta=20_000.0 + n)
def sizes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "rope_numba":
            for what, value in vars(module).items():
                if isinstance(value, (dict, list, set)):
                    found[name, what] = len(value)
                elif hasattr(value, "cache_info") and what != "pi":  # by an exponent of float64: some 2,000 at most
                    found[name, what] = value.cache_info().currsize
    return found
for n in range(400):
    request(n)
before, sizes_before = megabytes(), sizes()
for n in range(400, 6_400):
    request(n)
grown = {what: (sizes_before.get(what), size) for what, size in sizes().items() if size > sizes_before.get(what, 0)}
print(grown, len(tables._tables) <= tables.MOST_TABLES, megabytes() - before < 8)
"""
    assert run(MEASURE + code, warm_cache, timeout=300, NUMPY_MADVISE_HUGEPAGE="0") == "{} True True"
