"""Count the instructions that a head of 128 channels takes on this processor, and time them in the first-level cache.

    python benchmarks/instructions.py

16-bit data is bound by its conversions there, not by memory: this shows how near to the limit of the processor's ports
a kernel comes. `llvm-mca` (Debian: llvm), where it is installed, reckons how many cycles they take in its model.
A cycle's time is that of a chain of multiplications, each of which waits for the one before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import llvmlite.binding as llvm
import measure
import numba
import numpy as np
from llvmlite import ir
from numba.core.registry import cpu_target

from rope_numba.kernels.panel import HALF, INTERLEAVED, Panel
from rope_numba.kernels.row import row_address
from rope_numba.kernels.share import call_at
from rope_numba.kernels.storage import F64, ITEMSIZE, NAMES, TABLE_ITEMSIZE

PAIRS = 64
ROUNDS = 100
FEW, MANY = 4, 24  # heads; the many take 24 KiB in float64
MULTIPLICATION = 3  # cycles from one to the next that needs its result, on Intel's Core and AMD's Zen
KINDS = {
    "multiply": r"v?mulp[sd]",
    "add, subtract": r"v?(add|sub)p[sd]",
    "convert": r"v?cvt\w+",
    "shuffle, blend": r"v?(p?shuf\w*|p?blend\w*|perm\w*|p?unpck\w*)",
    "integer": r"v?p\w+|vp?ternlog\w+|vtest\w+",
    "load, store": r"v?mov(dq)?[uap]\w*",
}


def assembly_of(storage: int, layout: int) -> list[str]:
    """Return the instructions that rotate one head, tables loaded before."""
    context = cpu_target.target_context
    number = ir.IntType(64)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [number] * 5), "rotate")
    cos, sin, first, stop, stride = function.args
    before = ir.IRBuilder(function.append_basic_block())
    partner = ir.Constant(number, PAIRS * (8 if storage == F64 else 4 if storage == 0 else 2))
    panel = Panel(context, before, storage, layout, PAIRS, partner)
    panel.load_tables(cos, sin)
    loop = function.append_basic_block("heads")
    start = before.block
    before.branch(loop)
    before.position_at_end(loop)
    head = before.phi(number)
    head.add_incoming(first, start)
    panel.rotate(head)
    following = before.add(head, stride)
    head.add_incoming(following, before.block)
    end = function.append_basic_block("end")
    before.cbranch(before.icmp_unsigned("<", following, stop), loop, end)
    before.position_at_end(end)
    before.ret_void()

    triple, name, features = context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = triple
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return hot_path(machine.emit_assembly(parsed).splitlines())


def hot_path(lines: list[str]) -> list[str]:
    """Return the loop's instructions, in the order in which they run where no result is a tie."""
    labels = {line.split(":")[0]: number for number, line in enumerate(lines) if re.match(r"\.L\w+:", line)}
    jumps = [(number, line.split()[-1]) for number, line in enumerate(lines) if re.match(r"\tj\w+\t\.L", line)]
    # The loop's own jump is the last that goes back; blocks between that are jumped to and jump back are the rare ones.
    back, target = max((n, t) for n, t in jumps if labels[t] < n and "jmp" not in lines[n])
    body = lines[labels[target] : back + 1]
    return [line.strip() for line in body if re.match(r"\t[a-z]", line)]


def cycles_of(instructions: list[str]) -> str:
    """Return how many cycles llvm-mca finds for them, for the processor that it knows best."""
    program = shutil.which("llvm-mca")
    if program is None:
        return "llvm-mca is not installed"
    straight = "\n".join(line for line in instructions if not line.startswith("j"))
    command = [program, "-mcpu=native", "-iterations=200"]
    done = subprocess.run(command, input=straight, capture_output=True, text=True, check=False)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    return f"{int(found.group(1)) / 200:.0f}" if found else "llvm-mca does not know them"


def times(rounds: int = ROUNDS, laps: int = 500) -> tuple[float, dict[tuple[str, int], float]]:
    """Return the time of a cycle, and of a head: that of many less that of few, the least of all rounds each."""
    rows = [(name, layout) for name in NAMES for layout in (INTERLEAVED, HALF)]
    memory = np.zeros(1 << 17, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 4096
    loops = {row: _loop(NAMES.index(row[0]), row[1], start) for row in rows}
    least: dict[Any, float] = {}
    for _ in range(rounds):
        for row, loop in loops.items():
            for heads in (FEW, MANY):
                begin = time.perf_counter()
                loop(laps, heads)
                taken = (time.perf_counter() - begin) / laps
                least[row, heads] = min(taken, least.get((row, heads), taken))
        begin = time.perf_counter()
        _multiply(3, 20_000)
        taken = (time.perf_counter() - begin) / (20_000 * MULTIPLICATION)
        least["cycle"] = min(taken, least.get("cycle", taken))
    heads_alone = {row: (least[row, MANY] - least[row, FEW]) / (MANY - FEW) for row in rows}
    return least["cycle"], heads_alone


def _loop(storage: int, layout: int, start: int) -> Callable[[int, int], None]:
    """Return a compiled function that rotates one token over and over, so many times, with so many heads."""
    head, table = 2 * PAIRS * ITEMSIZE[storage], PAIRS * TABLE_ITEMSIZE[storage]
    q = start + 2 * table

    def rotate(laps: int, heads: int) -> None:
        row: Any = row_address(storage, layout)  # type: ignore[call-arg]
        for _ in range(laps):
            call_at(row, (PAIRS, 0, start, start + table, q, heads, head, q, 0, head))  # type: ignore[call-arg]

    compiled: Callable[[int, int], None] = numba.njit(error_model="numpy")(rotate)
    compiled(1, FEW)
    return compiled


@numba.njit
def _multiply(x: int, count: int) -> int:
    for _ in range(count):
        x *= x
    return x


def main() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    _multiply(3, 1)
    cycle, taken = times()
    ends = ("all vector instructions", "llvm-mca, cycles", "taken, cycles", "taken / float32's")
    print(f"| {' | '.join(('128 channels', *KINDS, *ends))} |")
    print("| --- |" + " ---: |" * (len(KINDS) + len(ends)))
    for dtype, name in zip(measure.DTYPES, NAMES, strict=True):
        for number, layout in enumerate(measure.LAYOUTS):
            body = assembly_of(NAMES.index(name), number)
            wide = [line for line in body if re.search(r"%[xyz]mm", line)]
            counts, rest = [], [line.split()[0] for line in wide]
            for pattern in KINDS.values():
                counts.append(sum(1 for code in rest if re.fullmatch(pattern, code)))
                rest = [code for code in rest if not re.fullmatch(pattern, code)]
            ratio = taken[name, number] / taken["f32", number]
            cells = [f"{dtype}, {layout}", *map(str, counts), str(len(wide)), cycles_of(body)]
            cells += [f"{taken[name, number] / cycle:.0f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |")
    print(
        f"\n{measure.processor()} at {1e-9 / cycle:.2f} GHz; taken: the difference of {MANY} and {FEW} heads of one"
        f" token, on a boundary of 64 bytes, least of {ROUNDS} laps; float64 in halves fetches ahead too, by 16 more"
        " instructions."
    )


if __name__ == "__main__":
    main()
