"""Time the rotation beside the in-place stream `x *= c` over the same bytes: what memory allows.

    python benchmarks/against_stream.py

Everything that a line compares is timed in turn, round after round, on the same arrays, so that a drift of the
machine's speed falls on all of it; a figure is the median over the rounds, a ratio the median of each round's ratios.
Arrays start 16 bytes past a multiple of 64, as NumPy's own large ones do; --start 0 aligns them. The ratios are the
result; the times are this machine's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numba
import numpy as np
from numpy.typing import NDArray

import rope_numba as rn
from rope_numba.kernels.launch import kernels_for

Call = Callable[[], Any]
START = 16
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
STORAGES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
LAYOUTS = ("interleaved", "half")


def compare(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """Time calls in turn; returns for each its median in microseconds and its median ratio to the first."""
    inner = {}
    for name, call in calls.items():
        call()
        begin = time.perf_counter()
        call()
        inner[name] = max(1, int(1e-3 / max(time.perf_counter() - begin, 1e-7)))
    laps: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            repeats = range(inner[name])
            begin = time.perf_counter()
            for _ in repeats:
                call()
            laps[name].append((time.perf_counter() - begin) / inner[name] * 1e6)
    first = laps[next(iter(laps))]
    return {
        name: (statistics.median(lap), statistics.median(a / b for a, b in zip(lap, first, strict=True)))
        for name, lap in laps.items()
    }


@numba.njit(cache=True)
def stream(a: NDArray[Any], b: NDArray[Any], c: Any) -> None:
    """Multiply two flat arrays in place, on one thread."""
    for i in range(a.size):
        a[i] *= c
    for i in range(b.size):
        b[i] *= c


@numba.njit(cache=True, parallel=True)
def stream_on_threads(a: NDArray[Any], b: NDArray[Any], c: Any) -> None:
    """Multiply two flat arrays in place, on all threads."""
    for i in numba.prange(a.size):
        a[i] *= c
    for i in numba.prange(b.size):
        b[i] *= c


def arrays(tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str = "float32") -> tuple[Any, Any]:
    """Return random q and k."""
    return array((tokens, heads, head_dim), dtype), array((tokens, kv_heads, head_dim), dtype)


def array(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return random numbers that begin START bytes past a multiple of 64."""
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(DTYPES[dtype])
    memory = np.empty(values.nbytes + 128, np.uint8)
    first = -memory.ctypes.data % 64 + START
    x = memory[first : first + values.nbytes].view(DTYPES[dtype]).reshape(shape)
    x[...] = values
    return x


def stream_of(q: NDArray[Any], k: NDArray[Any], threads: int) -> Call:
    """Return the stream over the bytes of q and k."""
    kind = np.float32 if q.itemsize == 4 else np.int16
    a, b = q.reshape(-1).view(kind), k.reshape(-1).view(kind)
    chosen = stream_on_threads if threads > 1 and a.size + b.size > 1 << 18 else stream
    return lambda: chosen(a, b, kind(1))


def rotation(q: NDArray[Any], k: NDArray[Any], layout: str, order: str = "thd") -> Call:
    """Return the rotation of q and k, positions prepared."""
    tokens = q.shape[0 if order == "thd" else 1]
    step = rn.Rope(q.shape[-1], layout=layout, order=order).at(offset=0, tokens=tokens)
    return lambda: step(q, k)


def line(words: str, parts: Iterable[str]) -> None:
    """Print a line of the table."""
    print(f"  {words:34}", *(f"{part:>30}" for part in parts), flush=True)


