"""How many processors this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_cpus", "cpu_quota"]

MOST_DIGITS = 16  # of microseconds


def available_cpus() -> int:
    """Return how many processors may run threads of this process: of its affinity, and no more than its quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity that is inherited
        count = os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else min(count, max(1, -int(-quota // 1)))  # 1.5 processors take two threads


@functools.cache
def cpu_quota(cgroups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processors' time a second that Linux grants this process, or None without a limit.

    References
    ----------
    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and
    https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us)
    """
    try:
        lines = cgroups.read_bytes().split(b"\n")
    except OSError:  # not Linux
        return None
    quotas: list[float] = []
    for line in lines:
        _, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if colon and not controllers:
            quotas += _quotas(root, path, ["cpu.max"])
        elif b"cpu" in controllers.split(b","):
            quotas += _quotas(root / "cpu", path, ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
    return min(quotas, default=None)


def _quotas(mount: Path, path: bytes, names: list[str]) -> Iterator[float]:
    """Yield the limits of a group and of those that it is part of; in a container they may be at the mount's root."""
    group = mount / os.fsdecode(path).lstrip("/")
    for folder in (group, *group.parents):
        if mount not in (folder, *folder.parents):
            return
        try:
            words = b" ".join((folder / name).read_bytes() for name in names).split()
        except (OSError, ValueError):  # no such group here, no limits at the root, or a path that is none
            continue
        # Else "max", -1, or nothing that Linux writes.
        if len(words) == 2 and all(word.isdigit() and len(word) < MOST_DIGITS and int(word) for word in words):
            yield int(words[0]) / int(words[1])
