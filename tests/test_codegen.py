"""The instructions emitted for x86-64 processors, whichever of them runs this test: kernels are only compiled."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 instructions"),
]

BASE = "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2"
AVX2 = f"{BASE},+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
PROCESSORS = {
    "SSE2": ("x86-64", BASE, "xmm"),
    "AVX2": ("x86-64-v3", AVX2, "ymm"),
    "AVX-512": ("x86-64-v4", AVX512, "zmm"),
    "AVX-512, 256 bits preferred": ("x86-64-v4", f"{AVX512},+prefer-256-bit", "ymm"),
}
STORAGES = ("f32", "f64", "f16", "bf16")

COMPILE = """
import json, re, sys
from rope_numba.kernels.entry import make_entry
from rope_numba.kernels.panel import HALF, INTERLEAVED
found = {}
for storage, name in enumerate(("f32", "f64", "f16", "bf16")):
    for layout in (INTERLEAVED, HALF):
        entry = make_entry(storage, layout, 3)
        (assembly,), (code,) = entry.inspect_asm().values(), entry.inspect_llvm().values()
        row = assembly.partition("\\nrotate_row:")[2].partition(".size\\trotate_row")[0]
        found[f"{name} {'half' if layout == HALF else 'interleaved'}"] = row, "memcheck" in code
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module", params=PROCESSORS)
def emitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Return the widest register's name, and for each kernel its instructions and whether it checks for overlaps."""
    name, features, register = PROCESSORS[request.param]
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("cold")),  # code from a cache cannot be inspected
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True)
    return register, json.loads(done.stdout)


def opcodes(row: str, register: str = "") -> list[str]:
    """Return the operations of some instructions, those that name a register."""
    return [line.split()[0] for line in row.splitlines() if re.match(r"\t[a-z]", line) and register in line]


def test_kernels_work_on_whole_registers_without_gathers_contraction_checks_or_calls(
    emitted: tuple[str, dict[str, Any]],
) -> None:
    register, kernels = emitted
    assert set(kernels) == {f"{storage} {layout}" for storage in STORAGES for layout in ("interleaved", "half")}
    for name, (row, checks_overlaps) in kernels.items():
        every, wide = opcodes(row), opcodes(row, f"%{register}")
        multiplications = [code for code in every if re.fullmatch(r"v?mulp[sd]", code)]
        whole = [code for code in wide if re.fullmatch(r"v?mulp[sd]", code)]
        assert len(whole) > len(multiplications) / 2, name  # the rest is of narrower panels
        assert not checks_overlaps, name
        assert not [code for code in every if "gather" in code or re.match(r"vfn?m(add|sub)", code)], name
        assert not [code for code in every if code.startswith("call")], name


def test_one_pair_at_a_time_is_for_the_last_odd_pair_only(emitted: tuple[str, dict[str, Any]]) -> None:
    _, kernels = emitted
    for name, (row, _) in kernels.items():
        alone = [code for code in opcodes(row) if re.fullmatch(r"v?muls[sd]", code)]
        # Four for a pair: in the panel of one pair, and in those that begin or end with one where q starts 16 bytes
        # past a register's boundary.
        assert len(alone) <= 4 * 4, name


def test_wide_panels_fetch_each_cache_line_of_a_head_to_come_once_and_only_if_told(
    emitted: tuple[str, dict[str, Any]],
) -> None:
    register, kernels = emitted
    for name, (row, _) in kernels.items():
        storage, layout = name.split()
        itemsize = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2}[storage]
        # A panel's code stands twice where rows that begin 16 bytes past a register's boundary have code of their own.
        copies = 2 if itemsize > 2 and register != "xmm" else 1
        runs = 1 if layout == "interleaved" else 2  # the second at an index
        expected: Counter[tuple[int, bool]] = Counter()
        for pairs in (128, 64, 32) if itemsize > 2 else (128,):
            for index in range(runs):
                lines = range(8192, 8192 + pairs * 2 * itemsize // runs, 64)
                expected.update({(line, bool(index)): copies for line in lines})
        code = [line for line in row.splitlines() if re.match(r"\t[a-z]", line)]
        places = [place for place, line in enumerate(code) if line.startswith("\tprefetcht1\t")]
        addresses = [re.fullmatch(r"\tprefetcht1\t(\d+)\(%\w+(,%\w+)?\)", code[place]) for place in places]
        assert Counter((int(found[1]), bool(found[2])) for found in addresses if found) == expected, name
        first = [place for place in places if place - 1 not in places]
        assert first, name
        assert all(re.match(r"\tj(e|ne)\t", code[place - 1]) for place in first), name
