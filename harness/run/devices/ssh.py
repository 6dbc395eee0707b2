"""A Raspberry Pi, or any Linux machine, through plain OpenSSH."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.run.devices import shell
from harness.run.devices.base import Executed, UnreachableError
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
READY = "harness-ready"

# What ssh says, and what that means.
_REASONS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key .*has changed", "its host key has changed: another machine, or "
     "one set up anew; if you expected that: ssh-keygen -R {host}, connect once by hand, and run again"),
    (r"Host key verification failed|No .* host key is known", "its host key is not known yet; connect once by hand and "
     "compare the key: ssh {target}"),
    (r"Permission denied", "it asks for a password or refuses the key; let a key in: ssh-copy-id {target}"),
    (r"Could not resolve", "no machine of that name is found; check the name and the network"),
    (r"Connection refused", "it refuses the connection; is its ssh server on? (on a Raspberry Pi: sudo raspi-config)"),
    (r"timed out|No route to host|not responding|Network is unreachable", "it does not answer; is it on, and in this "
     "network?"),
    (r"too long for Unix domain|Bad owner|Bad configuration|Can't open user config", "{said}"),
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
            raise UnreachableError(
                f"{self.name}: the program ssh is not there; install it: apt-get install openssh-client"
            )
        self._sockets = tempfile.TemporaryDirectory(prefix="harness-", dir="/tmp")  # a socket's path must be short
        # One connection for all commands; it ends with this process, which holds its standard input.
        self._master = subprocess.Popen(
            [*self._ssh("-M"), "--", self._target, quoted("sh", "-c", f"echo {READY}; exec cat")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if shell.first_line(self._master, 2 * CONNECT_TIMEOUT_S) != READY:
            self._master.kill()
            _, said = self._master.communicate()
            self.close()
            raise UnreachableError(f"{self.name}: {self.why(said)}")

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

    def put(self, local: Path, remote: str, timeout_s: float) -> Executed:
        with local.open("rb") as file:
            return self._stream(f"cat > {quoted(remote)}", timeout_s, stdin=file.fileno())

    def get(self, remote: str, local: Path, timeout_s: float) -> Executed:
        with local.open("wb") as file:
            return self._stream(f"cat < {quoted(remote)}", timeout_s, stdout=file.fileno())

    def why(self, error: str) -> str:
        said = (error.strip().splitlines() or ["the connection was cut in mid-command"])[-1]
        host = self._target.rpartition("@")[2]
        host = f"'[{host}]:{self._port}'" if self._port else host
        target = f"-p {self._port} {self._target}" if self._port else self._target
        for pattern, meaning in _REASONS:
            if re.search(pattern, error):
                return meaning.format(host=host, target=target, said=said)
        return f"{said}; run again"

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

    def _stream(
        self, script: str, timeout_s: float, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
    ) -> Executed:
        try:
            done = subprocess.run(
                self.command(script),
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            why = f"a transfer took more than {timeout_s:.0f} s"
            raise UnreachableError(f"{self.name}: {why}; {self.why('')}") from error
        return Executed(done.returncode, "", done.stderr.decode(errors="replace"))
