"""How many cores a process may use: its affinity, and what a container's control group allows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import cores
from harness.run import worker

COUNTS = pytest.mark.parametrize("count", [cores.usable, worker.cores], ids=["harness", "worker"])


def root(folder: Path, group: str, quotas: dict[str, str]) -> Path:
    """A root folder with the control group of a process, and the quotas of it and its parents."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(f"4:memory:/x\n0::{group}\n")
    for name, quota in quotas.items():
        path = folder / "sys/fs/cgroup" / name / "cpu.max"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(quota)
    return folder


@COUNTS
@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("20000", 1), ("damaged", 8)])
def test_a_quota_of_the_first_version_of_control_groups_counts(
    count: Callable[[Path], int], quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Docker on an older kernel: the controller has a folder of its own, two files and -1 for no limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    folder = tmp_path / "sys/fs/cgroup/cpu"
    for path in (tmp_path / "proc/self", folder):
        path.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("7:memory:/docker/x\n4:cpuset:/y\n3:cpu,cpuacct:/docker/x\n0::/\n")
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert count(tmp_path) == expected


@COUNTS
@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"a/b": "max 100000"}, 8),
        ({"a/b": "300000 100000"}, 3),
        ({"a": "250000 100000", "a/b": "max 100000"}, 2),
        ({"": "50000 100000"}, 1),
        ({"a/b": "damaged"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_counts(
    count: Callable[[Path], int], quotas: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole cores of the tightest quota from the process's own control group up; at least one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert count(root(tmp_path, "/a/b", quotas)) == expected


def test_a_process_that_is_bound_to_one_core_counts_one() -> None:
    """Whatever the machine has; in the worker's description of the machine, too."""
    program = (
        "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        "from harness.core import cores; from harness.run import worker; from harness.run.devices.local import Local\n"
        "print(cores.usable(), worker.cores(), worker.machine()['cores'], Local().probe().cores)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1", "1"]
