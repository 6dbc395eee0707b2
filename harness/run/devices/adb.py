"""An Android phone through the `adb` program."""

from __future__ import annotations

import shutil
import threading
import time

from harness.run.devices import shell
from harness.run.devices.base import Executed, UnreachableError
from harness.run.devices.shell import quoted

FOLDER = "/data/local/tmp/tflite-harness"
INSTALL = "install it: apt-get install adb, brew install android-platform-tools, or Google's platform-tools"
NO_DEVICE = (
    "no device is connected; plug one in, allow USB debugging in its developer options, "
    "or start one without hardware: harness device virtual phone"
)
SETTLES_WITHIN_S = 5.0
REMEDIES = {
    "unauthorized": "unauthorized; unlock it, accept 'Allow USB debugging?' on its screen, and run again",
    "authorizing": "still unauthorized; unlock it, accept 'Allow USB debugging?' on its screen, and run again",
    "offline": "offline; unplug it and plug it in again, or: adb reconnect offline; and run again",
    "no permissions": "this user may not open the USB device; install android-sdk-platform-tools-common, join plugdev",
    "bootloader": "in its bootloader; start Android on it",
    "recovery": "in recovery; start Android on it",
    "sideload": "waiting for a sideload; start Android on it",
}
GONE = "not connected, or no longer; see harness device list, connect it, and run again"
_STARTING = threading.Lock()  # of two programs that start adb's server at once, one fails


def connected() -> dict[str, str]:
    """State by serial of every device that adb knows. Raises UnreachableError: no adb, or its server is silent."""
    if not shutil.which("adb"):
        raise UnreachableError(f"adb://: adb is not installed; {INSTALL}")
    with _STARTING:
        done = shell.local(["adb", "devices"], 30)
    if done is None or done.code:
        raise UnreachableError(f"adb://: adb's server does not answer ({_last(done)}); adb kill-server, and run again")
    pairs = (line.rpartition("\t") for line in done.out.splitlines() if "\t" in line)
    return {serial: state for serial, _, state in pairs}


def remedy(state: str) -> str:
    """What to do about a device's state."""
    return next((text for known, text in REMEDIES.items() if state.startswith(known)), f"in state {state!r}")


class Adb:
    """serial: None where exactly one device is connected; host:port is connected to."""

    def __init__(self, serial: str | None) -> None:
        self._wanted = serial
        self.serial = serial or ""
        self.name = f"adb://{self.serial}"

    def open(self) -> None:
        states = connected()
        serial = self._wanted
        if serial is None:
            if not states:
                raise UnreachableError(f"adb://: {NO_DEVICE}")
            if len(states) > 1:
                names = ", ".join(f"adb://{name}" for name in states)
                raise UnreachableError(f"adb://: {len(states)} devices are connected ({names}); name one of them")
            (serial,) = states
        self.serial, self.name = serial, f"adb://{serial}"
        if _is_address(serial) and states.get(serial) != "device":
            # After its daemon restarted, a known address stays offline until it is forgotten.
            shell.local(["adb", "disconnect", serial], 20)
            shell.local(["adb", "connect", serial], 20)
            states = connected()
        deadline = time.monotonic() + SETTLES_WITHIN_S
        while states.get(serial) in ("authorizing", "connecting") and time.monotonic() < deadline:
            time.sleep(0.2)
            states = connected()
        if (state := states.get(serial)) != "device":
            raise UnreachableError(f"{self.name}: {remedy(state) if state else self._unknown(states)}")

    def close(self) -> None:
        pass

    def reopen(self) -> None:
        self.open()

    def command(self, script: str) -> list[str]:
        return ["adb", "-s", self.serial, "shell", "-T", quoted("exec", "sh", "-c", script)]

    def explain(self, error: str) -> str:
        try:
            state = connected().get(self.serial)
        except UnreachableError as unreachable:
            return str(unreachable)
        if state is None:
            return GONE
        if state != "device":
            return remedy(state)
        return f"{shell.plain(error) or 'the connection was cut while a command ran'}; run again"

    def _unknown(self, states: dict[str, str]) -> str:
        known = ", ".join(f"adb://{name}" for name in states)
        return f"not connected; connected are {known}" if known else NO_DEVICE


def _is_address(serial: str) -> bool:
    host, colon, port = serial.rpartition(":")
    return bool(host and colon and port.isdecimal())


def _last(done: Executed | None) -> str:
    return "no answer" if done is None else shell.plain(done.error) or f"exit code {done.code}"
