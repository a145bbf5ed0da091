"""Among how many threads work is shared out: affinity, quotas, busy processors, and other libraries' settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, normal
from processes import run

import rope_numba as rn
from rope_numba import cpus

# ---- Processors that this process may use ---------------------------------------------------------------------------


def quota(tmp_path: Path, cgroup: str, files: dict[str, str]) -> float | None:
    """Return the quota that a process of these groups has."""
    (tmp_path / "cgroup").write_text(cgroup)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    return cpus.cpu_quota(tmp_path / "cgroup", tmp_path / "fs")


def first_version(folder: str, quota: str) -> dict[str, str]:
    """Return the files of a group of cgroup v1."""
    return {f"{folder}cpu.cfs_quota_us": quota, f"{folder}cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/not/seen/here\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("3:cpuset:/\n2:cpu,cpuacct:/x\n0::/\n", first_version("cpu/x/", "250000\n"), 2.5),
        ("1:cpu:/\n0::/\n", first_version("cpu/", "-1\n"), None),
        ("9:name=systemd:/\n3:cpuset:/\n", first_version("cpu/", "100000\n"), None),
    ],
)  # fmt: skip
def test_the_quota_is_the_least_of_a_group_and_of_those_around_it(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: float | None
) -> None:
    assert quota(tmp_path, cgroup, files) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"max", b"100000", b"100000 0", b"0 100000", b"1 2 3", b"1 x", b"-1 -1", b"\xff\xfe 1"),
        *("\u00b2 1".encode(), b"9" * 400 + b" 1", b"9" * 5000),
    ],
)
def test_limits_that_linux_does_not_write_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "cpu.max").write_bytes(text)
    (tmp_path / "cgroup").write_text("0::/\n")
    assert cpus.cpu_quota(tmp_path / "cgroup", tmp_path) is None


@pytest.mark.parametrize("line", [b"", b"hello", b"0:cpu", b"1:cpuset:/"])
def test_lines_without_a_group_for_processors_are_passed_over(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "cgroup").write_bytes(line + b"\n")
    assert cpus.cpu_quota(tmp_path / "cgroup", tmp_path) is None


@pytest.mark.parametrize(
    "path", [b"", b"/\xff", b"/a:b", b"/\x85\x0b\xe2\x80\xa8", b"/\0", b"/" + b"x" * 9000, b"/../.."]
)
def test_groups_of_any_name_are_looked_for_and_the_root_counts(tmp_path: Path, path: bytes) -> None:
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "cgroup").write_bytes(b"0::" + path + b"\n")
    assert cpus.cpu_quota(tmp_path / "cgroup", tmp_path) == 2.0


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpus.cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.1, 1), (2, 16.0, 2), (1, None, 1)],
)
def test_available_processors_are_those_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    assert cpus.available_cpus() == expected


def test_where_no_affinity_is_known_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: None)
    assert cpus.available_cpus() == (os.cpu_count() or 1)


# ---- Threads of a launch --------------------------------------------------------------------------------------------


@needs_jit
@pytest.mark.parametrize(
    ("numbas", "of_this_thread", "available", "expected"),
    [(8, 8, 8, 8), (8, 8, 2, 2), (8, 8, 16, 8), (8, 3, 4, 3), (5, 5, 2, 5), (5, 4, 2, 4)],
)
def test_a_launch_takes_numbas_number_or_what_is_available_unless_numbas_was_set(
    monkeypatch: pytest.MonkeyPatch, numbas: int, of_this_thread: int, available: int, expected: int
) -> None:
    from rope_numba.kernels import threads

    monkeypatch.setattr(numba.config, "NUMBA_DEFAULT_NUM_THREADS", 8)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", numbas)  # 5: somebody has set it
    monkeypatch.setattr(threads, "get_num_threads", lambda: of_this_thread)
    monkeypatch.setattr(threads, "_available", available)
    assert threads.count_threads() == expected


@needs_jit
def test_loops_of_an_entry_take_the_number_of_threads_that_it_is_given() -> None:
    from rope_numba.kernels.launch import can_run_parallel
    from rope_numba.kernels.machine import get_n_threads, set_n_threads

    if not can_run_parallel():
        pytest.skip("no second thread here")

    @numba.njit(parallel=True)
    def workers(n_threads: int) -> Any:
        before = get_n_threads()
        set_n_threads(n_threads)
        used = np.zeros(64, np.int64)
        for index in numba.prange(64):
            used[index] = numba.get_thread_id()
        set_n_threads(before)
        return used

    most = numba.get_num_threads()
    for n_threads in range(1, most + 1):
        assert len(set(workers(n_threads).tolist())) == n_threads
        assert numba.get_num_threads() == most


@needs_jit
def test_a_quota_of_one_processor_makes_no_launch(warm_cache: dict[str, str]) -> None:
    code = """
