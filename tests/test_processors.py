"""The same bits on processors that are not here: cross-compiled, emulated, or with features switched off."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cross
import llvmlite.binding
import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits
from test_njit import numbers

import rope_numba as rn

STORAGES = dict(zip(DTYPES, range(4), strict=True))

# ---- Code for aarch64 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_aarch64_gets_vector_code_without_helpers_or_contraction(dtype: str, layout: str) -> None:
    assembly, _ = cross.compile_kernel(cross.AARCH64, STORAGES[dtype], LAYOUTS.index(layout))
    lanes = "2d" if dtype == "float64" else "4s"
    assert len(re.findall(rf"\bfmul\s+v\d+\.{lanes}", assembly)) >= 64  # a panel of 128 pairs, unrolled
    if dtype == "float16":
        assert "fcvtl" in assembly
        assert "fcvtn" in assembly
    called = re.findall(r"\tbl?\t(?!\.L)(\S+)", assembly)  # or jumped to
    assert [name for name in called if f"\n{name}:" not in assembly] == []
    assert not re.findall(r"\b(?:fmla|fmls|fn?madd|fn?msub|bfmlal\w*)\b", assembly)


def test_the_emulated_aarch64_gives_numpys_bits_in_each_floating_point_mode_and_keeps_it(tmp_path: Path) -> None:
    tools = cross.tools()
    if tools is None:
        pytest.skip(
            "aarch64-linux-gnu-gcc and qemu-aarch64 are needed (Debian: gcc-aarch64-linux-gnu, qemu-user-static)"
        )
    kinds = [(storage, layout) for storage in STORAGES.values() for layout in range(len(LAYOUTS))]
    program = cross.build(tmp_path, tools[0], {kind: cross.compile_kernel(cross.AARCH64, *kind)[1] for kind in kinds})
    calls, expected = [], []
    for dtype, storage in STORAGES.items():
        for layout, name in enumerate(LAYOUTS):
            for pairs in (*range(1, 20), 32, 40, 64, 77, 128, 200, 256):
                for start in (0, 16, DTYPES[dtype](0).itemsize):
                    x, cos, sin = numbers(1, 5, 2 * pairs + 3, pairs, dtype)
                    q, k = x[0, :4].copy(), x[0, 4:].copy()
                    # The default mode; subnormal numbers flushed to zero; rounding up, and NaNs of one kind.
                    mode = (0, 1 << 24, 1 << 22 | 1 << 25)[pairs % 3]
                    calls.append(cross.Call(storage, layout, cos[0], sin[0], q, k, start, mode))
                    with np.errstate(all="ignore"):
                        rn.reference.rotate(x, cos, sin, layout=name)
                    expected.append(x.reshape(-1))
    for got, wanted in zip(cross.run(tools[1], program, calls, kinds), expected, strict=True):
        assert_same_bits(got, wanted)


# ---- This processor with fewer features -----------------------------------------------------------------------------

X86 = platform.machine() in ("x86_64", "AMD64")
HOST = llvmlite.binding.get_host_cpu_features()
# Numba's name of a processor and its features; what this machine must have for them.
PROCESSORS = {
    "of 2003": ("generic", "", ""),
    "AVX": ("sandybridge", "+avx", "avx"),
    "AVX2 without float16 conversions": ("haswell", "+avx,+avx2,+fma", "avx2"),
    "AVX2": ("haswell", "+avx,+avx2,+fma,+f16c", "avx2"),
    "AVX-512 in vectors of 256 bits": ("", f"{HOST.flatten()},+prefer-256-bit", "avx512f"),
}

# For each processor: all kinds in place, as each is made of other instructions; one kind into other arrays and one in
# users' code for each storage that is read, so that each is written too. These are made of the same loads, steps and
# stores; which kinds there are is tested on the processor that is here.
EVERY_KERNEL = """
import ml_dtypes, numba
import numpy as np
import rope_numba as rn

DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
IN_USERS_CODE = ("float32", "interleaved"), ("float64", "half"), ("float16", "half"), ("bfloat16", "interleaved")
CONVERSIONS = {
    ("float32", "interleaved"): "float16", ("float32", "half"): "bfloat16", ("float64", "half"): "float64",
    ("float16", "half"): "float32", ("bfloat16", "interleaved"): "float32",
}

def rotated(backend, dtype, layout):
    rng = np.random.default_rng(1)
    x, results = rng.standard_normal((2, 7, 5, 150)) * 10.0 ** rng.integers(-6, 4, (2, 7, 5, 150)), []
    for rotary_dim in (150, 64, 26):
        rope = rn.Rope(150, rotary_dim=rotary_dim, layout=layout, backend=backend)
        q, k = (part.astype(DTYPES[dtype]) for part in (x[0], x[1, :, :2]))
        results += rope(q, k, offset=131_000)
        results += rope(q[:, ::-2], k[::-1], positions=[3, -1, 2**53, 0, 7, 10**6, 5])
        results.append(rope.shift(k.copy(), -300))
        target = CONVERSIONS.get((dtype, layout))
        if target:
            results.append(rope(q, offset=9, out=np.zeros(q.shape, DTYPES[target])))
    if (dtype, layout) == ("float16", "half"):  # on all threads
        large = np.resize(x.astype(np.float16), (900, 8, 150))
        results.append(rn.Rope(150, layout=layout, backend=backend)(large, offset=0))
    return results

