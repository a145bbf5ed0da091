"""The instructions emitted for x86-64 processors, whichever of them runs this test: kernels are only compiled."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 instructions"),
]

BASE = "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2"
AVX2 = f"{BASE},+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
# Bytes of a channel, and of a cosine.
STORAGES = {"f32": (4, 4), "f64": (8, 8), "f16": (2, 4), "bf16": (2, 4)}
EVERY = [f"{storage} {layout}" for storage in STORAGES for layout in ("interleaved", "half")]
# One kernel of each storage, both layouts among them: each takes a second to compile. All of them are compiled for
# registers of 32 and of 64 bytes.
FEW = ["f32 interleaved", "f64 half", "f16 half", "bf16 interleaved"]
PROCESSORS = {
    "SSE2": ("x86-64", BASE, "xmm", FEW),
    "AVX2": ("x86-64-v3", AVX2, "ymm", EVERY),
    "AVX-512": ("x86-64-v4", AVX512, "zmm", EVERY),
    "AVX-512, 256 bits preferred": ("x86-64-v4", f"{AVX512},+prefer-256-bit", "ymm", FEW),
}

COMPILE = """
import json, sys
from numba import njit
from rope_numba.kernels.in_place import form_in_place
from rope_numba.kernels.panel import HEADS_SIGNATURE, LAYOUTS, make_rotate_heads
from rope_numba.kernels.storage import storage_of
found = {}
for name in sys.argv[1:]:
    storage, layout = name.split()
    compiled = njit(HEADS_SIGNATURE, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
        make_rotate_heads(form_in_place(storage_of(storage), LAYOUTS.index(layout)))
    )
    (assembly,), (llvm,) = compiled.inspect_asm().values(), compiled.inspect_llvm().values()
    found[name] = assembly, llvm
json.dump(found, sys.stdout)
"""


class Emitted(NamedTuple):
    """What a processor's kernels are."""

    register: str  # the name of its widest registers, as far as kernels may use them
    kernels: dict[str, tuple[str, str]]  # assembly and optimised LLVM text of each storage and layout


def compiled_for(processor: str, cache: Path) -> Emitted:
    """Compile the rotation of all heads of a token for a processor."""
    name, features, register, kernels = PROCESSORS[processor]
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    command = [sys.executable, "-c", COMPILE, *kernels]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Emitted(register, json.loads(done.stdout))


@pytest.fixture(scope="module")
def compiling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Emitted]]]:
    """Compile for all processors, on all cores."""
    cold = tmp_path_factory.mktemp("cold")  # code from a cache cannot be inspected
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {processor: pool.submit(compiled_for, processor, cold / processor) for processor in PROCESSORS}


@pytest.fixture(scope="module", params=PROCESSORS)
def emitted(request: pytest.FixtureRequest, compiling: dict[str, Future[Emitted]]) -> Emitted:
    return compiling[request.param].result()


def instructions(assembly: str) -> list[str]:
    """Return the lines of some assembly that are instructions."""
    return [line for line in assembly.splitlines() if re.match(r"\t[a-z]", line)]


def opcodes(assembly: str, register: str = "") -> list[str]:
    """Return the operations of some assembly, those that name a register."""
    return [line.split()[0] for line in instructions(assembly) if register in line]


def test_kernels_work_on_whole_registers_without_gathers_contraction_checks_or_calls(emitted: Emitted) -> None:
    assert {name.split()[0] for name in emitted.kernels} == set(STORAGES)
    for name, (assembly, llvm) in emitted.kernels.items():
        every, wide = opcodes(assembly), opcodes(assembly, f"%{emitted.register}")
        multiplications = [code for code in every if re.fullmatch(r"v?mulp[sd]", code)]
        whole = [code for code in wide if re.fullmatch(r"v?mulp[sd]", code)]
        assert len(whole) > len(multiplications) / 2, name  # the rest is of narrower panels and steps
        for wider in {"xmm": ("ymm", "zmm"), "ymm": ("zmm",), "zmm": ()}[emitted.register]:
            assert not opcodes(assembly, f"%{wider}"), name
        assert "memcheck" not in llvm, name
        assert not [code for code in every if "gather" in code or re.match(r"vfn?m(add|sub)", code)], name
        assert not [code for code in every if code.startswith("call")], name


def test_loads_and_stores_promise_the_alignment_of_one_element(emitted: Emitted) -> None:
    for name, (_, llvm) in emitted.kernels.items():
        itemsize, table_itemsize = STORAGES[name.split()[0]]
        alignments = {
            kind: {int(found) for found in re.findall(rf"\b{kind} (?!ptr\b)[^\n]*, align (\d+)", llvm)}
            for kind in ("load", "store")
        }
        assert alignments == {"load": {itemsize, table_itemsize}, "store": {itemsize}}, name
        assert "invariant.load" not in llvm, name


def test_one_pair_at_a_time_is_for_the_last_odd_pairs_only(emitted: Emitted) -> None:
    for name, (assembly, _) in emitted.kernels.items():
        alone = [code for code in opcodes(assembly) if re.fullmatch(r"v?muls[sd]", code)]
        # Four for a pair: in the panel of one pair, whose loop over heads LLVM unrolls by two and ends with one. For
        # bfloat16 it does not, but the panel of four pairs rotates them one by one, too.
        assert len(alone) <= 4 * (5 if name.startswith("bf16") else 3), name


def test_wide_panels_prefetch_each_cache_line_of_a_head_to_come_once_behind_a_branch(emitted: Emitted) -> None:
    for name, (assembly, _) in emitted.kernels.items():
        storage, layout = name.split()
        itemsize, _ = STORAGES[storage]
        # A panel is there twice where heads that begin 16 bytes past a register's boundary have one of their own.
        copies = 2 if itemsize > 2 and emitted.register != "xmm" else 1
        runs = 1 if layout == "interleaved" else 2  # the second at an index
        expected: Counter[tuple[int, bool]] = Counter()
        for pairs in (128, 64, 32) if itemsize > 2 else (128,):
            for index in range(runs):
                lines = range(8192, 8192 + pairs * 2 * itemsize // runs, 64)
                expected.update({(line, bool(index)): copies for line in lines})
        code = instructions(assembly)
        places = [place for place, line in enumerate(code) if line.startswith("\tprefetcht1\t")]
        addresses = [re.fullmatch(r"\tprefetcht1\t(\d+)\(%\w+(,%\w+)?\)", code[place]) for place in places]
        assert Counter((int(found[1]), bool(found[2])) for found in addresses if found) == expected, name
        first = [place for place in places if place - 1 not in places]
        assert first, name
        assert all(re.match(r"\tj(e|ne)\t", code[place - 1]) for place in first), name
