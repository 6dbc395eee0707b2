"""ARM without hardware: Debian's packages of another architecture under qemu-user, with the real adbd or sshd.

The phone keeps adbd's libraries apart; it has a static shell with uid 2000, and no Python, glibc or /dev/shm. Both
compute what ARM computes, as slowly as emulation does: they say nothing about speed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from harness.core.errors import SetupError
from harness.run.devices import bundle, shell
from harness.run.devices.bundle import MACHINES, SUITE
from harness.run.devices.probing import VIRTUAL_MARK
from harness.run.devices.virtual_roots import KINDS, PI_UID, RECIPE, how, write

BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_CONFIGS = Path("/usr/lib/binfmt.d")
START_WITHIN_S = 60.0


class Virtual:
    """A virtual device in a folder of its own, with further Debian packages. Its daemon outlives its starter."""

    def __init__(
        self, kind: str, folder: Path | None = None, machine: str = "aarch64", packages: tuple[str, ...] = ()
    ) -> None:
        self._name = kind
        self._kind = KINDS[kind]
        self._machine = machine
        self._packages = (*self._kind.packages, *packages)
        self._folder = folder or bundle.cache() / "virtual" / kind
        self.root = self._folder / "root"
        self._state = self._folder / "state.json"

    def start(self, port: int | None = None) -> str:
        """Build it if need be, start it, and return its address. Raises SetupError: what is missing on this machine."""
        if running := self._running():
            return self.uri(running["port"])
        require(self._machine)
        if not self.root.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", self._build(), self.root], check=True)
        port = port or _free(self._kind.port)
        self._prepare(port)
        command, environment = self._kind.daemon(self.root, port)
        with (self._folder / "log").open("wb") as log:
            streams = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2)),
            ]
            # Not a Popen, which would have to end before we do.
            pid = os.posix_spawnp(command[0], command, environment, file_actions=streams, setsid=True)
        state = {"pid": pid, "started": _started(pid), "port": port}
        self._state.write_text(json.dumps(state))
        deadline = time.monotonic() + START_WITHIN_S
        while not _listens(port):
            if _started(pid) is None or time.monotonic() > deadline:
                reason = shell.plain((self._folder / "log").read_text(errors="replace")) or "no reason given"
                raise SetupError(f"the virtual {self._name} does not start ({reason}); see {self._folder / 'log'}")
            time.sleep(0.02)
        return self.uri(port)

    def stop(self) -> bool:
        """Stop it. Whether it ran."""
        running = self._running()
        if running:
            os.killpg(running["pid"], signal.SIGKILL)
            with suppress(ChildProcessError):  # started by another process
                os.waitpid(running["pid"], 0)
        self._state.unlink(missing_ok=True)
        return running is not None

    def remove(self) -> None:
        """Stop it and delete what is on it."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def uri(self, port: int) -> str:
        if self._name == "phone":
            return f"adb://127.0.0.1:{port}"
        return f"ssh://virtual-pi?config={self._folder / 'ssh_config'}"

    def _running(self) -> dict[str, int] | None:
        try:
            state: dict[str, int] = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return None
        return state if _started(state["pid"]) == state["started"] else None

    def _build(self) -> Path:
        """A root as the packages make it, from the cache or made for it."""
        key = hashlib.sha256(repr((RECIPE, SUITE, self._packages)).encode()).hexdigest()[:12]
        built = bundle.cache() / "virtual" / "roots" / f"{self._name}-{self._machine}-{key}"
        with bundle.locked(built.with_name(f"{built.name}.lock")):
            if not built.exists():
                with tempfile.TemporaryDirectory(prefix=".", dir=built.parent) as work:
                    packages, root = Path(work) / "packages", Path(work) / "root"
                    bundle.extract(packages, MACHINES[self._machine].debian, self._packages)
                    self._kind.fill(packages, root, self._machine)
                    write(root / VIRTUAL_MARK[1:], f"{how(self._machine)} virtual {self._name}\n")
                    root.replace(built)
        return built

    def _prepare(self, port: int) -> None:
        if self._name != "pi":
            return
        key, public = self._folder / "key", self._folder / "key.pub"
        for path in (key, self._folder / "host_key"):
            if not path.exists():
                done = shell.local(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)])
                if done is None or done.code:
                    raise SetupError("ssh-keygen failed; install it: apt-get install openssh-client")
        shutil.copy(self._folder / "host_key", self.root / "etc/ssh/host_key")
        home = self.root / "home/pi/.ssh"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(public, home / "authorized_keys")
        for path in (home.parent, home, home / "authorized_keys"):
            os.chown(path, PI_UID, PI_UID)
            path.chmod(0o600 if path.is_file() else 0o700)
        host = (self._folder / "host_key.pub").read_text().split()[:2]
        write(self._folder / "known_hosts", f"[127.0.0.1]:{port} {' '.join(host)}\n")
        write(
            self._folder / "ssh_config",
            f'Host virtual-pi\n  HostName 127.0.0.1\n  Port {port}\n  User pi\n  IdentityFile "{key}"\n'
            f'  IdentitiesOnly yes\n  UserKnownHostsFile "{self._folder / "known_hosts"}"\n',
        )


def require(machine: str) -> None:
    """Raise SetupError, with what is missing, if this machine cannot run programs of another."""
    if platform.system() != "Linux":
        raise SetupError(f"virtual devices need Linux, this is {platform.system()}; use a Debian container")
    if os.geteuid() != 0:
        raise SetupError("virtual devices need root, for chroot; run as root: sudo -E harness device virtual ...")
    if machine == platform.machine():
        return
    entry = BINFMT / f"qemu-{machine}"
    if not BINFMT.joinpath("register").exists():
        shell.local(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    if not entry.exists():
        try:
            rule = (BINFMT_CONFIGS / f"qemu-{machine}.conf").read_text()
        except OSError as error:
            raise SetupError(f"qemu-user for {machine} is not installed; apt-get install qemu-user-static") from error
        try:
            (BINFMT / "register").write_text(rule)
        except OSError as error:
            raise SetupError(
                f"{BINFMT}/register cannot be written ({error.strerror}); foreign programs must be allowed here: run "
                "on the host itself, or in a privileged container"
            ) from error
    flags = next(line for line in entry.read_text().splitlines() if line.startswith("flags:"))
    if "F" not in flags:
        raise SetupError(f"{entry} lacks the flag F, without which no chroot runs it; apt-get install qemu-user-static")


def _started(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks: tells it from a later one with the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _free(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise SetupError("no free port on 127.0.0.1")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
