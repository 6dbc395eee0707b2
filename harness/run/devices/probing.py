"""What a device is and what state it is in: one script that any POSIX shell runs, and how its answers are read.

The answers come from another machine: known keys only, of limited length, fit for a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.run.devices import shell
from harness.run.devices.base import Probe, State
from harness.run.job import UNAVAILABLE

ABIS = {"arm64-v8a": "aarch64", "armeabi-v7a": "armv7l", "x86_64": "x86_64", "x86": "i686"}
OF_32_BITS = {"aarch64": "armv7l", "x86_64": "i686"}  # what a 32-bit program sees of a 64-bit processor
VIRTUAL_MARK = "/etc/harness-virtual"  # of our own virtual devices

# Each answer on a line of its own, as key=value; empty if it cannot be had.
SCRIPT = f"""
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
have() {{ command -v "$1" >/dev/null 2>&1; }}
say kernel_machine "$(uname -m)"
say kernel "$(uname -sr)"
say cores "$(nproc 2>/dev/null)"
say memory_kb "$(sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo 2>/dev/null)"
say board "$(tr -d '\\0' 2>/dev/null < /proc/device-tree/model)"
say host "$(uname -n)"
say release "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"')"
say virtual "$(test -e {VIRTUAL_MARK} && cat {VIRTUAL_MARK})"
if have getprop; then
    say maker "$(getprop ro.product.manufacturer)"
    say model "$(getprop ro.product.model)"
    say android "$(getprop ro.build.version.release)"
    say abi "$(getprop ro.product.cpu.abi)"
    say soc "$(getprop ro.soc.model)"
    say qemu "$(getprop ro.kernel.qemu)$(getprop ro.boot.qemu)"
fi
if have dumpsys; then
    dumpsys thermalservice 2>/dev/null | sed -n 's/^Thermal Status: */thermal_status=/p' | sed q
    dumpsys battery 2>/dev/null | sed -n 's/^ *level: */battery_percent=/p' | sed q
    say battery_saver "$(settings get global low_power 2>/dev/null)"
fi
have vcgencmd && say throttled "$(vcgencmd get_throttled 2>/dev/null | sed 's/.*=//')"
say temperature "$(cat /sys/class/thermal/thermal_zone0/temp 2>/dev/null)"
for python in python3 python; do
    have $python || continue
    say python "$(command -v $python)"
    $python -c 'import struct, sys
print("python_version=%d.%d" % sys.version_info[:2])
print("python_bits=%d" % (8 * struct.calcsize("P")))'
    break
done
true
"""
KEYS = {*re.findall(r"\bsay (\w+)", SCRIPT), *re.findall(r"(\w+)=%d", SCRIPT), "thermal_status", "battery_percent"}


def parse(out: str) -> dict[str, str]:
    """Answers by key; `machine` is that of the programs there, which may have 32 bits on a kernel of 64."""
    answers = {}
    for line in out.splitlines():
        key, _, value = line.partition("=")
        if key in KEYS and (value := shell.plain(value)):
            answers[key] = value
    machine = ABIS.get(answers.get("abi", ""), answers.get("abi")) or answers.get("kernel_machine")
    if machine and answers.get("python_bits") == "32":
        machine = OF_32_BITS.get(machine, machine)
    return answers | ({"machine": machine} if machine else {})


def probe(uri: str, answers: Mapping[str, str]) -> Probe:
    """A device from its answers."""
    phone = " ".join(answers[key] for key in ("maker", "model") if key in answers)
    android = f"Android {answers['android']}" if "android" in answers else ""
    soc = f" ({answers['soc']})" if "soc" in answers else ""
    memory_kb = _number(answers, "memory_kb")
    how, _, virtual = answers.get("virtual", "").partition(" ")
    return Probe(
        uri=uri,
        name=(phone or answers.get("board") or virtual or answers.get("host", UNAVAILABLE)) + soc,
        machine=answers.get("machine", UNAVAILABLE),
        system=android or answers.get("release") or answers.get("kernel", UNAVAILABLE),
        cores=_number(answers, "cores"),
        memory_bytes=None if memory_kb is None else memory_kb * 1024,
        emulated=how == "emulated" or "1" in answers.get("qemu", ""),
        state=_state(answers),
    )


def _state(answers: Mapping[str, str]) -> State:
    state: dict[str, bool | int | float | str] = {}
    if "android" in answers:
        for key in ("thermal_status", "battery_percent"):
            number = _number(answers, key)
            state[key] = UNAVAILABLE if number is None else number
        state["battery_saver"] = {"0": False, "1": True}.get(answers.get("battery_saver", ""), UNAVAILABLE)
    else:
        match = re.fullmatch(r"0x([0-9a-fA-F]{1,8})", answers.get("throttled", ""))
        bits = int(match[1], 16) if match else None
        state["under_voltage"] = UNAVAILABLE if bits is None else bool(bits & 1)
        state["throttled"] = UNAVAILABLE if bits is None else bool(bits & 0b1110)
        state["throttled_since_boot"] = UNAVAILABLE if bits is None else bool(bits >> 16)
    millidegrees = _number(answers, "temperature")
    state["temperature_c"] = UNAVAILABLE if millidegrees is None else millidegrees / 1000
    return state


def _number(answers: Mapping[str, str], key: str) -> int | None:
    """A count. None if it is missing or not one."""
    text = answers.get(key, "")
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None
