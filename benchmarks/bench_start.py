"""What a process pays once: imports, compiling, the first call, tables; each figure from processes of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest
from measure import SECONDS

import rope_numba

ONCE = Path(__file__).parent / "once.py"
# The package under test, installed or not; its bytecode is kept, as pip makes it when it installs.
HERE = {"PYTHONPATH": str(Path(rope_numba.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": ""}
PROCESSES = 5 if SECONDS >= 1 else 1
Environments = Iterator[dict[str, str]]


def run_once(words: tuple[Any, ...], environment: dict[str, str] | None = None) -> tuple[float, dict[str, Any]]:
    """Run once.py in a process; returns the seconds that it measured, and what else it saw."""
    done = subprocess.run(
        [sys.executable, str(ONCE), *map(str, words)],
        env={**os.environ, **HERE, **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, seen = json.loads(done.stdout)
    return seconds, seen


def measure_once(benchmark: Any, what: str, words: tuple[Any, ...], environments: Environments | None = None) -> Any:
    """Run processes, each in the next environment, and note the median of what they measured."""
    told: list[tuple[float, dict[str, Any]]] = []

    def run() -> None:
        told.append(run_once(words, next(environments) if environments else None))

    benchmark.pedantic(run, rounds=PROCESSES)
    benchmark.group = "once per process (whole processes; what is measured in them stands in the JSON)"
    benchmark.extra_info.update(case="start", what=what, us=statistics.median(seconds for seconds, _ in told) * 1e6)
    benchmark.extra_info["seen"] = told[-1][1]
    return told[-1][1]


@pytest.fixture
def empty_caches(tmp_path: Path, benchmark: Any) -> Environments:
    """Return environments with an empty cache of compiled code each; where nothing is timed, with that of this process.

    A test wants to know that the programs run, and other tests compile from cold.
    """
    if not benchmark.enabled:
        return iter([{}])
    return ({"NUMBA_CACHE_DIR": str(tmp_path / str(number))} for number in range(1000))


@pytest.fixture(scope="module")
def filled_cache() -> dict[str, str]:
    """Return an environment whose cache of compiled code other processes have filled."""
    environment = dict[str, str]()  # that of this process, which may be filled already
    for tokens in (1, 4096):
        run_once(("first_call", "float32", "interleaved", tokens), environment)
    return environment


@pytest.mark.parametrize("package", ["numpy", "rope_numba", "numba"])
def test_import(benchmark: Any, package: str) -> None:
    seen = measure_once(benchmark, f"import {package}", ("import", package))
    if package == "rope_numba":
        assert Path(seen["file"]) == Path(rope_numba.__file__)


@pytest.mark.parametrize("threads", ["one thread", "several threads"])
@pytest.mark.parametrize(
    ("dtype", "layout"), [("float32", "interleaved"), ("float32", "half"), ("float16", "interleaved")]
)
def test_cold_compile(benchmark: Any, dtype: str, layout: str, threads: str, empty_caches: Environments) -> None:
    words = ("first_call", dtype, layout, 1 if threads == "one thread" else 4096)
    seen = measure_once(benchmark, f"cold compile, {dtype} {layout}, {threads}", words, empty_caches)
    assert seen["turned"]


@pytest.mark.parametrize("tokens", [1, 4096])
def test_first_call_from_a_warm_cache(benchmark: Any, tokens: int, filled_cache: dict[str, str]) -> None:
    words = ("first_call", "float32", "interleaved", tokens)
    what = f"first call, warm cache, {'one thread' if tokens == 1 else 'several threads'}"
    seen = measure_once(benchmark, what, words, iter([filled_cache] * (PROCESSES + 1)))
    assert seen["turned"]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT=1")
def test_first_call_of_an_empty_function(benchmark: Any) -> None:
    """What the rows above owe to Numba, which gets its own functions ready for the first that is compiled or loaded."""
    run_once(("empty_function",))
    seen = measure_once(benchmark, "first call of an empty jitted function, warm cache", ("empty_function",))
    assert seen["hits"] == 1


@pytest.mark.parametrize("positions", [4096, 131_072, 1_000_000])
def test_table_building(benchmark: Any, positions: int) -> None:
    positions = positions if benchmark.enabled else min(positions, 131_072)
    seen = measure_once(benchmark, f"table of {positions:,} positions, head_dim 128", ("table", positions))
    assert seen["bytes"] == positions * 128 * 4
