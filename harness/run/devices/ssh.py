"""A Raspberry Pi, or any Linux machine, through plain OpenSSH."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import tempfile

from harness.run.devices import shell
from harness.run.devices.base import UnreachableError
from harness.run.devices.shell import quoted

CONNECT_TIMEOUT_S = 15
FOLDER = ".cache/tflite-harness"  # below the user's home
OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
)

# What ssh prints, and what that means.
_REASONS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key .*has changed", "its host key has changed: it is another "
     "machine, or was set up anew; if you expected that: ssh-keygen -R {host}, connect once by hand, and run again"),
    (r"Host key verification failed|No .* host key is known", "its host key is not known yet; connect once by hand and "
     "compare the key: ssh {target}"),
    (r"Permission denied", "it asks for a password or refuses the key; copy your key there: ssh-copy-id {target}"),
    (r"Could not resolve", "no machine of that name is known; check the name and the network"),
    (r"Connection refused", "it refuses the connection; is its ssh server on? (on a Raspberry Pi: sudo raspi-config)"),
    (r"timed out|No route to host|not responding|Network is unreachable", "it does not answer; is it on, and in this "
     "network?"),
    (r"too long for Unix domain|Bad owner|Bad configuration|Can't open user config", "{last}"),
)  # fmt: skip


class Ssh:
    """target: [user@]host; config: an ssh configuration file instead of the user's own."""

    def __init__(self, target: str, port: int | None = None, config: str | None = None) -> None:
        self._target = target
        self._port = port
        self._config = config
        self.name = f"ssh://{target}" + (f":{port}" if port else "")
        self._sockets: tempfile.TemporaryDirectory[str] | None = None
        self._master: subprocess.Popen[str] | None = None

    def open(self) -> None:
        if not shutil.which("ssh"):
            raise UnreachableError(f"{self.name}: ssh is not installed; install it: apt-get install openssh-client")
        self._sockets = tempfile.TemporaryDirectory(prefix="harness-", dir="/tmp")  # a socket's path must be short
        ready = f"ready-{secrets.token_hex(8)}"
        # One connection for all commands; it ends with this process, which holds its standard input.
        self._master = subprocess.Popen(
            [*self._ssh("-M"), "--", self._target, quoted("sh", "-c", f"echo {ready}; exec cat")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if shell.answer(self._master, ready, 2 * CONNECT_TIMEOUT_S) is None:
            self._master.kill()
            assert self._master.stderr is not None
            error = self._master.stderr.read(shell.MAX_OUTPUT_BYTES)
            self.close()
            raise UnreachableError(f"{self.name}: {self.explain(error)}")

    def close(self) -> None:
        if self._master is not None:
            if self._master.stdin:
                self._master.stdin.close()
            try:
                self._master.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
            for stream in (self._master.stdout, self._master.stderr):
                if stream:
                    stream.close()
            self._master = None
        if self._sockets is not None:
            self._sockets.cleanup()
            self._sockets = None

    def reopen(self) -> None:
        if self._master is not None:
            self._master.kill()  # a dead connection's master may wait for long
        self.close()
        self.open()

    def command(self, script: str) -> list[str]:
        return [*self._ssh(), "--", self._target, quoted("exec", "sh", "-c", script)]

    def explain(self, error: str) -> str:
        last = shell.plain(error) or "the connection was cut while a command ran"
        host = self._target.rpartition("@")[2]
        host = f"'[{host}]:{self._port}'" if self._port else host
        target = f"-p {self._port} {self._target}" if self._port else self._target
        for pattern, meaning in _REASONS:
            if re.search(pattern, error):
                return meaning.format(host=host, target=target, last=last)
        return f"{last}; run again"

    def _ssh(self, *more: str) -> list[str]:
        words = ["ssh", *more, "-T"]
        if self._config:
            words += ["-F", self._config]
        if self._port:
            words += ["-p", str(self._port)]
        for option in OPTIONS:
            words += ["-o", option]
        if self._sockets:
            words += ["-o", f"ControlPath={self._sockets.name}/%C"]
        return words