from rope_numba import cpus
cpus.cpu_quota = lambda: 0.5
assert right(large)
from rope_numba.kernels import launch
print(launch.in_place_for("f32", "half")._parallel, launch.describe_threads())
"""
    printed = run(code, warm_cache)
    if (os.cpu_count() or 1) > 1:
        assert printed.startswith("None 1, threading layer ")
        assert printed.endswith(f"as this process may use 1 of {numba.config.NUMBA_DEFAULT_NUM_THREADS} processors")


# ---- Busy processors ------------------------------------------------------------------------------------------------


class Clock:
    """A clock that tests set, in microseconds."""

    now = 100_000_000

    def perf_counter_ns(self) -> int:
        return 1000 * self.now

    def takes(self, microseconds: int, status: int = 0) -> Any:
        """Return a call that takes so long."""

        def call() -> int:
            self.now += microseconds
            return status

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    from rope_numba.kernels import threads

    clock = Clock()
    monkeypatch.setattr(threads, "time", clock)
    return clock


@needs_jit
def test_after_a_launch_that_lost_time_one_thread_works_for_twenty_times_as_long(clock: Clock) -> None:
    from rope_numba.kernels import threads

    contention = threads.Contention()
    contention.time_serial("kernels", 1_000_000, clock.takes(1000))
    contention.time_launch("kernels", 1_000_000, clock.takes(500))
    contention.time_launch("kernels", 1_000_000, clock.takes(2100))  # twice as long, and within the slack
    assert (contention.is_likely(), contention.launches, contention.lost) == (False, 2, 0)
    contention.time_launch("kernels", 1_000_000, clock.takes(12_200))  # 10 ms more than twice and the slack
    assert (contention.is_likely(), contention.launches, contention.lost) == (True, 3, 1)
    clock.now += 199_000
    assert contention.is_likely()
    clock.now += 2000
    assert not contention.is_likely()


@needs_jit
def test_one_thread_works_for_two_seconds_at_most_after_any_stop(clock: Clock) -> None:
    from rope_numba.kernels import threads

    contention = threads.Contention()
    contention.time_launch("kernels", 1_000_000, clock.takes(60_000_000))
    clock.now += 1_999_000
    assert contention.is_likely()
    clock.now += 2000
    assert not contention.is_likely()


@needs_jit
def test_what_one_thread_takes_is_the_least_for_kernels_and_size_since_time_was_lost(clock: Clock) -> None:
    from rope_numba.kernels import threads

    contention = threads.Contention()
    for microseconds in (4000, 1000, 3000):
        contention.time_serial("kernels", 1_000_000, clock.takes(microseconds))
    contention.time_launch("kernels", 1_000_000, clock.takes(3000))
    assert contention.lost == 1
    contention.time_serial("kernels", 1_000_000, clock.takes(3000))
    contention.time_launch("kernels", 1_000_000, clock.takes(6000))
    assert contention.lost == 1
    # Of another size, and of other kernels, nothing is known yet: 1 ns an element is assumed.
    contention.time_launch("kernels", 3_000_000, clock.takes(6100))
    contention.time_launch("others", 1_000_000, clock.takes(2100))
    assert contention.lost == 1
    contention.time_launch("others", 1_000_000, clock.takes(2300))
    assert contention.lost == 2


@needs_jit
def test_calls_that_did_nothing_say_nothing_of_one_threads_time(clock: Clock) -> None:
    from rope_numba.kernels import threads
    from rope_numba.kernels.flags import Status

    contention = threads.Contention()
    contention.time_serial("kernels", 1_000_000, clock.takes(1, Status.NEEDS_CHECK))
    contention.time_launch("kernels", 1_000_000, clock.takes(1000))
    assert contention.lost == 0


@needs_jit
def test_of_data_that_no_cache_holds_a_launch_must_be_as_quick_as_one_thread(clock: Clock) -> None:
    from rope_numba.kernels import threads

    contention = threads.Contention()
    contention.time_serial("kernels", 20_000_000, clock.takes(20_000))
    contention.time_launch("kernels", 20_000_000, clock.takes(20_100))
    assert contention.lost == 0
    contention.time_launch("kernels", 20_000_000, clock.takes(20_300))
    assert contention.lost == 1


@needs_jit
def test_while_processors_are_busy_large_work_is_serial_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba.kernels import launch

    def not_now(*_: Any) -> Any:
        raise AssertionError("a launch")

    monkeypatch.setattr(launch.contention, "is_likely", lambda: True)
    monkeypatch.setattr(launch._Kernels, "get_parallel", not_now)
    q = normal((300, 8, 128))
    expected = rn.Rope(128, backend="numpy")(q.copy(), offset=7)
    out = rn.Rope(128)(q, offset=7, out=np.zeros_like(q))
    assert_same_bits(out, expected)
    assert_same_bits(rn.Rope(128)(q, offset=7), expected)


@needs_jit
def test_the_self_check_says_what_to_do_where_launches_lost_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from rope_numba import selfcheck
    from rope_numba.kernels import launch

    monkeypatch.setattr(launch.contention, "launches", 40)
    monkeypatch.setattr(launch.contention, "lost", 0)
    assert selfcheck.describe_contention() == ""
    monkeypatch.setattr(launch.contention, "lost", 12)
    advice = selfcheck.describe_contention()
    assert advice.startswith("Of 40 parallel calls 12 took longer than on one thread")
    assert "OMP_WAIT_POLICY=passive" in advice
    assert "NUMBA_NUM_THREADS=1" in advice


# ---- Other libraries' threads ---------------------------------------------------------------------------------------

OPENMP = """
import ctypes, threading
from concurrent.futures import ThreadPoolExecutor
try:
    from numba.np.ufunc import omppool
