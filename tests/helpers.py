"""Arrays of every kind, and the comparison of their bits."""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
LAYOUTS = ("interleaved", "half")
ORDERS = ("thd", "htd")
# Half a unit of the last place, relative: what one rounding to the type may change.
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# For what only compiled code does; with NUMBA_DISABLE_JIT=1 the rotation in NumPy runs, and answers for the rest.
needs_jit = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"), reason="NUMBA_DISABLE_JIT is set: nothing is compiled"
)


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    """Return random numbers of a dtype."""
    return np.random.default_rng(seed).standard_normal(shape).astype(DTYPES[dtype])


def bits(x: NDArray[Any]) -> NDArray[Any]:
    """Return an array's bits as unsigned integers."""
    return np.ascontiguousarray(x).view(f"u{x.itemsize}")


def assert_same_bits(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Fail unless two arrays have the same type, shape and bits; NaNs may differ in sign and payload."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    both_nan = np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    different = (bits(a) != bits(b)) & ~both_nan
    assert not different.any(), f"{different.sum()} of {different.size} differ, first at {np.argwhere(different)[0]}"


def record_launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every parallel launch of the test adds its number of chunks."""
    from rope_numba.kernels import launch

    launches: list[int] = []
    if launch.can_run_parallel():
        parallel = launch._Kernels.get_parallel

        def counted(kernels: Any) -> Any:
            return lambda *arguments: launches.append(arguments[-1]) or parallel(kernels)(*arguments)

        monkeypatch.setattr(launch._Kernels, "get_parallel", counted)
        monkeypatch.setattr(launch.contention, "is_likely", lambda: False)  # on a busy machine, too
    return launches
