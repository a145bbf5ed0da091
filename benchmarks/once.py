"""What a process pays once, measured in the process that runs this file: prints seconds, and what else it saw, as JSON.

python benchmarks/once.py import numba
python benchmarks/once.py first_call float32 interleaved 1
python benchmarks/once.py empty_function
python benchmarks/once.py table 131072
python benchmarks/once.py rows 10000000
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

Seen = tuple[float, dict[str, Any]]


def import_of(package: str) -> Seen:
    """Import a package; rope_numba with its Rope, which imports NumPy and no Numba."""
    begin = time.perf_counter()
    module = __import__(package)
    if package == "rope_numba":
        module.Rope(128)
    return time.perf_counter() - begin, {"file": str(module.__file__)}


def first_call(dtype: str, layout: str, tokens: str) -> Seen:
    """Rotate for the first time, Numba having been imported before."""
    import numba  # noqa: F401
    import numpy as np

    q, k = np.ones((int(tokens), 32, 128), dtype), np.ones((int(tokens), 8, 128), dtype)
    begin = time.perf_counter()
    import rope_numba as rn

    rn.Rope(128, layout=layout)(q, k, offset=0)
    return time.perf_counter() - begin, {"turned": bool((q[-1] != 1).any() or tokens == "1")}


def empty_function() -> Seen:
    """Call a compiled function that does nothing, from Numba's cache: what Numba itself takes for any first call."""
    import numba
    import numpy as np

    x = np.ones((1, 32, 128), np.float32)
    array = numba.types.Array(numba.types.float32, 3, "A")
    begin = time.perf_counter()
    nothing = numba.njit(numba.types.int64(array), cache=True)(_nothing)
    answer = nothing(x)
    return time.perf_counter() - begin, {"answer": int(answer), "hits": sum(nothing.stats.cache_hits.values())}


def _nothing(x: Any) -> int:
    return 0


def table(positions: str) -> Seen:
    """Make the rows of all positions from 0 on."""
    import rope_numba as rn

    rope = rn.Rope(128)
    rope.tables(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    cos, sin = rope.tables(int(positions))
    seconds = time.perf_counter() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    return seconds, {"bytes": cos.nbytes + sin.nbytes, "grown": grown}


def rows(positions: str) -> Seen:
    """Ask for the rows of all positions from 0 on, 4,096 at a time, as prompts do."""
    import rope_numba as rn
    from rope_numba import tables

    rope = rn.Rope(128)
    rope.at(offset=0, tokens=1)
    before = _resident()
    begin = time.perf_counter()
    for first in range(0, int(positions), 4096):
        rope.at(offset=first, tokens=4096)
    seconds = time.perf_counter() - begin
    grown = _resident() - before
    return seconds, {"bytes": sum(table.bytes for table in tables._tables.values()), "grown": grown}


def _resident() -> int:
    """Return the bytes of memory that this process has now (Linux), as its peak may be that of the one it came from."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


WHAT = {"import": import_of, "first_call": first_call, "empty_function": empty_function, "table": table, "rows": rows}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](*sys.argv[2:])))
