"""How the benchmarks measure: laps taken in turn, so that ratios hold on a machine whose speed wanders.

Before every lap of the subject comes one of each contender, on the same arrays; a figure is the median over the
laps, a ratio the median of each turn's ratio. Both go into pytest-benchmark's JSON as `extra_info`. `measure` repeats
one call; `measure_in_loop` lets a layer's weights pass between two calls.
"""

from __future__ import annotations

import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DTYPES",
    "LAYOUTS",
    "ROWS_ONLY",
    "SECONDS",
    "array",
    "bits",
    "measure",
    "measure_in_loop",
    "numpy_expression",
    "numpy_in_place",
    "numpy_rotation",
    "processor",
    "stream_of",
    "stream_of_columns",
    "write_between",
]

Call = Callable[[], Any]
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
LAYOUTS = ("interleaved", "half")
START = 16  # bytes past a multiple of 64 where arrays begin, as NumPy's own large ones do
LAP = 1e-3  # seconds that a lap takes, at least
SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "1"))  # that all turns of one benchmark take, about
WIDTH = 2048  # of the weights of measure_in_loop: 16 MiB of float32, more than a core's caches hold
ROWS_ONLY = SECONDS < 0.1  # that the rows are there is what counts, not their figures (.ci/run)
# Turns, at least; how often contenders are timed that take much longer than the subject; laps that find a call's time.
LEAST_TURNS, SLOW_TURNS, TRIALS = (2, 1, 1) if ROWS_ONLY else (15, 5, 3)


def measure(benchmark: Any, subject: Call, contenders: dict[str, Call] | None = None, **facts: Any) -> None:
    """Time a subject and its contenders in turn; where benchmarks run as tests, call the subject once."""
    benchmark.extra_info.update(facts)
    if not benchmark.enabled:
        benchmark.pedantic(subject)
        return
    contenders = contenders or {}
    inner = {name: _calls_of_a_lap(call) for name, call in {"": subject, **contenders}.items()}
    duration = {name: count[1] for name, count in inner.items()}
    slow = {name for name in contenders if duration[name] > 4 * duration[""] + LAP}
    turn = sum(taken for name, taken in duration.items() if name not in slow)
    rounds = int(min(200, max(LEAST_TURNS, SECONDS / turn)))
    laps: dict[str, list[float]] = {name: [] for name in contenders}

    def contend() -> None:
        for name, call in contenders.items():
            if name not in slow or len(laps[name]) < SLOW_TURNS:
                laps[name].append(_lap(call, inner[name][0]))

    benchmark.pedantic(_lap, args=(subject, inner[""][0]), setup=contend, rounds=rounds)
    own = [lap / inner[""][0] for lap in benchmark.stats.stats.data]
    benchmark.extra_info["calls_in_a_lap"] = inner[""][0]
    benchmark.extra_info["us"] = statistics.median(own) * 1e6
    benchmark.extra_info["contenders"] = {
        name: {
            "us": statistics.median(lap) * 1e6,
            "ratio": statistics.median(mine / theirs for mine, theirs in zip(own, lap, strict=False)),
        }
        for name, lap in laps.items()
    }


def measure_in_loop(
    benchmark: Any, subject: list[Call], contender: list[Call], fresh: list[NDArray[Any]], **facts: Any
) -> None:
    """Time a subject and what it replaces in turn, as a loop over layers sees them; without timing, call each once.

    Times are the processor's, of this thread, so neither may use other threads.
    Before each call a layer's weights pass through the caches, and `fresh` is written, as a layer's projections are. A
    hot loop finds code, tables and Python's objects in the first-level cache, which such a loop never does.
    """
    benchmark.extra_info.update(facts)
    if not benchmark.enabled:
        benchmark.pedantic(lambda: [call() for call in (*contender, *subject)])
        return
    weights, hidden = _values("float32", WIDTH**2).reshape(WIDTH, WIDTH), _values("float32", WIDTH)
    words = [bits(x) for x in fresh]

    def turn(calls: list[Call]) -> float:
        taken = 0.0
        for call in calls:
            weights @ hidden
            for x in words:
                np.add(x, x.dtype.type(0), out=x)
            begin = time.thread_time()  # not that of other programs, which a call of some milliseconds would meet
            call()
            taken += time.thread_time() - begin
        return taken

    begin = time.perf_counter()
    turn(contender), turn(subject)
    rounds = int(min(100, max(LEAST_TURNS, SECONDS / (time.perf_counter() - begin))))
    ours: list[float] = []
    theirs: list[float] = []
    benchmark.pedantic(
        lambda: ours.append(turn(subject)), setup=lambda: theirs.append(turn(contender)), rounds=rounds, warmup_rounds=0
    )
    benchmark.extra_info.update(
        us=statistics.median(ours) * 1e6,
        numpy_us=statistics.median(theirs) * 1e6,
        ratio=statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)),
    )


def _lap(call: Call, calls: int) -> float:
    repeats = range(calls)
    begin = time.perf_counter()
    for _ in repeats:
        call()
    return (time.perf_counter() - begin) / calls


def _calls_of_a_lap(call: Call) -> tuple[int, float]:
    """Return how many calls a lap takes, and its seconds."""
    call()
    one = max(min(_lap(call, 1) for _ in range(TRIALS)), 1e-7)
    calls = max(1, int(LAP / one))
    return calls, calls * one


