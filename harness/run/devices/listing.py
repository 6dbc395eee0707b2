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
# For Android as apps run it; they come from nowhere but the user.
GOOGLES = (
    "an Android phone's GPU and NPU: harness check --run-model FILE (answers) and --benchmark-model FILE (times), with "
    "LiteRT's tools for Android, which you build from its sources: bazel build --config=android_arm64 "
    "//litert/tools:run_model //litert/tools:benchmark_model"
)


@dataclass(frozen=True)
class Listed:
    """A device, or why it cannot be reached. python: its version there."""

    uri: str
    probe: Probe | None
    python: str = ""
    problem: str = ""


def look(named: Sequence[str]) -> list[Listed]:
    """This machine, all that adb knows, and the devices named."""
    serials, problems = {}, []
    try:
        serials = adb.connected()
    except UnreachableError as error:
        problems = [Listed("adb://", None, problem=str(error))]
    addresses = [*(f"adb://{serial}" for serial in serials), *(address for address in named if address != URI)]
    addresses = list(dict.fromkeys(addresses))
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        return [Listed(URI, Local().probe(), "this one"), *pool.map(_look, addresses), *problems]


def clean(addresses: Sequence[str]) -> int:
    """Remove the harness's files from devices, and print that. Raises SetupError."""
    for address in addresses:
        with uri.remote(address) as device:
            device.clean()
            print(f"{device.uri}: clean")
    return Exit.PASS


def text(devices: Sequence[Listed]) -> str:
    """A row each, and under them the remedies."""
    table = tabulate(map(_row, devices), HEADERS, tablefmt="simple", disable_numparse=True)
    problems = [device.problem for device in devices if device.problem]
    return "\n".join([table, *([""] if problems else []), *problems, "", GOOGLES])


def _look(address: str) -> Listed:
    try:
        with uri.remote(address) as device:
            probe = device.probe()
            return Listed(address, probe, device.answers.get("python_version", "brought along"))
    except SetupError as error:
        return Listed(address, None, problem=str(error))


def _row(device: Listed) -> tuple[str, ...]:
    if device.probe is None:
        return (device.uri, *["-"] * 6, "not usable")
    probe = device.probe
    state = [f"{name.replace('_', ' ')} {value}" for name, value in probe.state.items() if value != UNAVAILABLE]
    return (
        device.uri,
        probe.name,
        probe.system,
        f"{probe.machine} (emulated)" if probe.emulated else probe.machine,
        str(probe.cores or "-"),
        f"{probe.memory_bytes / 2**30:.1f} GiB" if probe.memory_bytes else "-",
        device.python,
        ", ".join(state) or "-",
    )
