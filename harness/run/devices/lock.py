"""One harness at a time on a device: a lock that the device's kernel holds, and that ends with the connection."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
from datetime import UTC, datetime

from harness.core.errors import SetupError
from harness.run.devices import shell
from harness.run.devices.base import UnreachableError
from harness.run.devices.shell import Shell, quoted

TIMEOUT_S = 30.0


class Lock:
    """Held while a shell on the device waits for its input to end."""

    def __init__(self, machine: Shell, folder: str) -> None:
        self._machine = machine
        self._folder = folder
        self._holder: subprocess.Popen[str] | None = None

    def take(self) -> None:
        """Raises SetupError if another harness holds it, UnreachableError."""
        answer = self._hold()
        if answer.startswith("busy"):
            holder_pid, _, owner = answer.removeprefix("busy ").partition(" ")
            if not holder_pid.isdecimal() or not _gone(owner):
                self.release()
                raise SetupError(
                    f"{self._machine.name}: in use by another harness ({owner or 'unknown'}); run again when it has "
                    "ended"
                )
            # Its harness is dead and only the device does not know yet.
            shell.execute(self._machine, f"kill -9 {holder_pid} && sleep 0.2")
            answer = self._hold()
        if answer != "locked":
            self.release()
            raise UnreachableError(f"{self._machine.name}: no lock in {self._folder} ({answer or 'no answer'})")

    def release(self) -> None:
        if self._holder is None:
            return
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder.stdout.close()
        self._holder = None

    def _hold(self) -> str:
        """What the device answers: locked, busy and by whom, or what is wrong."""
        self.release()
        owner = f"{platform.node()} process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        mark = f"lock-{secrets.token_hex(8)}"
        script = f"""
            problem=$(mkdir -p {quoted(self._folder)} 2>&1) && cd {quoted(self._folder)} || {{
                echo {mark} "${{problem:-it cannot be entered}}"; exit
            }}
            command -v flock >/dev/null || {{ echo {mark} its shell has no flock; exit; }}
            {{
                if flock -n 9; then
                    echo $$ {quoted(owner)} > lock.owner; echo {mark} locked; cat >/dev/null 9>&-
                else
                    echo {mark} "busy $(cat lock.owner)"
                fi
            }} 9>>lock
        """
        self._holder = subprocess.Popen(
            self._machine.command(script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return shell.plain(shell.answer(self._holder, mark, TIMEOUT_S) or "")


def _gone(owner: str) -> bool:
    """Whether a lock's owner was a process of this machine that has ended, or is this one."""
    words = owner.split()
    if len(words) < 3 or words[0] != platform.node() or not words[2].isdecimal():
        return False
    pid = int(words[2])
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
