"""What a device is and how it is: one script that any POSIX shell runs, and what is made of its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.run.devices.base import Probe
from harness.run.job import UNAVAILABLE

ABIS = {"arm64-v8a": "aarch64", "armeabi-v7a": "armv7l", "x86_64": "x86_64", "x86": "i686"}
VIRTUAL_MARK = "/etc/harness-virtual"  # of our own virtual devices

# Each answer on a line of its own, as key=value; what is not there stays empty.
SCRIPT = f"""
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
have() {{ command -v "$1" >/dev/null 2>&1; }}
say machine "$(uname -m)"
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
    say python "$(command -v $python) $($python -c 'import sys; print(*sys.version_info[:2], sep=".")')"
    break
done
true
"""


def parse(out: str) -> dict[str, str]:
    """Answers by key."""
    pairs = (line.partition("=") for line in out.splitlines())
    answers = {key: value.strip() for key, found, value in pairs if found and value.strip()}
    # A phone's processor may be of 64 bits and its Android of 32.
    return answers | ({"machine": ABIS.get(answers["abi"], answers["abi"])} if "abi" in answers else {})


def probe(uri: str, answers: Mapping[str, str]) -> Probe:
    """A device of its answers."""
    phone = " ".join(answers[key] for key in ("maker", "model") if key in answers)
    android = f"Android {answers['android']}" if "android" in answers else ""
    soc = f" ({answers['soc']})" if "soc" in answers else ""
    memory = answers.get("memory_kb", "")
    how, _, virtual = answers.get("virtual", "").partition(" ")
    return Probe(
        uri=uri,
        name=(phone or answers.get("board") or virtual or answers.get("host", UNAVAILABLE)) + soc,
        machine=answers.get("machine", UNAVAILABLE),
        system=android or answers.get("release") or answers.get("kernel", UNAVAILABLE),
        cores=int(answers["cores"]) if answers.get("cores", "").isdecimal() else None,
        memory_bytes=int(memory) * 1024 if memory.isdecimal() else None,
        emulated=how == "emulated" or "1" in answers.get("qemu", ""),
        state=_state(answers),
    )


def _state(answers: Mapping[str, str]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if "android" in answers:
        for key in ("thermal_status", "battery_percent"):
            value = answers.get(key, "")
            state[key] = int(value) if value.isdecimal() else UNAVAILABLE
        state["battery_saver"] = {"0": False, "1": True}.get(answers.get("battery_saver", ""), UNAVAILABLE)
    else:
        found = re.fullmatch(r"0x([0-9a-fA-F]+)", answers.get("throttled", ""))
        bits = int(found[1], 16) if found else None
        state["under_voltage"] = UNAVAILABLE if bits is None else bool(bits & 1)
        state["throttled"] = UNAVAILABLE if bits is None else bool(bits & 0b1110)
        state["throttled_since_boot"] = UNAVAILABLE if bits is None else bool(bits >> 16)
    temperature = answers.get("temperature", "")
    state["temperature_c"] = int(temperature) / 1000 if temperature.isdecimal() else UNAVAILABLE
    return state
