"""Which devices can be reached, what they are, and what to do about the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tabulate import tabulate

from harness.core.errors import Exit, SetupError
from harness.run.devices import adb, uri
from harness.run.devices.base import Probe, UnreachableError
from harness.run.devices.local import URI, Local
from harness.run.job import UNAVAILABLE

HEADERS = ("device", "what", "system", "processor", "cores", "memory", "Python", "state")


@dataclass(frozen=True)
class Seen:
    """A device, or what keeps it from being reached."""

    uri: str
    probe: Probe | None
    python: str = ""
    problem: str = ""


def look(named: Sequence[str]) -> list[Seen]:
    """This machine, all that adb knows, and the devices named."""
    found, problems = [], []
    try:
        found = [f"adb://{serial}" for serial in adb.connected()]
    except UnreachableError as error:
        problems = [Seen("adb://", None, problem=str(error))]
    uris = list(dict.fromkeys([*found, *(one for one in named if one != URI)]))
    with ThreadPoolExecutor(max(1, len(uris))) as pool:
        return [Seen(URI, Local().probe(), "this one"), *pool.map(_look, uris), *problems]


def clean(named: Sequence[str]) -> int:
    """Remove the harness's files from devices; says so. Raises SetupError."""
    for one in named:
        with uri.remote(one) as device:
            device.clean()
            print(f"{device.uri}: clean")
    return Exit.PASS


def text(seen: Sequence[Seen]) -> str:
    """A row each, and under them the remedies."""
    rows = [_row(one) for one in seen]
    table = tabulate(rows, HEADERS, tablefmt="simple", disable_numparse=True)
    problems = [one.problem for one in seen if one.problem]
    return "\n".join([table, *([""] if problems else []), *problems])


def _look(address: str) -> Seen:
    try:
        with uri.remote(address) as device:
            probe = device.probe()
            python = device.answers.get("python", "").rpartition(" ")[2]
            return Seen(address, probe, python or "brought along")
    except SetupError as error:
        return Seen(address, None, problem=str(error))


def _row(one: Seen) -> tuple[str, ...]:
    if one.probe is None:
        return (one.uri, *["-"] * 6, "not usable")
    probe = one.probe
    state = [f"{name.replace('_', ' ')} {value}" for name, value in probe.state.items() if value != UNAVAILABLE]
    return (
        one.uri,
        probe.name,
        probe.system,
        f"{probe.machine} (emulated)" if probe.emulated else probe.machine,
        str(probe.cores or "-"),
        f"{probe.memory_bytes / 2**30:.1f} GiB" if probe.memory_bytes else "-",
        one.python,
        ", ".join(state) or "-",
    )