except ImportError:
    print("no OpenMP"), sys.exit()
openmp = ctypes.CDLL(omppool.__file__)  # and what it is linked with: the OpenMP that every library here shares

def keeps(number):
    openmp.omp_set_num_threads(number)
    for _ in range(3):
        assert right(large)
    return openmp.omp_get_max_threads() == number
"""


@needs_jit
@pytest.mark.process
@pytest.mark.parametrize("first", ["the main thread", "a thread of a pool"])
def test_openmps_number_of_threads_stays_as_it_was_in_every_thread(first: str, warm_cache: dict[str, str]) -> None:
    in_pool = "with ThreadPoolExecutor(3) as pool: answers += pool.map(keeps, [1, 3, 1, 5])"
    lines = ["answers = []", "answers.append(keeps(1))", in_pool, "print(set(answers))"]
    if first == "a thread of a pool":
        lines[1:3] = lines[2:0:-1]
    printed = run(OPENMP + "\n".join(lines), warm_cache, NUMBA_THREADING_LAYER="omp")
    assert printed in ("{True}", "no OpenMP")


@needs_jit
@pytest.mark.process
@pytest.mark.peers
def test_torchs_and_threadpoolctls_numbers_of_threads_stay(warm_cache: dict[str, str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("threadpoolctl")
    code = """
import torch, threadpoolctl
def numbers():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
torch.set_num_threads(1)
before = numbers()
assert right(large)
print(torch.get_num_threads(), before.items() <= numbers().items())
with threadpoolctl.threadpool_limits(1):
    before = numbers()
    assert right(large)
    print(set(before.values()), before == numbers())
"""
    printed = run(code, warm_cache, NUMBA_THREADING_LAYER="omp").splitlines()
    assert printed == ["1 True", "{1} True"]
