"""LLVM code that Numba makes of kernels, compiled for a processor that is not here, and a program for its emulator."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray


class Processor(NamedTuple):
    """What Numba asks of LLVM: triple, name and features."""

    triple: str
    name: str
    features: str


AARCH64 = Processor("aarch64-unknown-linux-gnu", "generic", "+neon,+fp-armv8")

# What kernels ask about the processor is answered before they are imported. Numba optimises nothing, so that nothing
# in the code is of the processor that is here.
WRITE = """
import json, sys
import llvmlite.binding
from numba import njit
from rope_numba.kernels import machine
assert "rope_numba.kernels.storage" not in sys.modules
triple, name, features = sys.argv[1:]
machine._target = lambda: (triple, name, features.split(","))
# Instructions of that processor, which LLVM makes for none but it, have names of their own as long as it works for this
# one.
instruction = machine._intrinsic
machine._intrinsic = lambda builder, name, *types: instruction(builder, name.replace("llvm.", "later."), *types)
for name in ("later.aarch64.get.fpcr", "later.aarch64.set.fpcr"):
    llvmlite.binding.add_symbol(name, 1)
from rope_numba.kernels.compile import helper
from rope_numba.kernels.in_place import form_in_place
from rope_numba.kernels.machine import enter_ieee_mode, leave_ieee_mode
from rope_numba.kernels.panel import HEADS_SIGNATURE, LAYOUTS, make_rotate_heads
from rope_numba.kernels.storage import STORAGES, storage_of

def in_ieee_mode(rotate_heads):
    def rotate(n_pairs, cos, sin, prefetching, a, n_a, a_stride, b, n_b, b_stride):
        mode = enter_ieee_mode()
        rotate_heads(n_pairs, cos, sin, prefetching, a, n_a, a_stride, b, n_b, b_stride)
        leave_ieee_mode(mode)
    return rotate

found = []
for code, storage in enumerate(map(storage_of, STORAGES)):
    for layout in range(len(LAYOUTS)):
        compiled = njit(HEADS_SIGNATURE, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
            in_ieee_mode(helper(make_rotate_heads(form_in_place(storage, layout)), f"heads_{code}_{layout}"))
        )
        (text,), (result,) = compiled.inspect_llvm().values(), compiled.overloads.values()
        text = text.replace("later.aarch64", "llvm.aarch64")
        found.append((code, layout, text.replace(result.fndesc.llvm_func_name, f"rotate_{code}_{layout}")))
json.dump(found, sys.stdout)
"""


@functools.cache
def write_kernels(processor: Processor) -> dict[tuple[int, int], str]:
    """Return the LLVM text of `rotate_<storage>_<layout>`, which has panel.HEADS_SIGNATURE, of each of both."""
    environment = {
        **os.environ,
        "NUMBA_OPT": "0",
        "NUMBA_DISABLE_JIT": "0",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    command = [sys.executable, "-c", WRITE, *processor]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=500)
    return {(storage, layout): text for storage, layout, text in json.loads(done.stdout)}


@functools.cache
def compile_kernel(processor: Processor, storage: int, layout: int) -> tuple[str, bytes]:
    """Return assembly and object of `rotate_<storage>_<layout>`."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(processor.triple).create_target_machine(
        cpu=processor.name, features=processor.features, opt=3, reloc="pic"
    )
    text = write_kernels(processor)[storage, layout]
    text = re.sub("(?m)^target triple = .*$", f'target triple = "{processor.triple}"', text)
    text = re.sub("(?m)^target datalayout = .*$", f'target datalayout = "{machine.target_data}"', text)
    compiled = llvm.parse_assembly(text)
    compiled.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(compiled, passes)
    return machine.emit_assembly(compiled), machine.emit_object(compiled)


# Reads calls from its input, each thirteen numbers and then the memory that it rotates in; writes that memory.
# Functions of Numba's take the places of a result and of an exception first, and return a status. The last number is
# the mode of floating-point arithmetic (FPCR) at the call, which has to be the mode after it.
MAIN = """
#include <stdio.h>
typedef int kernel(void **, void **, long, long, long, char, long, long, long, long, long, long);
%(declared)s
static kernel *kernels[] = {%(listed)s};
static char memory[1 << 22] __attribute__((aligned(64)));
int main(void) {
    long n[13], mode, start = (long)memory;
    void *result, *exception;
    while (fread(n, sizeof n, 1, stdin) == 1) {
        if (n[11] > (long)sizeof memory || fread(memory, 1, n[11], stdin) != (size_t)n[11]) return 1;
        __asm__ volatile("msr fpcr, %%0" : : "r"(n[12]));
        if (kernels[n[0]](&result, &exception, n[1], start + n[2], start + n[3], n[4],
                          start + n[5], n[6], n[7], start + n[8], n[9], n[10])) return 1;
        __asm__ volatile("mrs %%0, fpcr; msr fpcr, xzr" : "=r"(mode));
        if (mode != n[12]) return 1;
        fwrite(memory, 1, n[11], stdout);
    }
    return 0;
}
"""


class Call(NamedTuple):
    """One token's rows, q and k (heads, head_dim), for one storage and layout."""

    storage: int
    layout: int
    cos: NDArray[Any]
    sin: NDArray[Any]
    q: NDArray[Any]
    k: NDArray[Any]
    start: int  # bytes past a multiple of 64 where q begins
    mode: int = 0  # FPCR at the call


def tools() -> tuple[str, str] | None:
    """Return a C compiler for aarch64 and its emulator, or None."""
    found = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    return None if None in found else (str(found[0]), str(found[1]))


def build(folder: Path, compiler: str, objects: dict[tuple[int, int], bytes]) -> Path:
    """Link compiled kernels with a main program."""
    names = [f"rotate_{storage}_{layout}" for storage, layout in objects]
    source = folder / "main.c"
    source.write_text(MAIN % {"declared": "\n".join(f"kernel {name};" for name in names), "listed": ", ".join(names)})
    for name, code in zip(names, objects.values(), strict=True):
        (folder / f"{name}.o").write_bytes(code)
    program = folder / "program"
    command = [compiler, "-static", "-o", program, source, *(folder / f"{name}.o" for name in names)]
    subprocess.run(command, check=True)
    return program


def run(emulator: str, program: Path, calls: list[Call], order: list[tuple[int, int]]) -> list[NDArray[Any]]:
    """Run calls under the emulator; returns q and k of each after another, flat."""
    given, sizes = b"", []
    for call in calls:
        table = np.concatenate((call.cos, call.sin)).tobytes()
        heads = call.q.tobytes() + call.k.tobytes()
        first = -(-len(table) // 64) * 64 + call.start
        memory = table.ljust(first, b"\0") + heads
        stride, prefetching = call.q.strides[0], int(call.start == 16)  # true and false, at no more calls
        numbers = [
            order.index((call.storage, call.layout)), call.cos.size, 0, call.cos.nbytes, prefetching, first,
            len(call.q), stride, first + call.q.nbytes, len(call.k), stride, len(memory), call.mode,
        ]  # fmt: skip
        given += np.array(numbers, np.int64).tobytes() + memory
        sizes.append((len(memory), first))
    done = subprocess.run([emulator, program], input=given, capture_output=True, check=True, timeout=100)
    results, begin = [], 0
    for call, (size, first) in zip(calls, sizes, strict=True):
        results.append(np.frombuffer(done.stdout[begin + first : begin + size], call.q.dtype))
        begin += size
    assert begin == len(done.stdout)
    return results
