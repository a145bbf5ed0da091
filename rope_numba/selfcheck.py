"""What `python -m rope_numba` does: compare the kernels with NumPy on this machine, bit for bit, and time them.

Where a call falls back to the rotation in NumPy, NumPy would be compared with itself. So a comparison counts the calls
of that rotation: there is none while a kernel is to rotate, and there is one while NumPy is.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__, forks, reference
from .installed import folder
from .kernels import why_unavailable
from .literals import Layout, Order
from .numbers import counted
from .rope import Rope

__all__ = ["DTYPES", "LAYOUTS", "compare", "describe_machine", "timings"]

LAYOUTS: tuple[Layout, ...] = ("interleaved", "half")
ORDERS: tuple[Order, ...] = ("thd", "htd")
DTYPES = ("float32", "float64", "float16", "bfloat16")

# (head_dim, rotary_dim, rotary_offset): whole heads, a block inside a head, panels of every width.
WIDTHS = ((64, 64, 0), (128, 128, 0), (80, 80, 0), (18, 14, 2), (2, 2, 0), (300, 258, 42))
PLACES: tuple[dict[str, Any], ...] = (
    {"offset": 0},
    {"offset": 10_000_000},
    {"offset": -5},
    {"positions": np.array([3, 0, -(10**6), 2**53, 4095, 131_072, 7])},
)


def describe_machine() -> dict[str, str]:
    """Return what runs where: versions, files, processor, vectors, threads, and where compiled code is kept.

    Where compiled kernels do not run, "kernels" is the reason.
    """
    machine = {
        "rope_numba": __version__,
        "files": folder(),
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
    }
    reason = why_unavailable()
    if reason:
        machine["kernels"] = f"none: {reason}"
    if forks.can_import():
        with contextlib.suppress(ImportError, OSError):  # Numba cannot be imported, which is the reason
            from .kernels import compile as compiling
            from .kernels import launch

            machine |= {**compiling.describe(), "threads": launch.describe_threads()}
    return machine


def compare(dtype: str, layout: Layout, *, large: bool = True) -> tuple[int, list[str]]:
    """Rotate the same arrays by the kernels and by NumPy; large ones too, which are shared out among threads.

    Returns
    -------
    int, list of str
        Number of calls, and in words those that failed: they gave other bits, or NumPy rotated instead of a kernel.

    Raises
    ------
    RuntimeError
        If compiled kernels do not run in this process.
    """
    _require_kernels()
    calls, failed = 0, []
    rng = np.random.default_rng(0)
    for (head_dim, rotary_dim, rotary_offset), order in itertools.product(WIDTHS, ORDERS):
        rope = Rope(
            head_dim,
            theta=500_000.0,
            rotary_dim=rotary_dim,
            rotary_offset=rotary_offset,
            layout=layout,
            order=order,
        )
        kinds = [(7, arrangement, where) for arrangement in ("apart", "packed", "reversed") for where in PLACES]
        if large:
            kinds.append((1 + 2**18 // (5 * head_dim), "apart", {"offset": 777}))
        for tokens, arrangement, where in kinds:
            memory = _random(rng, dtype, (tokens, 10, head_dim))
            mine, numpys = memory.copy(), memory.copy()
            with _numpy_rotations() as instead:
                _rotate(rope, dtype, _views(mine, arrangement, order), where)
            twin = _with_backend(rope, "numpy")
            with _numpy_rotations() as expected:
                _rotate(twin, dtype, _views(numpys, arrangement, order), where)
            calls += 1
            call = f"{rope!r}, {tokens} tokens, {arrangement}, {where}"
            if instead:
                failed.append(f"NumPy rotated instead of the kernel: {call}")
            elif not expected:
                failed.append(f"NumPy did not rotate what the kernel is compared with: {call}")
            elif not same_bits(mine, numpys, dtype):
                failed.append(f"other bits: {call}")
    return calls, failed


def _require_kernels() -> None:
    reason = why_unavailable()
    if reason:
        raise RuntimeError(f"compiled kernels do not run here: {reason}")


@contextlib.contextmanager
def _numpy_rotations() -> Iterator[list[str]]:
    """Collect the storage of every array that the function behind all rotations in NumPy rotates, in any thread."""
    rotated: list[str] = []
    original = reference.move_stored

    def record(source: str, *others: Any) -> None:
        rotated.append(source)
        original(source, *others)

    reference.move_stored = record  # type: ignore[assignment]
    try:
        yield rotated
    finally:
        reference.move_stored = original


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return random numbers with infinities, NaNs and subnormals among them; bfloat16 as its bits in uint16."""
    values = rng.standard_normal(shape, dtype=np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -1e-7, 6e4, -3e38], np.float32)
    places = rng.integers(0, values.size, values.size // 50)
    values.reshape(-1)[places] = rng.choice(special, places.size)
    if dtype == "bfloat16":
        return reference.float32_to_bfloat16(values)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _views(memory: NDArray[Any], arrangement: str, order: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return q of 6 and k of 2 heads in memory of (tokens, 10, head_dim)."""
    if arrangement == "apart":
        size = memory.size // 10
        q, k = memory.reshape(-1)[: 6 * size], memory.reshape(-1)[6 * size : 8 * size]
        tokens, _, head_dim = memory.shape
        if order == "htd":
            return q.reshape(6, tokens, head_dim), k.reshape(2, tokens, head_dim)
        return q.reshape(tokens, 6, head_dim), k.reshape(tokens, 2, head_dim)
    q, k = memory[:, :6], memory[:, 6:8]
    if arrangement == "reversed":
        q, k = q[::-1], k[:, ::-1]
    return (q, k) if order == "thd" else (q.swapaxes(0, 1), k.swapaxes(0, 1))


def _rotate(rope: Rope, dtype: str, views: tuple[NDArray[Any], NDArray[Any]], where: dict[str, Any]) -> None:
    q, k = views
    if dtype != "bfloat16":
        rope(q, k, **where)
        return
    # Without ml_dtypes there are no bfloat16 arrays, so the kernels are handed their bits.
    step = rope.at(**where, tokens=q.shape[0 if rope.order == "thd" else 1]) if "offset" in where else rope.at(**where)
    step._rotate_checked("bf16", q, k)


def _with_backend(rope: Rope, backend: str) -> Rope:
    return Rope(**{**rope._arguments(), "backend": backend})


def same_bits(a: NDArray[Any], b: NDArray[Any], dtype: str) -> bool:
    """Tell whether two arrays have the same bits; a NaN is as good as another."""
    if dtype == "bfloat16":
        a_nan, b_nan = ((x & 0x7FFF) > 0x7F80 for x in (a, b))
    else:
        a_nan, b_nan = np.isnan(a), np.isnan(b)
    unsigned = f"u{a.itemsize}"
    return bool(((a.view(unsigned) == b.view(unsigned)) | (a_nan & b_nan)).all())


def timings() -> Iterator[tuple[str, float, float]]:
    """Time the kernels and NumPy's usual expression: yields what, and microseconds of one and of the other.

    Raises
    ------
    RuntimeError
        If compiled kernels do not run in this process, or NumPy rotates instead of one.
    """
    _require_kernels()
    rng = np.random.default_rng(0)
    for tokens, layout in itertools.product((1, 64, 1024), LAYOUTS):
        q = rng.standard_normal((tokens, 32, 128), dtype=np.float32)
        k = rng.standard_normal((tokens, 8, 128), dtype=np.float32)
        rope = Rope(128, layout=layout)
        step = rope.at(offset=0, tokens=tokens)
        cos, sin = (table[:, None] for table in rope.tables(tokens))

        def usual(x: NDArray[np.float32], layout: str = layout, cos: Any = cos, sin: Any = sin) -> None:
            low, high = (x[..., ::2], x[..., 1::2]) if layout == "interleaved" else (x[..., :64], x[..., 64:])
            low[...], high[...] = low * cos - high * sin, low * sin + high * cos

        with _numpy_rotations() as instead:
            ours = _median_microseconds(lambda step=step, q=q, k=k: step(q, k))  # type: ignore[misc]
        if instead:
            raise RuntimeError(f"NumPy rotated instead of the kernel: tokens={tokens}, layout={layout!r}")
        numpys = _median_microseconds(lambda usual=usual, q=q, k=k: (usual(q), usual(k)))  # type: ignore[misc]
        yield f"{tokens:>5} tokens  {layout}", ours, numpys


def describe_contention() -> str:
    """Return what to do where parallel launches of this process took longer than one thread, or "" where none did."""
    from .kernels.threads import contention

    if not contention.lost:
        return ""
    return (
        f"Of {counted(contention.launches, 'parallel call')} {contention.lost} took longer than on one "
        "thread, as other processes keep the processors busy; after such a call one thread rotates for a while. TBB "
        "(pip install tbb) and OMP_WAIT_POLICY=passive lose less time, NUMBA_NUM_THREADS=1 loses none."
    )


def _median_microseconds(call: Callable[[], Any], seconds: float = 0.15) -> float:
    call()
    laps: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(laps) < 5:
        begin = time.perf_counter()
        for _ in range(5):
            call()
        laps.append((time.perf_counter() - begin) / 5e-6)
    return statistics.median(laps)
