"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests find oracle.py

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.register_profile(
    "hostile", deadline=None, max_examples=100_000, database=None, print_blob=True, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def warm_cache() -> dict[str, str]:
    """Return an environment for subprocesses that share the folder for compiled code of this process."""
    return dict(os.environ)


@pytest.fixture
def cold_cache(tmp_path: Path) -> dict[str, str]:
    """Return an environment for a subprocess with an empty folder for compiled code."""
    return {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
