"""The kernel's own LLVM code compiled for a processor that is not here, and a program to run it under an emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.registry import cpu_target
from numpy.typing import NDArray

from rope_numba.kernels.row import rotate_row


class Processor(NamedTuple):
    """What Numba asks of LLVM: triple, name and features."""

    triple: str
    name: str
    features: str


AARCH64 = Processor("aarch64-unknown-linux-gnu", "generic", "+neon,+fp-armv8")


class Context:
    """Numba's context for code, but for another processor."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def codegen(self) -> Context:
        return self

    def magic_tuple(self) -> Processor:
        return self.processor

    def __getattr__(self, name: str) -> Any:
        return getattr(cpu_target.target_context, name)


def compile_row(processor: Processor, storage: int, layout: int) -> tuple[str, bytes]:
    """Return assembly and object of `rotate_<storage>_<layout>`, which takes what rotate_row takes after these two."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(processor.triple).create_target_machine(
        cpu=processor.name, features=processor.features, opt=3, reloc="pic"
    )
    module = ir.Module("row")
    module.triple, module.data_layout = processor.triple, str(machine.target_data)
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10)
    function = ir.Function(module, kind, f"rotate_{storage}_{layout}")
    builder = ir.IRBuilder(function.append_basic_block())
    codes = types.literal(storage), types.literal(layout)
    signature, write = rotate_row._defn(None, *codes, *[types.int64] * 10)
    write(Context(processor), builder, signature, [None, None, *function.args])
    builder.ret_void()
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(compiled, passes)
    return machine.emit_assembly(compiled), machine.emit_object(compiled)


# Reads calls from its input, each twelve numbers and then the memory that it rotates in; writes that memory.
MAIN = """
#include <stdio.h>
typedef void row(long, long, long, long, long, long, long, long, long, long);
%(declared)s
static row *rows[] = {%(listed)s};
static char memory[1 << 22] __attribute__((aligned(64)));
int main(void) {
    long n[12], start = (long)memory;
    while (fread(n, sizeof n, 1, stdin) == 1) {
        if (n[11] > (long)sizeof memory || fread(memory, 1, n[11], stdin) != (size_t)n[11]) return 1;
        rows[n[0]](n[1], n[2], start + n[3], start + n[4], start + n[5], n[6], n[7], start + n[8], n[9], n[10]);
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


def tools() -> tuple[str, str] | None:
    """Return a C compiler for aarch64 and its emulator, or None."""
    found = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    return None if None in found else (str(found[0]), str(found[1]))


def build(folder: Path, compiler: str, objects: dict[tuple[int, int], bytes]) -> Path:
    """Link compiled rows with a main program."""
    names = [f"rotate_{storage}_{layout}" for storage, layout in objects]
    source = folder / "main.c"
    source.write_text(MAIN % {"declared": "\n".join(f"row {name};" for name in names), "listed": ", ".join(names)})
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
        stride, fetch = call.q.strides[0], int(call.start == 16)  # told to fetch and not, at no more calls
        numbers = [
            order.index((call.storage, call.layout)), call.cos.size, fetch, 0, call.cos.nbytes, first,
            len(call.q), stride, first + call.q.nbytes, len(call.k), stride, len(memory),
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
