"""Where compiled kernels do not run, or one thread is all there is, the reason is kept and printed."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numba
import pytest
from helpers import LAYOUTS, needs_jit
from test_fallback import WITHOUT_NUMBA

from rope_numba import __main__ as command
from rope_numba import kernels, selfcheck
from rope_numba.engine import Engine
from rope_numba.kernels import launch

NO_JIT = "NUMBA_DISABLE_JIT=1 disables compilation; unset it"
FREE_THREADED = "kernels are not tested on a free-threaded build of Python; use a build with the GIL"
OTHER_FIELDS = "NumPy's array fields are not where the kernels read them; use another version of NumPy, and report this"
NO_NUMBA = "Numba cannot be imported (No module named 'numba'); install a version that supports this Python and NumPy"
FORKED = "this process was forked while another thread was importing; start it by spawn or forkserver"

# What makes kernels unavailable in a fresh process, and the reason that is kept there.
CAUSES = {
    "no JIT": ("import os; os.environ['NUMBA_DISABLE_JIT'] = '1'\n", NO_JIT),
    "free-threaded": (
        "import sysconfig; value = sysconfig.get_config_var\n"
        "sysconfig.get_config_var = lambda name: 1 if name == 'Py_GIL_DISABLED' else value(name)\n",
        FREE_THREADED,
    ),
    "other fields": (
        "from rope_numba.kernels import ndarray_abi; ndarray_abi.SHAPE = ndarray_abi.STRIDES\n",
        OTHER_FIELDS,
    ),
    "no Numba": (WITHOUT_NUMBA, NO_NUMBA),
    "forked": ("from rope_numba import forks; forks._can_import = False\n", FORKED),
}


def process(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "NUMBA_DISABLE_JIT"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**variables, **more},
    )


def test_the_reason_is_empty_where_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 0}.get)
    assert launch._why_unavailable() == ""


@pytest.mark.parametrize("gil_disabled", [None, 0, 1])
def test_a_free_threaded_build_is_a_reason(gil_disabled: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": gil_disabled}.get)
    assert launch._why_unavailable() == (FREE_THREADED if gil_disabled else "")


def test_other_fields_of_arrays_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    monkeypatch.setattr(sysconfig, "get_config_var", {}.get)
    monkeypatch.setattr(launch, "layout_matches", lambda: False)
    assert launch._why_unavailable() == OTHER_FIELDS


def test_disabled_compilation_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert launch._why_unavailable() == NO_JIT


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_an_error_of_numbas_import_is_a_reason_on_one_short_line(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_kernels() -> Any:
        raise error("no library:\n  libllvmlite.so\x1b[31m " + "x" * 1000)

    monkeypatch.setattr(kernels, "load_kernels", load_kernels)
    reason = kernels.why_unavailable()
    assert reason.startswith("Numba cannot be imported (no library: libllvmlite.so\\x1b[31m xxx")
    assert len(reason) < 300


OBSERVE = """
import contextlib, io, json
import numpy as np
import rope_numba as rn

q = np.ones((2, 1, 4), np.float32); twin = q.copy()
rotated = WITH_A_KERNEL
if rotated:
    rn.Rope(4)(q, offset=3); rn.Rope(4, backend="numpy")(twin, offset=3)
    rotated = bool((q == twin).all() and (q != 1).any())
