"""Measure rotations next to processes that keep the processors busy, under each of Numba's threading layers.

    python benchmarks/busy.py [--processes N] [--seconds S] [--backoff]

Each line is a process of its own: milliseconds of a call, 10th percentile, median, mean and 99th percentile, first with
nothing next to it, then with N processes that do nothing but take time. `--backoff` adds lines without the serial work
that follows a launch which lost time (kernels/threads.py). Layers that cannot be loaded rotate on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

TOKENS = (128, 512, 4096)
LAYERS = {
    "one thread": {"NUMBA_NUM_THREADS": "1"},
    "GNU OpenMP": {"NUMBA_THREADING_LAYER": "omp"},
    "the same, passive": {"NUMBA_THREADING_LAYER": "omp", "OMP_WAIT_POLICY": "passive"},
    "TBB": {"NUMBA_THREADING_LAYER": "tbb"},
}
BETWEEN = 1 << 20  # bytes that are read between two calls


def measure_here(tokens: int, seconds: float, backoff: bool) -> None:
    """Print the figures of this process."""
    import rope_numba as rn
    from rope_numba.kernels import threads

    if not backoff:
        threads.BACKOFF = 0  # a launch that lost time has no effect
    q = np.random.default_rng(0).standard_normal((tokens, 32, 128), dtype=np.float32)
    k, between = q[:, :8].copy(), np.ones(BETWEEN // 4, np.float32)
    step = rn.Rope(128).at(offset=0, tokens=tokens)
    step(q, k)
    laps: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        step(q, k)
        laps.append(1e3 * (time.perf_counter() - begin))
        between.sum()
    tenth, median, last = np.percentile(laps, [10, 50, 99])
    print(json.dumps([tenth, median, float(np.mean(laps)), last]))


def measure(tokens: int, layer: dict[str, str], seconds: float, backoff: bool) -> list[float]:
    """Return the figures of a process of its own."""
    command = [sys.executable, __file__, "--here", str(tokens), "--seconds", str(seconds), *["--backoff"] * backoff]
    done = subprocess.run(command, env={**os.environ, **layer}, capture_output=True, text=True, check=True)
    figures: list[float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="rotations next to busy processes")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--backoff", action="store_true")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        measure_here(chosen.here, chosen.seconds, chosen.backoff)
        return
    print(f"milliseconds: 10 %, median, mean, 99 %       alone{'':28} next to {chosen.processes}")
    for tokens in TOKENS:
        for name, layer in LAYERS.items():
            for backoff in (False, True) if chosen.backoff and name != "one thread" else (True,):
                alone = measure(tokens, layer, chosen.seconds, backoff)
                others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(chosen.processes)]
                try:
                    busy = measure(tokens, layer, chosen.seconds, backoff)
                finally:
                    for other in others:
                        other.kill()
                        other.wait()
                words = f"{tokens:>5} tokens  {name}{'' if backoff else ', never serial'}"
                print(f"{words:42}", *(f"{figure:8.2f}" for figure in (*alone, *busy)), flush=True)


if __name__ == "__main__":
    main()
