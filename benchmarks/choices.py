"""Measure what the kernels' constants are worth: each choice against the same work without it.

    python benchmarks/choices.py [--rounds N] [--only TEXT]

Each line has two figures, with the value in the sources and with another one: the time of a call, as times that of
`x *= 1` on the same arrays, which is timed in turn. Values are compared in processes of their own, a few times over;
figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# What is measured: (tokens, heads of q, heads of k, head_dim), order, dtype, layout, threads.
Case = tuple[tuple[int, int, int, int], str, str, str, int]
WHOLE, WIDE, MANY = (4096, 32, 8, 128), (4096, 16, 4, 256), (64, 32, 8, 128)

# Each choice: the constants that undo or change it, and the cases that it is for.
CHOICES: dict[str, tuple[dict[str, int], list[Case]]] = {
    "no peeling": (
        {"panel.NUMPY_STARTS": 8},
        [(MANY, "thd", "float32", layout, 1) for layout in ("interleaved", "half")],
    ),
    "no prefetch": (
        {"panel.PREFETCH_MIN_PAIRS": 1 << 20},
        [(WIDE, "thd", "float32", "half", 1), (WHOLE, "htd", "float32", "interleaved", 1)],
    ),
    "prefetch from gaps of 128 bytes on": (
        {"panel.PREFETCH_MIN_GAP": 128},
        [(WHOLE, "thd", "float32", "half", 1), (MANY, "thd", "float32", "half", 1)],
    ),
    "heads outside tokens one by one": (
        {"walk.GROUP_HEADS": 1, "walk.BLOCK_TOKENS": 1 << 40},
        [(WHOLE, "htd", "float32", "interleaved", 1)],
    ),
    "groups of 8 heads, 32 tokens": (
        {"walk.GROUP_HEADS": 8, "walk.BLOCK_TOKENS": 32},
        [(WHOLE, "htd", "float32", "interleaved", 1)],
    ),
    "q and k never in turn": (
        {"walk.LARGE_BYTES": 1 << 60},
        [(WHOLE, "thd", "float32", "interleaved", threads) for threads in (1, 2)],
    ),
    "one register where members swap": ({"panel.SWAPPED_REGISTERS": 1}, [(MANY, "thd", "float32", "interleaved", 1)]),
    "two registers where members are parted": ({"panel.PARTED_REGISTERS": 2}, [(MANY, "thd", "float32", "half", 1)]),
    "one register of packed bfloat16": ({"panel.PACKED_REGISTERS": 1}, [(MANY, "thd", "bfloat16", "half", 1)]),
    "four registers of packed bfloat16": ({"panel.PACKED_REGISTERS": 4}, [(MANY, "thd", "bfloat16", "half", 1)]),
}


def measure_here(constants: dict[str, int], case: Case) -> float:
    """Return the median ratio of a call to the stream, in this process, with some constants of the kernels changed."""
    import ml_dtypes
    import numba

    import rope_numba as rn
    from rope_numba.kernels import panel, walk

    for name, value in constants.items():
        module, _, constant = name.partition(".")
        setattr({"panel": panel, "walk": walk}[module], constant, value)
    (tokens, q_heads, k_heads, head_dim), order, dtype, layout, threads = case
    numba.set_num_threads(threads)
    rng = np.random.default_rng(0)
    arrays = []
    for heads in (q_heads, k_heads):
        shape = (tokens, heads, head_dim) if order == "thd" else (heads, tokens, head_dim)
        numbers = rng.standard_normal(shape, np.float32)
        arrays.append(numbers.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else numbers)
    q, k = arrays
    step = rn.Rope(head_dim, layout=layout, order=order).at(offset=0, tokens=tokens)
    words = [x.view(np.uint16) if x.itemsize == 2 else x for x in arrays]

    def stream() -> None:
        for x in words:
            x *= 1

    return statistics.median(ratios(lambda: step(q, k), stream))


def ratios(call: Callable[[], Any], other: Callable[[], Any]) -> list[float]:
    """Return the ratios of the times of two calls that are made in turn, over a second."""
    for _ in range(3):
        call()
        other()
    found, stop = [], time.perf_counter() + 1
    while time.perf_counter() < stop or len(found) < 5:
        begin = time.perf_counter()
        call()
        between = time.perf_counter()
        other()
        found.append((between - begin) / (time.perf_counter() - between))
    return found


def measure(constants: dict[str, int], case: Case) -> float:
    """Return the same, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([constants, case])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a line for each choice and case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="choices whose name has this text")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        constants, (shape, *rest) = json.loads(arguments.child)
        print(measure_here(constants, (tuple(shape), *rest)))
        return
    for name, (constants, cases) in CHOICES.items():
        for case in cases if arguments.only in name else []:
            pairs = [(measure(constants, case), measure({}, case)) for _ in range(arguments.rounds + 1)][1:]  # compiled
            changed, usual = (statistics.median(figures) for figures in zip(*pairs, strict=True))
            (tokens, q_heads, k_heads, head_dim), order, dtype, layout, threads = case
            what = f"{tokens} x {q_heads}+{k_heads} x {head_dim}, {order}, {dtype}, {layout}, {threads} thread(s)"
            print(f"{name:40} {what:62} {usual:.2f}, {changed:.2f}", flush=True)


if __name__ == "__main__":
    main()
