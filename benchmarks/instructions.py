"""Count the instructions that a head of 128 channels takes on this processor, and time them in the first-level cache.

    python benchmarks/instructions.py

16-bit data is bound by its conversions there, not by memory: this shows how near to the limit of the processor's ports
a kernel comes. `llvm-mca` (Debian: llvm), where it is installed, tells how many cycles the instructions take at best;
the clock that turns nanoseconds into cycles is not known, so times stand as ratios to float32 of the same layout.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import llvmlite.binding as llvm
import measure
from llvmlite import ir
from numba.core.registry import cpu_target

import rope_numba as rn
from rope_numba.kernels.panel import Panel
from rope_numba.kernels.storage import F64, NAMES

PAIRS = 64
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


def times(heads: int = 16, more: int = 7, rounds: int = 200) -> dict[tuple[str, str], float]:
    """Return the time of a head: that of many less that of few, the least of all rounds each."""
    calls: dict[tuple[str, str, int], Any] = {}
    for dtype in measure.DTYPES:
        for layout in measure.LAYOUTS:
            step = rn.Rope(2 * PAIRS, layout=layout).at(offset=5, tokens=1)
            for factor in (1, more):
                q = measure.array((1, heads * factor, 2 * PAIRS), dtype)
                calls[dtype, layout, factor] = lambda step=step, q=q: step(q)
    laps: dict[tuple[str, str, int], list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(60):
                call()
            laps[name].append((time.perf_counter() - begin) / 60)
    least = {name: min(each) for name, each in laps.items()}
    return {
        (dtype, layout): (least[dtype, layout, more] - least[dtype, layout, 1]) / (heads * (more - 1))
        for dtype in measure.DTYPES
        for layout in measure.LAYOUTS
    }


def main() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    taken = times()
    print(f"| 128 channels | {' | '.join(KINDS)} | all vector instructions | llvm-mca, cycles | time / float32's |")
    print("| --- |" + " ---: |" * (len(KINDS) + 3))
    for dtype, name in zip(measure.DTYPES, ("f32", "f64", "f16", "bf16"), strict=True):
        for number, layout in enumerate(measure.LAYOUTS):
            body = assembly_of(NAMES.index(name), number)
            wide = [line for line in body if re.search(r"%[xyz]mm", line)]
            counts, rest = [], [line.split()[0] for line in wide]
            for pattern in KINDS.values():
                counts.append(sum(1 for code in rest if re.fullmatch(pattern, code)))
                rest = [code for code in rest if not re.fullmatch(pattern, code)]
            ratio = taken[dtype, layout] / taken["float32", layout]
            cells = [f"{dtype}, {layout}", *map(str, counts), str(len(wide)), cycles_of(body), f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |")
    print(f"\n{measure.processor()}; time by difference of 112 and 16 heads of one token, least of 200 laps.")


if __name__ == "__main__":
    main()