def processor() -> str:
    """Return the processor's name, and those of its features that matter here."""
    name, flags = platform.processor(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        name, flags = fields.get("model name", name), fields.get("flags", "")
    features = [wanted for wanted in ("f16c", "fma", "avx2", "avx512f", "avx512_bf16") if wanted in flags.split()]
    return f"{name} ({', '.join(features)})" if features else name


def write_between(page: Path, begin: str, text: str, end: str) -> None:
    """Put a text between two marks of a file, instead of what is there."""
    before, _, rest = page.read_text().partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{page}: no marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


@functools.cache
def _values(dtype: str, size: int) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32).astype(DTYPES[dtype])


def array(shape: tuple[int, ...], dtype: str = "float32") -> NDArray[Any]:
    """Return random numbers that begin START bytes past a multiple of 64."""
    size = int(np.prod(shape))
    pattern = _values(dtype, 1 << 16)
    memory = np.empty(size * pattern.itemsize + 128, np.uint8)
    first = -memory.ctypes.data % 64 + START
    x: NDArray[Any] = memory[first : first + size * pattern.itemsize].view(DTYPES[dtype])
    whole = size // pattern.size * pattern.size
    x[:whole].reshape(-1, pattern.size)[...] = pattern
    x[whole:] = pattern[: size - whole]
    return x.reshape(shape)


def bits(x: NDArray[Any]) -> NDArray[Any]:
    """Return an array's memory as integers, or itself if it is float32 or float64."""
    return x.view(np.int16) if x.itemsize == 2 else x


# Unsigned indices: with signed ones Numba asks at each whether it is negative, and the loop is not vectorised.
@numba.njit(cache=True)
def _stream(a: NDArray[Any], b: NDArray[Any], columns: tuple[int, int, int, int], c: Any) -> None:
    for i in range(a.shape[0]):
        for j in range(columns[1] - columns[0]):
            a[i, np.uint64(columns[0] + j)] *= c
    for i in range(b.shape[0]):
        for j in range(columns[3] - columns[2]):
            b[i, np.uint64(columns[2] + j)] *= c


@numba.njit(cache=True, parallel=True)
def _stream_on_threads(a: NDArray[Any], b: NDArray[Any], columns: tuple[int, int, int, int], c: Any) -> None:
    for i in numba.prange(a.shape[0]):
        for j in range(columns[1] - columns[0]):
            a[i, np.uint64(columns[0] + j)] *= c
    for i in numba.prange(b.shape[0]):
        for j in range(columns[3] - columns[2]):
            b[i, np.uint64(columns[2] + j)] *= c


def stream_of(q: NDArray[Any], k: NDArray[Any], threads: int) -> Call:
    """Return `x *= 1` over the memory of q and k, contiguous arrays: what memory allows."""
    a, b = (x.reshape(x.shape[0], -1) for x in (q, k))
    return stream_of_columns(a, b, (0, a.shape[1], 0, b.shape[1]), threads)


def stream_of_columns(a: NDArray[Any], b: NDArray[Any], columns: tuple[int, int, int, int], threads: int) -> Call:
    """Return `x *= 1` over some columns of two contiguous arrays of two axes, which may be one array.

    Integers stand for 16-bit numbers: no arithmetic is as cheap.
    """
    elements = a.shape[0] * (columns[1] - columns[0] + columns[3] - columns[2])
    chosen = _stream_on_threads if threads > 1 and elements > 1 << 18 else _stream
    a, b = bits(a), bits(b)
    one = a.dtype.type(1)
    return lambda: chosen(a, b, columns, one)


def numpy_expression(q: NDArray[Any], k: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any], layout: str) -> Call:
    """Return the rotation as it is usually written in NumPy, into new arrays; 16-bit data by way of float32.

    cos and sin are of shape (tokens, pairs), with an axis of length 1 where the heads are.
    """
    if layout == "half":
        cos, sin = np.concatenate((cos, cos), -1), np.concatenate((sin, sin), -1)
    return lambda: (numpy_rotation(q, cos, sin, layout), numpy_rotation(k, cos, sin, layout))


def numpy_rotation(x: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any], layout: str = "half") -> NDArray[Any]:
    """Return x rotated as it is usually written in NumPy; for halves, cos and sin hold each number twice."""
    wide = x.astype(cos.dtype, copy=False)
    if layout == "half":
        middle = x.shape[-1] // 2
        turned = np.concatenate((-wide[..., middle:], wide[..., :middle]), -1)
        return (wide * cos + turned * sin).astype(x.dtype, copy=False)
    low, high = wide[..., ::2], wide[..., 1::2]
    pairs = np.stack((low * cos - high * sin, low * sin + high * cos), -1)
    return pairs.reshape(x.shape).astype(x.dtype, copy=False)


def numpy_in_place(q: NDArray[Any], k: NDArray[Any], cos: NDArray[Any], sin: NDArray[Any], layout: str) -> Call:
    """Return the rotation in NumPy with its scratch arrays made beforehand, written back in place."""

    def halves(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        middle = x.shape[-1] // 2
        return (x[..., :middle], x[..., middle:]) if layout == "half" else (x[..., ::2], x[..., 1::2])

    scratch = {id(x): [np.empty((*x.shape[:-1], x.shape[-1] // 2), cos.dtype) for _ in range(4)] for x in (q, k)}

    def rotate(x: NDArray[Any]) -> None:
        low, high = halves(x)
        a, b, first, second = scratch[id(x)]
        a[...], b[...] = low, high
        np.multiply(a, cos, out=first)
        np.multiply(b, sin, out=second)
        np.subtract(first, second, out=first)
        low[...] = first
        np.multiply(a, sin, out=a)
        np.multiply(b, cos, out=b)
        np.add(a, b, out=a)
        high[...] = a

    return lambda: (rotate(q), rotate(k))
