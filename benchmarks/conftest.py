"""How benchmarks run: timed when asked for (`--benchmark-only`), else once each, as tests."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that benchmarks find measure.py


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_disable = not config.getoption("benchmark_only")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add what a figure depends on to the JSON."""
    from measure import processor

    from rope_numba import selfcheck

    machine_info["described"] = {"CPU": processor(), "cores": os.cpu_count(), **selfcheck.describe_machine()}
    machine_info["described"].pop("compiled cache", None)  # a folder of this machine's
    machine_info["command"] = shlex.join(["pytest", *config.invocation_params.args])


@pytest.fixture(params=["one thread", "all threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the number of Numba's threads, and return it."""
    before = numba.get_num_threads()
    count = 1 if request.param == "one thread" else before
    numba.set_num_threads(count)
    yield count
    numba.set_num_threads(before)
