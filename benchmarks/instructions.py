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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import measure
import numba
import numpy as np

from rope_numba.kernels.compile import compile_external
from rope_numba.kernels.in_place import form_in_place
from rope_numba.kernels.machine import processor, register_bytes
from rope_numba.kernels.panel import HEADS_SIGNATURE, LAYOUTS, make_rotate_heads
from rope_numba.kernels.storage import F16_BY_WHOLE_NUMBERS, NAMES, Storage, storage_of

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


def loop_of(storage: Storage, layout: int) -> list[str]:
    """Return the instructions that rotate one head on a boundary of 64 bytes, in the order in which they run.

    Blocks that stand behind the loop and jump back into it run rarely, and are not counted.
    """
    compiled = numba.njit(HEADS_SIGNATURE, error_model="numpy")(make_rotate_heads(form_in_place(storage, layout)))
    (assembly,) = compiled.inspect_asm().values()
    lines = assembly.splitlines()
    labels = {line.split(":")[0]: number for number, line in enumerate(lines) if re.match(r"\.L\w+:", line)}
    back = [(number, line.split()[-1]) for number, line in enumerate(lines) if re.match(r"\tj(?!mp)\w+\t\.L", line)]
    loops = [lines[labels[label] : end + 1] for end, label in back if labels[label] < end]
    # The panel is recognised by its multiplications: four a pair, all of them of whole registers. Peeled panels have
    # narrower ones too. Outer loops that hold no other panel are longer.
    lanes = register_bytes() // storage.table_itemsize
    expected = PAIRS // lanes * (6 if storage is F16_BY_WHOLE_NUMBERS else 4)
    panels = [loop for loop in loops if multiplications(loop) == {register_bytes(): expected}]
    return [line.strip() for line in min(panels, key=len) if re.match(r"\t[a-z]", line)]


def multiplications(lines: list[str]) -> Counter[int]:
    """Return how many multiplications of vectors there are, by the size of their registers in bytes."""
    found = [re.match(r"\tv?mulp[sd]\t.*%([xyz])mm", line) for line in lines]
    return Counter({"x": 16, "y": 32, "z": 64}[match[1]] for match in found if match)


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
    rows = [(name, layout) for name in NAMES for layout in range(len(LAYOUTS))]
    memory = np.zeros(1 << 17, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 4096
    loops = {row: _loop(storage_of(row[0]), row[1], start) for row in rows}
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


def _loop(storage: Storage, layout: int, start: int) -> Callable[[int, int], None]:
    """Return a compiled function that rotates one token a number of times, with a number of heads."""
    form = form_in_place(storage, layout)
    # As the package's own callers do: not compiled into its caller, which would know its arguments.
    rotate_heads = compile_external(make_rotate_heads(form), f"heads_{form.name}", HEADS_SIGNATURE)
    head, table = 2 * PAIRS * storage.itemsize, PAIRS * storage.table_itemsize
    q = start + 2 * table

    def rotate(laps: int, heads: int) -> None:
        for _ in range(laps):
            rotate_heads(PAIRS, start, start + table, False, q, heads, head, q, 0, head)

    compiled: Callable[[int, int], None] = numba.njit(error_model="numpy")(rotate)
    compiled(1, FEW)
    return compiled


@numba.njit
def _multiply(x: int, count: int) -> int:
    for _ in range(count):
        x *= x
    return x


def main() -> None:
    _multiply(3, 1)
    cycle, taken = times()
    ends = ("all vector instructions", "llvm-mca, cycles", "taken, cycles", "taken / float32's")
    print(f"| {' | '.join(('128 channels', *KINDS, *ends))} |")
    print("| --- |" + " ---: |" * (len(KINDS) + len(ends)))
    for dtype, name in zip(measure.DTYPES, NAMES, strict=True):
        for number, layout in enumerate(LAYOUTS):
            body = loop_of(storage_of(name), number)
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
        f"\n{measure.processor()}, {processor()}, at {1e-9 / cycle:.2f} GHz; taken: the difference of"
        f" {MANY} and {FEW} heads of one token, on a boundary of 64 bytes, least of {ROUNDS} laps; float64 in halves"
        " prefetches too, by 16 more instructions."
    )


if __name__ == "__main__":
    main()
