"""Floating-point modes: kernels compute in IEEE 754's default mode, whatever their thread's mode is, and leave that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from floating_point import AVAILABLE, MODES, computing
from helpers import DTYPES, LAYOUTS, assert_same_bits
from processes import run

import rope_numba as rn
from rope_numba import tables

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="modes are set by glibc's fenv_t of x86-64")

HEAD_DIM = 150  # panels of several widths, and an odd pair


def tiny(shape: tuple[int, ...], dtype: str) -> Array:
    """Return numbers whose products are subnormal, or whose rounding shows."""
    rng = np.random.default_rng(3)
    smallest = {"float16": 1e-5, "float64": 1e-308}.get(dtype, 1e-38)
    x = rng.standard_normal(shape) * np.where(rng.random(shape) < 0.5, smallest, 1.0)
    return x.astype(DTYPES[dtype])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_those_of_the_default_mode_and_the_mode_stays(dtype: str, layout: str, mode: str) -> None:
    rope, twin = (rn.Rope(HEAD_DIM, layout=layout, backend=backend) for backend in ("numba", "numpy"))
    x = tiny((3, 2, HEAD_DIM), dtype)
    other = {"float64": "float64", "float32": "float16"}.get(dtype, "float32")
    expected = twin(x.copy(), offset=11), twin(x, offset=11, out=np.zeros(x.shape, DTYPES[other]))
    rope(x.copy(), offset=11, out=np.zeros(x.shape, DTYPES[other]))  # compiled, and the angles are known
    rope(x.copy(), offset=11)
    rotated, out = x.copy(), np.zeros(x.shape, DTYPES[other])
    with computing(MODES[mode]):
        rope(rotated, offset=11)
        rope(x, offset=11, out=out)
    assert_same_bits(rotated, expected[0])
    assert_same_bits(out, expected[1])


@pytest.mark.parametrize("mode", MODES)
def test_users_jitted_code_gets_the_bits_of_the_default_mode_too(mode: str) -> None:
    @numba.njit
    def rotate(x: Array, cos: Array, sin: Array) -> None:
        rn.rotate_interleaved(x, cos, sin)

    cos, sin = rn.Rope(HEAD_DIM).tables(3)
    x = tiny((3, 2, HEAD_DIM), "float32")
    expected = x.copy()
    rn.reference.rotate(expected, cos, sin, layout="interleaved")
    rotate(x.copy(), cos, sin)
    with computing(MODES[mode]):
        rotate(x, cos, sin)
    assert_same_bits(x, expected)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("mode", MODES)
def test_angles_that_are_met_in_another_mode_have_the_default_modes_bits(mode: str, backend: str) -> None:
    theta = 1000.0 + list(MODES).index(mode)  # frequencies of their own, whose tables are empty
    rope = rn.Rope(HEAD_DIM, theta=theta, backend=backend)
    with computing(MODES[mode]):
        near = rope.tables(70)
        far = rope.at(positions=[10**7, -3, 2**52])
    other = rn.Rope(HEAD_DIM, theta=theta, backend=backend)
    tables.table_for(rope.frequencies, np.dtype(np.float32)).drop()
    for got, expected in zip(near, other.tables(70), strict=True):
        assert_same_bits(got, expected)
    assert_same_bits(far._rows32, other.at(positions=[10**7, -3, 2**52])._rows32)


@pytest.mark.peers
def test_torchs_flushing_of_subnormal_numbers_changes_no_bit() -> None:
    torch = pytest.importorskip("torch")
    x = tiny((3000, 8, 64), "float32")
    expected = rn.Rope(64, backend="numpy")(x.copy(), offset=0)
    rope = rn.Rope(64)
    rope(x.copy(), offset=0)
    assert torch.set_flush_denormal(True)
    try:
        rope(x, offset=0)
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(x, expected)


STARTED_IN_A_MODE = """
from floating_point import MODES, computing
x = (np.random.default_rng(1).standard_normal((3000, 8, 64)) * 1e-38).astype(np.float32)
expected = rn.Rope(64, backend="numpy")(x.copy(), offset=0)
rope = rn.Rope(64)
rope(x[:1].copy(), offset=0), rope.tables(3000)
if "signal" in MODE:
    rope(x.copy(), offset=0)  # Python itself cannot start threads then
with computing(MODES[MODE]):
    rope(x, offset=0)
assert x.tobytes() == expected.tobytes()
from rope_numba.kernels import launch
print(launch.describe_threads())
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "mode",
    ["subnormal numbers flushed to zero", "rounding up", "a signal at overflow, underflow and inexact results"],
)
def test_large_work_in_another_mode_and_threads_that_were_started_in_it_give_the_same_bits(
    mode: str, warm_cache: dict[str, str]
) -> None:
    path = f"{Path(__file__).parent}:{Path(rn.__file__).parent.parent}"
    described = run(f"MODE = {mode!r}\n{STARTED_IN_A_MODE}", warm_cache, PYTHONPATH=path, NUMBA_NUM_THREADS="2")
    assert described.startswith("2, threading layer")
