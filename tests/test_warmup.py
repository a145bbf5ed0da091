"""`warmup` compiles what it is asked for, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import needs_jit

import rope_numba as rn


def compiled_by(code: str, environment: dict[str, str]) -> set[str]:
    """Run code in a fresh process; returns the names of the kernels that its cache then holds."""
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    indexes = Path(environment["NUMBA_CACHE_DIR"]).rglob("*.nbi")
    return {path.name.split("-")[0].split(".")[-1].rpartition("_")[0] for path in indexes}


@needs_jit
def test_only_what_is_asked_for_is_compiled_and_for_threads_one_function_more(cold_cache: dict[str, str]) -> None:
    from rope_numba.kernels.launch import can_run_parallel

    code = "import rope_numba as rn; rn.warmup(dtypes=['float16'], layouts=['half'], axes=[2, 3], parallel={})"
    serial = {"heads_f16_half", "rotate_f16_half"}
    assert compiled_by(code.format(False), cold_cache) == serial
    threads = {"rotate_f16_half_parallel"} if can_run_parallel() else set()
    assert compiled_by(code.format(True), cold_cache) == serial | threads


@needs_jit
def test_every_kernel_that_is_asked_for_is_compiled(warm_cache: dict[str, str]) -> None:
    code = """
import itertools, rope_numba as rn
rn.warmup(dtypes=["float16", "float32"], layouts=["half"], parallel=False)
from rope_numba.kernels import launch
kinds = itertools.product(("f16", "f32", "f64", "bf16"), ("half", "interleaved"))
print([kind for kind in kinds if launch.in_place_for(*kind)._serial is not None])
"""
    done = subprocess.run([sys.executable, "-c", code], env=warm_cache, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([("f16", "half"), ("f32", "half")])


@needs_jit
def test_a_call_after_it_compiles_nothing(warm_cache: dict[str, str]) -> None:
    code = """
import numpy as np, rope_numba as rn
rn.warmup(dtypes=["float32"], layouts=["half"], parallel=False)
from rope_numba.kernels import launch
assert launch.in_place_for("f32", "half")._serial is not None
launch.InPlace = None
q, k = np.ones((1, 4, 64), np.float32), np.ones((1, 2, 64), np.float32)
rn.Rope(64, layout="half")(q, k, offset=1)
"""
    subprocess.run([sys.executable, "-c", code], env=warm_cache, check=True)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"dtypes": ["int8"]}, ValueError, "dtypes holds 'int8'; expected 'float32', 'float64', 'float16', 'bfloat16'"),
        ({"dtypes": "float32"}, TypeError, "dtypes is 'float32'; expected a list"),
        ({"layouts": ["neox"]}, ValueError, "layouts holds 'neox'; expected 'interleaved', 'half'"),
        ({"axes": [5]}, ValueError, "axes holds 5; expected 2, 3, 4"),
        ({"axes": 3}, TypeError, "axes is 3; expected a list"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        rn.warmup(**asked)
    assert str(refused.value) == message