def jitted(dtype, layout):
    name = {"interleaved": "rotate_interleaved", "half": "rotate_half_split"}[layout]
    function = getattr(rn, name + {"float16": "_f16", "bfloat16": "_bf16"}.get(dtype, ""))
    x = np.random.default_rng(2).standard_normal((3, 2, 82)).astype(DTYPES[dtype])
    expected = x.copy()
    cos, sin = rn.Rope(82).tables(3)
    if dtype == "float64":
        cos, sin = cos.astype(np.float64), sin.astype(np.float64)
    rn.reference.rotate(expected, cos, sin, layout=layout)
    user = numba.njit(lambda x, cos, sin: function(x, cos, sin))
    user(x.view(np.uint16) if x.itemsize == 2 else x, cos, sin)
    return [x], [expected]

for dtype in DTYPES:
    for layout in ("interleaved", "half"):
        mine, numpys = jitted(dtype, layout) if (dtype, layout) in IN_USERS_CODE else ([], [])
        mine += rotated("numba", dtype, layout)
        numpys += rotated("numpy", dtype, layout)
        assert len(mine) == len(numpys) >= 15
        for number, (a, b) in enumerate(zip(mine, numpys)):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), (dtype, layout, number)

from rope_numba import selfcheck
print(selfcheck.describe_machine()["processor"])
"""


def printed(code: str, environment: dict[str, str]) -> str:
    """Run code in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(rn.__file__).parent.parent), **environment},
        timeout=1500,  # on a machine with other work, too
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def settings_of(processor: str) -> dict[str, str]:
    """Return the settings that make Numba compile for a processor."""
    name, features, _ = PROCESSORS[processor]
    return {"NUMBA_CPU_FEATURES": features, **({"NUMBA_CPU_NAME": name} if name else {})}


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[str]]]:
    """Compile for all processors that are asked for, on all cores, as each takes the better part of a minute."""
    asked = [item.callspec.params.get("processor") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            name: pool.submit(printed, EVERY_KERNEL, settings_of(name))
            for name, (_, _, needed) in PROCESSORS.items()
            if name in asked and (not needed or HOST.get(needed))
        }


@pytest.mark.process
@pytest.mark.skipif(not X86, reason="these are processors of x86")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_have_numpys_bits_on(processor: str, running: dict[str, Future[str]]) -> None:
    name, _, needed = PROCESSORS[processor]
    if processor not in running:
        pytest.skip(f"this processor has no {needed}")
    seen = running[processor].result()
    assert seen.endswith(f"vectors of {128 if name in ('generic', 'sandybridge') else 256} bits")
    assert seen.startswith(name)


# ---- Tables ---------------------------------------------------------------------------------------------------------

TABLES = """
import hashlib
import numpy as np
from rope_numba import Frequencies, tables

digest = hashlib.sha256()
for factor in (1.0, 1.19):
    frequencies = Frequencies(1.0 / (1.0 + np.arange(64.0)) ** 3, factor)
    for first in (0, 131_000, 2**40, 2**53 - 2000):
        for dtype in (np.float32, np.float64):
            digest.update(tables.compute(np.arange(first, first + 1000), frequencies, np.dtype(dtype)))
print(digest.hexdigest())
angles = np.arange(100_000.0) * 0.7
print(hashlib.sha256(np.cos(angles)).hexdigest())
"""


def test_tables_have_the_same_bits_whatever_numpy_and_the_c_library_use() -> None:
    """NumPy and glibc choose among several cosines, by the processor; no row may show which."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    if not found:
        pytest.skip("this NumPy has no features to switch off")
    plain = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable",
    }
    (ours, numpys), (ours_plain, numpys_plain) = (printed(TABLES, more).split() for more in ({}, plain))
    assert ours == ours_plain
    if X86:
        assert numpys != numpys_plain  # the switches do what they say


@pytest.mark.process
@pytest.mark.skipif(not X86, reason="these are processors of x86")
def test_without_half_instructions_all_four_types_have_numpys_bits() -> None:
    code = """
from rope_numba import selfcheck
selfcheck.WIDTHS = ((18, 14, 2), (128, 128, 0))
for dtype in selfcheck.DTYPES:
    for layout in selfcheck.LAYOUTS:
        calls, different = selfcheck.compare(dtype, layout, large=False)
        assert calls >= 48 and not different, (dtype, layout, different[:3])
from rope_numba.kernels import machine
print(selfcheck.describe_machine()["processor"], machine.has_half())
"""
    environment = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert printed(code, environment) == "generic, vectors of 128 bits False"