from rope_numba import __main__ as command, selfcheck
errors = []
for work in (lambda: selfcheck.compare("float32", "half"), lambda: next(selfcheck.timings())):
    try:
        errors.append(f"no error, but {work()!r}")
    except RuntimeError as error:
        errors.append(str(error))
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    status = command.main([])
print(json.dumps({"rotated": rotated, "errors": errors, "status": status, "printed": printed.getvalue()}))
"""


@functools.cache
def observed(cause: str) -> dict[str, Any]:
    """Return what a fresh process says of a rotation, of a comparison, of timings and on the command line."""
    # Without Numba the backend "numba" is refused (test_fallback.py).
    done = process(CAUSES[cause][0] + OBSERVE.replace("WITH_A_KERNEL", str(cause != "no Numba")))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize("cause", CAUSES)
def test_the_command_prints_the_reason_first_and_claims_no_agreement(cause: str) -> None:
    reason, seen = CAUSES[cause][1], observed(cause)
    assert seen["status"] == 1
    lines = seen["printed"].splitlines()
    assert lines[0] == f"Nothing is compared or timed, as compiled kernels do not run here: {reason}"
    assert f"kernels         none: {reason}" in lines
    for claim in ("all the same", "bit for bit", "ratio", "microseconds"):
        assert claim not in seen["printed"]
    names = {line.split("  ")[0] for line in lines[1:]}
    assert {"rope_numba", "files", "Python", "NumPy", "kernels"} <= names
    assert ("Numba" in names) == (cause not in ("no Numba", "forked"))
    if "threads" in names:
        assert "threads         1 (compiled kernels do not run)" in lines


@pytest.mark.parametrize("cause", CAUSES)
def test_nothing_is_compared_or_timed_without_kernels(cause: str) -> None:
    assert observed(cause)["errors"] == [f"compiled kernels do not run here: {CAUSES[cause][1]}"] * 2


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause != "no Numba"])
def test_numpy_rotates_without_kernels(cause: str) -> None:
    assert observed(cause)["rotated"]


# --- the comparison counts the rotations in NumPy


@needs_jit
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", selfcheck.DTYPES)
def test_every_call_that_numpy_rotates_fails_the_comparison(
    dtype: str, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "WIDTHS", ((16, 16, 0),))
    calls, failed = selfcheck.compare(dtype, layout, large=False)
    assert (calls, failed) == (24, [])
    monkeypatch.setattr(Engine, "kernels_for", lambda *_: None)
    calls, failed = selfcheck.compare(dtype, layout, large=False)
    assert calls == len(failed) == 24
    assert failed[0].startswith("NumPy rotated instead of the kernel: Rope(head_dim=16")


@needs_jit
def test_a_fallback_midway_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kernels_for, asked = Engine.kernels_for, []

    def until_later(engine: Engine, storage: str) -> Any:
        asked.append(storage)
        return kernels_for(engine, storage) if len(asked) < 9 else None

    monkeypatch.setattr(Engine, "kernels_for", until_later)
    monkeypatch.setattr(selfcheck, "WIDTHS", ((16, 16, 0),))
    monkeypatch.setattr(selfcheck, "DTYPES", ("float64",))
    assert command.main([]) == 1
    output = capsys.readouterr().out
    assert re.search(r"float64   half +26 of 26 calls failed\n      NumPy rotated instead of the kernel: Rope", output)
    assert "ratio" not in output


@needs_jit
def test_a_kernel_is_never_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "WIDTHS", ((16, 16, 0),))
    monkeypatch.setattr(selfcheck, "_with_backend", lambda rope, backend: rope)
    calls, failed = selfcheck.compare("float32", "half", large=False)
    assert calls == len(failed)
    assert failed[0].startswith("NumPy did not rotate what the kernel is compared with: Rope(head_dim=16")


@needs_jit
def test_no_time_of_numpy_is_given_as_that_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "kernels_for", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"^NumPy rotated instead of the kernel: tokens=1, layout='interleaved'$"):
        next(selfcheck.timings())


def test_counting_leaves_the_rotation_in_numpy_as_it_was() -> None:
    original = selfcheck.reference.move_stored
    with pytest.raises(KeyError), selfcheck._numpy_rotations():
        raise KeyError
    assert selfcheck.reference.move_stored is original


def test_the_help_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "The exit status is 1 if" in words
    assert "if compiled kernels do not run here" in words


# --- one thread

THREADS = "from rope_numba import selfcheck; print(selfcheck.describe_machine()['threads'])"


@pytest.mark.parametrize(
    ("setting", "threads"),
    [
        (
            {"NUMBA_THREADING_LAYER": "workqueue"},
            "1 (threading layer workqueue does not allow concurrent launches)",
        ),
        ({"NUMBA_NUM_THREADS": "1"}, "1 (NUMBA_NUM_THREADS is 1)"),
        (
            {"NUMBA_THREADING_LAYER": "nonsense"},
            "1 (no threading layer can be loaded: The threading layer requested 'nonsense' is unknown to Numba.)",
        ),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_one_thread_is_printed_with_its_reason(setting: dict[str, str], threads: str) -> None:
    done = process(THREADS, **{"NUMBA_NUM_THREADS": "2", **setting})
    assert done.stdout.strip() == threads, done.stderr


def test_a_layer_that_cannot_be_loaded_is_a_reason_on_one_line() -> None:
    setting = {"NUMBA_THREADING_LAYER": "tbb", "NUMBA_NUM_THREADS": "2"}
    if process("import numba; numba.get_num_threads()", **setting).returncode == 0:
        pytest.skip("TBB is installed here")
    (line,) = process(THREADS, **setting).stdout.splitlines()
    assert line.startswith("1 (no threading layer can be loaded: No threading layer could be loaded. HINT: ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_says_why_it_is_serial() -> None:
    code = """
import os
from rope_numba.kernels import launch
if os.fork() == 0:
    print(launch.describe_threads(), flush=True)
    os._exit(0)
os.wait()
"""
    assert process(code, NUMBA_NUM_THREADS="2").stdout.strip() == "1 (a forked process starts no threads)"


@pytest.mark.parametrize("reason", [NO_JIT, FREE_THREADED, OTHER_FIELDS, NO_NUMBA])
def test_the_readme_lists_the_reason(reason: str) -> None:
    assert f"| `{reason}` |\n" in (Path(__file__).parent.parent / "README.md").read_text()
