"""Files of compiled code that are damaged: a small function, and one that calls it by name, are right all the same.

What becomes of kernels is in test_compiled_cache.py, in processes of their own.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
from helpers import needs_jit

pytestmark = needs_jit


def truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def fold(file: Path, other: Path) -> None:
    file.unlink()
    file.mkdir()


# What may stand in place of a file, and whether the next process finds it mended.
DAMAGES: dict[str, tuple[Callable[[Path, Path], Any], bool]] = {
    "empty": (lambda file, other: file.write_bytes(b""), True),
    "truncated": (truncate, True),
    "without its last byte": (lambda file, other: file.write_bytes(file.read_bytes()[:-1]), True),
    "zeros": (lambda file, other: file.write_bytes(bytes(file.stat().st_size)), True),
    "garbage": (lambda file, other: file.write_bytes(os.urandom(file.stat().st_size)), True),
    "text": (lambda file, other: file.write_text("not compiled code\n" * 99), True),
    "a pickle of something else": (lambda file, other: file.write_bytes(pickle.dumps({"not": "code"})), True),
    "of another function": (lambda file, other: shutil.copy(other, file), True),
    "missing": (lambda file, other: file.unlink(), True),
    "a folder": (fold, False),
}


def answer(factor: int) -> tuple[int, int, int]:
    """Make a function, and one that calls it by name; return its answer, and how many were loaded and compiled."""
    from rope_numba.kernels import compile as compiling

    def callee(x: int) -> int:
        return x * factor

    signature = numba.int64(numba.int64)
    external = compiling.compile_external(callee, f"callee_{factor}", signature)

    def caller(x: int) -> int:
        return external(x) + 1  # type: ignore[no-any-return]

    entry: Any = compiling.compile_entry(caller, f"caller_{factor}", signature)
    both = entry, compiling._kept[-1]
    hits, misses = (
        sum(sum(getattr(made.stats, counter).values()) for made in both) for counter in ("cache_hits", "cache_misses")
    )
    return entry(5), hits, misses


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the compiled code of both functions, for two factors."""
    cache = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "CACHE_DIR", str(cache))
        assert answer(2) == (11, 0, 2)
        assert answer(3) == (16, 0, 2)
    return cache


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("function", ["caller", "callee"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_does_no_harm_and_is_replaced(
    damage: str, function: str, suffix: str, warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(warm, cache)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache))
    change, mended = DAMAGES[damage]
    (file,) = cache.rglob(f"*.{function}_2_*.{suffix}")
    (other,) = cache.rglob(f"*.{function}_3_*.{suffix}")
    change(file, other)
    assert answer(2) == (11, 1, 1)
    assert answer(2) == ((11, 2, 0) if mended else (11, 1, 1))
    assert answer(3) == (16, 2, 0)