def call_overhead(rounds: int) -> None:
    """Compare a prepared step, and a call with an offset, with the bare jitted call of the same kernel."""
    print("\nOne token, 32+8 heads x 128: microseconds, and times the bare jitted call")
    for dtype in DTYPES:
        for layout in LAYOUTS:
            q, k = arrays(1, 32, 8, 128, dtype)
            rope = rn.Rope(128, layout=layout)
            step = rope.at(offset=777, tokens=1)
            step(q, k)
            kernel = kernels_for(STORAGES[dtype], layout).serial[3]
            bits = (q, k) if dtype == "float32" else (q.view(np.uint16), k.view(np.uint16))
            rows, told = step._rows32, step._told
            found = compare(
                {
                    "bare": lambda kernel=kernel, bits=bits, rows=rows, told=told: kernel(*bits, rows, told),
                    "step(q, k)": lambda step=step, q=q, k=k: step(q, k),
                    "rope(q, k, offset=n)": lambda rope=rope, q=q, k=k: rope(q, k, offset=777),
                },
                rounds,
            )
            line(f"{dtype} {layout}", (f"{name} {us:.2f} ({ratio:.2f})" for name, (us, ratio) in found.items()))


def against_stream(rounds: int, threads: int) -> None:
    """Compare prompts with the stream, in all layouts and dtypes."""
    print(f"\nPrompts on {threads} thread{'s' * (threads > 1)}: microseconds, and times the stream of the same bytes")
    for heads, kv_heads, head_dim in ((32, 8, 128), (9, 3, 64)):
        for dtype in DTYPES:
            for tokens in (64, 512, 4096):
                q, k = arrays(tokens, heads, kv_heads, head_dim, dtype)
                calls = {"stream": stream_of(q, k, threads)} | {name: rotation(q, k, name) for name in LAYOUTS}
                found = compare(calls, rounds)
                words = f"{dtype} {heads}+{kv_heads} x {head_dim}, {tokens} tokens"
                line(words, (f"{name} {us:.1f} ({ratio:.2f})" for name, (us, ratio) in found.items()))


def widths_and_orders(rounds: int) -> None:
    """Compare head widths and the order of axes with 128 channels and order "thd", per byte."""
    print("\nHead widths, float32, 64 tokens, one thread: time per byte, times that of head_dim 128")
    for layout in LAYOUTS:
        q, k = arrays(64, 32, 8, 128)
        calls, sizes = {"128": rotation(q, k, layout)}, {"128": q.size + k.size}
        for head_dim in (64, 80, 96, 112, 256, 512):
            heads = 5120 * 4 // 5 // head_dim
            q, k = arrays(64, heads, max(1, heads // 4), head_dim)
            calls[str(head_dim)], sizes[str(head_dim)] = rotation(q, k, layout), q.size + k.size
        found = compare(calls, rounds)
        line(layout, (f"{name}: {found[name][1] * sizes['128'] / sizes[name]:.2f}" for name in calls))
    print('\nOrder "htd", float32, 32+8 heads x 128, one thread: times order "thd"')
    for layout in LAYOUTS:
        parts = []
        for tokens in (64, 512, 4096):
            q, k = arrays(tokens, 32, 8, 128)
            q_htd, k_htd = array((32, tokens, 128), "float32"), array((8, tokens, 128), "float32")
            found = compare({"thd": rotation(q, k, layout), "htd": rotation(q_htd, k_htd, layout, "htd")}, rounds)
            parts.append(f"{tokens} tokens: {found['htd'][1]:.2f}")
        line(layout, parts)


def sixteen_bits(rounds: int) -> None:
    """Compare 16-bit data with float32 data."""
    threads = numba.get_num_threads()
    print(f"\n16-bit data, 4096 tokens of 32+8 heads x 128, {threads} threads: times float32")
    for layout in LAYOUTS:
        found = compare({name: rotation(*arrays(4096, 32, 8, 128, name), layout) for name in DTYPES}, rounds)
        line(layout, (f"{name} {us:.0f} us ({ratio:.2f})" for name, (us, ratio) in found.items()))


def main() -> None:
    """Print the whole table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="rounds that every comparison takes (default 40)")
    parser.add_argument("--start", type=int, default=16, help="bytes past a multiple of 64 where arrays begin (16)")
    chosen = parser.parse_args()
    rounds = chosen.rounds
    global START
    START = chosen.start
    most = numba.get_num_threads()
    numba.set_num_threads(1)
    call_overhead(rounds)
    widths_and_orders(rounds)
    against_stream(rounds, 1)
    if most > 1:
        numba.set_num_threads(most)
        against_stream(rounds, most)
        sixteen_bits(rounds)


if __name__ == "__main__":
    main()
