"""`python -m rope_numba` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import needs_jit

from rope_numba import __main__ as command
from rope_numba import selfcheck


@needs_jit
def test_the_check_passes_and_says_what_runs_where(tmp_path: object) -> None:
    # Two widths instead of six: the README's first command, which CI runs, has them all.
    code = "from rope_numba import __main__, selfcheck; selfcheck.WIDTHS = selfcheck.WIDTHS[:2]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; sys.exit(__main__.main([]))"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for dtype in selfcheck.DTYPES:
        for layout in selfcheck.LAYOUTS:
            (line,) = (line for line in done.stdout.splitlines() if line.split()[:2] == [dtype, layout])
            assert "all the same" in line
    for word in ("rope_numba", "Python", "NumPy", "Numba", "processor", "threads", "compiled cache", "ratio"):
        assert word in done.stdout
    assert "compiling ..." in done.stderr


@needs_jit
def test_a_single_wrong_bit_is_reported_and_gives_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rotate = selfcheck._rotate
    calls = []

    def spoiled(rope, dtype, views, where):  # type: ignore[no-untyped-def]
        rotate(rope, dtype, views, where)
        calls.append(dtype)
        if dtype == "float64" and rope.backend == "numba" and len(calls) % 7 == 0:
            views[0].view("u8")[0, 0, 0] ^= np.uint64(1)

    monkeypatch.setattr(selfcheck, "_rotate", spoiled)
    monkeypatch.setattr(selfcheck, "WIDTHS", ((16, 16, 0),))
    monkeypatch.setattr(selfcheck, "timings", lambda: iter(()))
    assert command.main([]) == 1
    output = capsys.readouterr().out
    assert "calls failed" in output
    assert "other bits: Rope(head_dim=16" in output
    assert "ratio" not in output


def test_with_jit_disabled_the_check_says_so_and_does_not_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rope_numba"],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "none: with NUMBA_DISABLE_JIT=1 nothing is compiled, and the rotation in NumPy runs" in done.stdout


def test_same_bits_sees_one_bit_and_excuses_only_nans() -> None:
    a = np.array([1.0, np.nan, -0.0], np.float32)
    b = a.copy()
    b.view(np.uint32)[1] ^= 1 << 31
    assert selfcheck.same_bits(a, b, "float32")
    b[2] = 0.0
    assert not selfcheck.same_bits(a, b, "float32")


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--nonsense"])
    assert stopped.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
