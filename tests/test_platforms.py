"""What other systems lack is not needed: simulated on this one, as no Windows or macOS is at hand."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from processes import run

import rope_numba as rn
from rope_numba import __main__ as command
from rope_numba import tables, undisturbed

# Taken away before anything else is imported. Of `os` and `signal`, what Python's documents call "Unix only" and other
# packages can do without.
TAKE_AWAY = """
import builtins, mmap, os, signal, sys
for name in ("fork", "forkpty", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "getloadavg",
             "O_NONBLOCK", "O_NOCTTY", "O_NOFOLLOW", "O_DIRECTORY", "posix_spawn", "getuid", "geteuid",
             "getgid", "getegid", "statvfs", "nice", "killpg", "setsid", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
for name in [name for name in dir(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))]:
    delattr(mmap, name)
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGUSR1", "pthread_sigmask", "pthread_kill", "setitimer", "alarm"):
    delattr(signal, name)
for name in ("resource", "fcntl", "grp", "pwd", "termios"):
    sys.modules[name] = None
opened = builtins.open
def open_elsewhere(file, *arguments, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(file)
    return opened(file, *arguments, **options)
builtins.open = open_elsewhere
import json
import numpy as np
import rope_numba as rn
"""


def test_rotations_tables_and_readers_need_nothing_that_other_systems_lack(
    warm_cache: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "rope_theta": 500000.0}')
    code = f"""
q, k = np.ones((600, 16, 64), np.float32), np.ones((600, 4, 64), np.float32)
p = q.copy()
rope = rn.Rope.from_hf({str(path)!r})
rope(q, k, offset=3)
numpys = rn.Rope(64, theta=500_000.0, layout="half", backend="numpy")
numpys(p, offset=3)
numpys.at(offset=60_000, tokens=3)
from rope_numba import __main__, selfcheck
print((q == p).all(), set(selfcheck.describe_machine()) >= {{"files", "Python", "NumPy"}})
print(__main__.main(["inspect", {str(path)!r}, "--json"]))
"""
    said = run(code, warm_cache, prepare=TAKE_AWAY).splitlines()
    assert (said[0], said[-1]) == ("True True", "0")


def test_without_advice_on_pages_tables_hold_the_same_rows_and_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_NOHUGEPAGE", raising=False)
    monkeypatch.setattr(tables, "_tables", {})
    monkeypatch.setattr(tables, "TOTAL_BYTES", 8 << 20)
    for theta in (1e3, 2e3, 1e3):
        rope = rn.Rope(128, theta=theta, backend="numpy")
        for first in (0, 5_000, 9_000):
            rows = rope.at(offset=first, tokens=100)._rows32[0]
            assert_same_bits(rows, tables.compute(np.arange(first, first + 100), rope.frequencies, rows.dtype))
    assert all(table.memory[2] is None for table in tables._tables.values())
    assert sum(table.bytes for table in tables._tables.values()) <= 8 << 20


@pytest.mark.parametrize(("system", "number"), [("nt", errno.EINVAL), ("posix", errno.EPIPE)])
def test_a_closed_pipe_ends_the_command_quietly(monkeypatch: pytest.MonkeyPatch, system: str, number: int) -> None:
    written: list[Any] = []
    monkeypatch.setattr(command, "_write_nowhere", lambda *streams: written.extend(streams))

    def fail() -> int:
        monkeypatch.setattr(os, "name", system)
        raise OSError(number, "a closed pipe")

    status = command.run(fail)
    monkeypatch.undo()
    assert status == command.CLOSED
    assert len(written) == 2


def test_an_invalid_argument_is_no_closed_pipe_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(command, "_write_nowhere", lambda *streams: None)
    with pytest.raises(OSError, match="Invalid argument"):
        command.run(fail)


def test_the_main_thread_never_waits_without_an_end_for_work_that_is_not_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A wait without an end is not interrupted by Ctrl-C on Windows.
    waits: list[float | None] = []
    join = threading.Thread.join

    def counted_join(self: threading.Thread, timeout: float | None = None) -> None:
        waits.append(timeout)
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", counted_join)
    monkeypatch.setattr(undisturbed, "LONGEST_WAIT", 0.01)
    release = threading.Event()
    threading.Timer(0.1, release.set).start()
    assert undisturbed.undisturbed(lambda: release.wait(60))
    assert len(waits) > 2
    assert None not in waits
