"""What all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

import rope_numba

sys.path.insert(0, str(Path(__file__).parent))  # so that tests find oracle.py

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.register_profile(
    "hostile", deadline=None, max_examples=100_000, database=None, print_blob=True, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


MANY = 5_000  # tests: those of a whole run, which need nearly all kernels


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let a process compile kernels beside a whole run, which it shares the folder for compiled code with."""
    if len(session.items) < MANY or session.config.option.collectonly:
        return
    program, package = Path(__file__).parent / "compile_ahead.py", Path(rope_numba.__file__).parent.parent
    ahead = subprocess.Popen([sys.executable, program], env={**os.environ, "PYTHONPATH": str(package)})

    def stop() -> None:
        if ahead.poll() is None:
            ahead.terminate()
            ahead.wait()
        elif ahead.returncode:
            raise RuntimeError(f"{program.name} ended with {ahead.returncode}; expected 0")

    session.config.add_cleanup(stop)


@pytest.fixture(scope="session")
def warm_cache() -> dict[str, str]:
    """Return an environment for subprocesses that share the folder for compiled code of this process."""
    return dict(os.environ)


@pytest.fixture
def cold_cache(tmp_path: Path) -> dict[str, str]:
    """Return an environment for a subprocess with an empty folder for compiled code."""
    return {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
