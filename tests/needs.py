"""What a test needs of this machine: programs and rights, looked for by name, and never by catching an error of ours.

A test whose need is missing is skipped. HARNESS_REQUIRE names the needs whose absence is a failure instead, separated
by commas, or "all": CI sets it, so that nothing is skipped in silence where everything can be had.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from ctypes.util import find_library
from pathlib import Path
from typing import NoReturn

import pytest

ARM = "aarch64"


def _program(name: str, package: str) -> str:
    """In words what is missing, or nothing."""
    return "" if shutil.which(name) else f"{name} is not installed (apt-get install {package})"


def _browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    return "" if any(map(shutil.which, names)) else "Chromium is not installed (apt-get install chromium)"


def _root() -> str:
    if platform.system() != "Linux":
        return f"needs Linux, this is {platform.system()}"
    return "" if os.geteuid() == 0 else "needs root, for chroot"


def _devices() -> str:
    programs = {"adb": "adb", "ssh": "openssh-client", "sshd": "openssh-server", "mmdebstrap": "mmdebstrap"}
    return _root() or next(filter(None, (_program(*pair) for pair in programs.items())), "")


def _emulation() -> str:
    """Programs of another processor: binfmt_misc must be there, or this process must be allowed to mount it."""
    if missing := _devices() or _program(f"qemu-{ARM}-static", "qemu-user-static"):
        return missing
    if platform.machine() == ARM or Path("/proc/sys/fs/binfmt_misc/register").exists():
        return ""
    return "binfmt_misc may not be mounted here" if subprocess.run(_MOUNT, capture_output=True).returncode else ""


_MOUNT = ["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"]


def _namespaces() -> str:
    if missing := _devices() or _program("ip", "iproute2"):
        return missing
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return f"network namespaces may not be made here ({done.stderr.strip()})" if done.returncode else ""


def _tmpfs() -> str:
    if missing := _root():
        return missing
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True
    )
    return f"no tmpfs may be mounted here ({done.stderr.strip()})" if done.returncode else ""


def _peak_memory() -> str:
    return "" if Path("/proc/self/status").exists() else "peak memory is read from /proc/self/status, on Linux"


SWIFTSHADER = tuple(Path("/usr/lib").glob("chromium*/vk_swiftshader_icd.json"))


def _accelerators() -> str:
    """A Vulkan driver in software: Chromium's own."""
    if not SWIFTSHADER:
        return "there is no Vulkan driver in software (apt-get install chromium)"
    return "" if find_library("vulkan") else "there is no Vulkan loader (apt-get install libvulkan1)"


def _npu() -> str:
    return "" if importlib.util.find_spec("openvino") else "openvino is not installed (pip install openvino==2026.3.1)"


def _npm() -> str:
    return _program("npm", "npm") or _program("node", "nodejs")


def _valgrind() -> str:
    if platform.machine() != "x86_64":
        return f"instructions are counted on x86-64, this is {platform.machine()}"
    return _program("valgrind", "valgrind")


def _openssl() -> str:
    return _program("openssl", "openssl")


NEEDS: Mapping[str, Callable[[], str]] = {
    "browser": _browser,
    "devices": _devices,
    "emulation": _emulation,
    "namespaces": _namespaces,
    "tmpfs": _tmpfs,
    "peak memory": _peak_memory,
    "accelerators": _accelerators,
    "npu": _npu,
    "npm": _npm,
    "openssl": _openssl,
    "valgrind": _valgrind,
}


def needs(*names: str) -> None:
    """Skip the test that calls this, or whose fixture does, where one of the needs is missing."""
    for name in names:
        if missing := NEEDS[name]():
            absent(name, missing)


def absent(name: str, why: str) -> NoReturn:
    """Skip, or fail where HARNESS_REQUIRE names it."""
    if {name, "all"} & set(os.environ.get("HARNESS_REQUIRE", "").split(",")):
        pytest.fail(f"HARNESS_REQUIRE asks for {name}: {why}", pytrace=False)
    pytest.skip(f"{name}: {why}")
