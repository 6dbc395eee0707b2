"""How many processor cores this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def usable(root: Path = Path("/")) -> int:
    """The cores of its affinity, or fewer where a control group (a container's --cpus) allows less processor time.

    On devices, which do not have this package, `harness.run.worker.cores` counts alike. root: of /proc and /sys.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    groups = []
    with suppress(OSError):
        groups = [line[4:] for line in (root / "proc/self/cgroup").read_text().splitlines() if line.startswith("0::/")]
    for group in groups:
        folder = root / "sys/fs/cgroup" / group
        for parent in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # no such file; "max": no limit
                quota, period = map(int, (parent / "cpu.max").read_text().split())
                cores = min(cores, quota / period)
    return max(1, int(cores))
