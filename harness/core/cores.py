"""How many processor cores this process may use."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

# Lines of /proc/self/cgroup: the processor's controller, which version 1 of control groups names, and the group's path.
GROUPS = r"^\d+:(|(?:[\w,]+,)?cpu(?:,[\w,]+)?):/(.*)"


def usable(root: Path = Path("/")) -> int:
    """The cores of its affinity, or fewer where a control group (a container's --cpus) allows less processor time.

    On devices, which do not have this package, `harness.run.worker.cores` counts alike. root: of /proc and /sys.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    groups = []
    with suppress(OSError):
        groups = re.findall(GROUPS, (root / "proc/self/cgroup").read_text(), re.M)
    for version_1, path in groups:
        folder = root / "sys/fs/cgroup" / ("cpu" if version_1 else "") / path
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version_1 else ("cpu.max",)
        for parent in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # no such file; "max": no limit
                quota, period = map(int, " ".join((parent / name).read_text() for name in names).split())
                cores = min(cores, quota / period) if quota > 0 else cores
    return max(1, int(cores))
