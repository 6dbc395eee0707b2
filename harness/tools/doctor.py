"""What on this machine would disturb latency, the worst first, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.outcome import Outcome
from harness.run.worker import CPU, PI_THROTTLED, STATE, Gauges, number, output, text

WATCHED_S = 1.0
BUSY = 0.05  # of the cores' time
STOLEN = 0.01  # of the cores' time
HOT_C = 75.0
MIN_MEMORY_BYTES = 300e6
PI_BITS = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "at its soft temperature limit now",
    16: "under-voltage since boot",
    17: "frequency capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}


@dataclass(frozen=True)
class Advice:
    """An observation and what to do about it. todo: empty if it cannot be changed here but should be known."""

    seen: str
    todo: str = ""


def examine(root: Path = Path("/"), watched_s: float = WATCHED_S) -> list[Advice]:
    """All advice, the most harmful first. root: of /proc and /sys, for tests."""
    gauges = Gauges([], root)
    gauges.ask()
    before = gauges.read()
    time.sleep(watched_s)
    change = dict(zip(STATE, (after - first for after, first in zip(gauges.read(), before, strict=True)), strict=True))
    now = dict(zip(STATE, gauges.read(), strict=True))
    advice = [*_power(root, now), *_load(root, change), *_frequency(root), *_memory(root), *_unavailable(root, now)]
    return sorted(advice, key=lambda item: not item.todo)


def outcome(advice: Sequence[Advice]) -> Outcome:
    """INCONCLUSIVE if something should be changed before latency is measured."""
    return Outcome.INCONCLUSIVE if any(item.todo for item in advice) else Outcome.PASS


def _power(root: Path, now: dict[str, float]) -> Iterator[Advice]:
    shown = text(root / PI_THROTTLED) or output("vcgencmd", "get_throttled").strip().rpartition("=")[2]
    bits = int(shown, 16) if shown else 0
    if bits:
        seen = ", ".join(what for bit, what in PI_BITS.items() if bits >> bit & 1)
        yield Advice(f"Raspberry Pi: {seen}", "use the official power supply and cable, and a fan; then reboot")
    if now["temperature_c"] > HOT_C:
        yield Advice(f"the processor is at {now['temperature_c']:.0f} C", "cool it, or let it rest: --cooldown 300")
    if now["throttle_count"] > 0:
        yield Advice(
            f"the processor was throttled {now['throttle_count']:.0f} times since boot", "clean or add cooling"
        )
    for status in root.glob("sys/class/power_supply/*/status"):
        if text(status) == "Discharging":
            yield Advice("running on battery", "plug it in")


def _load(root: Path, change: dict[str, float]) -> Iterator[Advice]:
    if (busy := change["others_s"] / change["clock_s"]) > BUSY:
        yield Advice(
            f"other programs keep {busy:.0%} of the cores busy",
            "stop them; ps -eo pcpu,pid,args --sort=-pcpu | head names them",
        )
    if (stolen := change["steal_s"] / change["clock_s"]) > STOLEN:
        yield Advice(
            f"the hypervisor gives {stolen:.0%} of the cores' time to other guests", "measure on a machine of your own"
        )
    quota, _, period = text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit():
        cores = int(quota) / int(period)
        yield Advice(f"this container may use {cores:g} cores' time, then it is stopped", "start it without --cpus")


def _frequency(root: Path) -> Iterator[Advice]:
    governors = {text(path) for path in root.glob(f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor")} - {"", "performance"}
    if governors:
        yield Advice(
            f"frequency governor {', '.join(sorted(governors))}",
            f"echo performance | sudo tee /{CPU}/cpu*/cpufreq/scaling_governor",
        )
    if text(root / CPU / "intel_pstate" / "no_turbo") == "0":
        yield Advice("turbo is on", f"echo 1 | sudo tee /{CPU}/intel_pstate/no_turbo")
    elif text(root / CPU / "cpufreq" / "boost") == "1":
        yield Advice("boost is on", f"echo 0 | sudo tee /{CPU}/cpufreq/boost")


def _memory(root: Path) -> Iterator[Advice]:
    rows = dict(line.split(":", 1) for line in text(root / "proc/meminfo").splitlines() if ":" in line)
    free = number(rows.get("MemAvailable", "").split(" kB")[0]) * 1024
    if free < MIN_MEMORY_BYTES:
        yield Advice(f"{free / 1e6:.0f} MB of memory are free", "stop other programs, or swapping will be measured")


def _unavailable(root: Path, now: dict[str, float]) -> Iterator[Advice]:
    names = {"frequency_hz": "frequency", "temperature_c": "temperature", "others_s": "load", "steal_s": "stolen time"}
    if hidden := [name for key, name in names.items() if now[key] != now[key]]:
        where = ", as usual in a virtual machine" if "hypervisor" in text(root / "proc/cpuinfo") else ""
        yield Advice(
            f"unavailable{where}: {', '.join(hidden)}; only the A/A control and the intervals show their effect"
        )
    if hasattr(os, "sched_getaffinity") and (cores := len(os.sched_getaffinity(0))) < (os.cpu_count() or 1):
        yield Advice(f"this process may use {cores} of {os.cpu_count()} cores")
