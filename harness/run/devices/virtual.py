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
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core import cores
from harness.core.errors import SetupError
from harness.run.devices import bundle, shell
from harness.run.devices.bundle import MACHINES, SUITE
from harness.run.devices.probing import ABIS, VIRTUAL_MARK

RECIPE = 4  # counted up when roots are made differently
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_CONFIGS = Path("/usr/lib/binfmt.d")
START_WITHIN_S = 60.0
ADBD = "/apex/com.android.adbd"
PHONE_FOLDER = "data/local/tmp"
PHONE_UID, PI_UID = 2000, 1000
PROPERTIES = {
    "ro.product.manufacturer": "Harness",
    "ro.product.model": "Virtual Phone",
    "ro.build.version.release": "14",
    "ro.soc.model": "qemu-user",
}
# A Cortex-A76, as in a Raspberry Pi 5. Of a processor with every feature, qemu 7.2 computes some of XNNPACK wrongly.
EMULATED = {"QEMU_CPU": "cortex-a76"}
CORE = (
    "processor\t: {}\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n"
)
DUMPS = {"thermalservice": "Thermal Status: 0", "battery": "  level: 100"}


@dataclass(frozen=True)
class Kind:
    """What a phone consists of, or a Pi."""

    packages: tuple[str, ...]
    fill: Callable[[Path, Path, str], None]  # from unpacked packages, to a root, for a machine
    daemon: Callable[[Path, int], tuple[list[str], dict[str, str]]]  # its command and environment, for a port
    port: int


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
        self._process: subprocess.Popen[bytes] | None = None  # where it was started from here

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
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        state = {"pid": process.pid, "started": _started(process.pid), "port": port}
        self._state.write_text(json.dumps(state))
        deadline = time.monotonic() + START_WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                reason = shell.plain((self._folder / "log").read_text(errors="replace")) or "no reason given"
                raise SetupError(f"the virtual {self._name} does not start ({reason}); see {self._folder / 'log'}")
            time.sleep(0.02)
        return self.uri(port)

    def stop(self) -> bool:
        """Stop it. Whether it ran."""
        running = self._running()
        if running:
            os.killpg(running["pid"], signal.SIGKILL)
        if self._process:
            self._process.wait()
            self._process = None
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
                    _write(root / VIRTUAL_MARK[1:], f"{_how(self._machine)} virtual {self._name}\n")
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
        _write(self._folder / "known_hosts", f"[127.0.0.1]:{port} {' '.join(host)}\n")
        _write(
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


def _how(machine: str) -> str:
    return "native" if machine == platform.machine() else "emulated"


def _fill_phone(packages: Path, root: Path, machine: str) -> None:
    binaries, libraries = root / "system/bin", root / ADBD[1:] / "lib"
    for folder in (binaries, libraries, root / PHONE_FOLDER, root / "dev", root / "etc", root / "system/dumps"):
        folder.mkdir(parents=True)
    busybox = packages / "usr/bin/busybox"
    shutil.copy(busybox, binaries / "busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(listed) - {"busybox"}:
        (binaries / applet).symlink_to("busybox")
    (root / "bin").symlink_to("system/bin")
    for library in packages.glob(f"usr/lib/{MACHINES[machine].libraries}/**/*.so*"):
        if library.is_file() and "gconv" not in library.parts:
            shutil.copy(library, libraries / library.name)
    shutil.copy(packages / "usr/lib/android-sdk/platform-tools/adbd", root / ADBD[1:] / "adbd")
    shutil.copy(packages / "usr/bin/flock", root / ADBD[1:] / "flock")  # Android's toybox has it, busybox has not
    loader = f"{ADBD}/lib/{MACHINES[machine].loader}"
    _script(binaries / "flock", f'exec {loader} --library-path {ADBD}/lib {ADBD}/flock "$@"')
    _devices(root)
    _processor(root, machine)
    _write(root / "etc/passwd", f"shell:x:{PHONE_UID}:{PHONE_UID}:shell:/{PHONE_FOLDER}:/system/bin/sh\n")
    os.chown(root / PHONE_FOLDER, PHONE_UID, PHONE_UID)
    abi = {machine: abi for abi, machine in ABIS.items()}[machine]
    properties = (
        PROPERTIES | {"ro.product.cpu.abi": abi} | ({"ro.kernel.qemu": "1"} if _how(machine) == "emulated" else {})
    )
    _write(root / "system/build.prop", "".join(f"{name}={value}\n" for name, value in properties.items()))
    for name, content in DUMPS.items():
        _write(root / "system/dumps" / name, f"{content}\n")
    _write(root / "system/dumps/low_power", "0\n")
    _script(binaries / "getprop", 'sed -n "s/^$1=//p" /system/build.prop')
    _script(binaries / "dumpsys", 'cat "/system/dumps/$1"')
    _script(binaries / "settings", 'cat "/system/dumps/$3"')


def _fill_pi(packages: Path, root: Path, machine: str) -> None:
    packages.replace(root)
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / "usr" / name).exists() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")
    for folder in ("dev", "run/sshd", "home", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _devices(root)
    _processor(root, machine)
    _write(
        root / "etc/passwd",
        "root:*:0:0:root:/root:/bin/sh\nsshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"pi:*:{PI_UID}:{PI_UID}::/home/pi:/bin/sh\n",
    )
    _write(root / "etc/group", f"root:x:0:\nnogroup:x:65534:\npi:x:{PI_UID}:\n")
    _write(root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    _script(root / "usr/bin/vcgencmd", "echo throttled=0x0")
    # What the packages' scripts do: pip needs the certificates, NumPy and SciPy the libraries.
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    _write(root / "etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in certificates))
    libraries = root / "usr/lib" / MACHINES[machine].libraries
    for name in ("blas", "lapack"):
        if (libraries / name).is_dir():
            (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")


def _processor(root: Path, machine: str) -> None:
    """What XNNPACK reads of a processor: without it, XNNPACK is left out without a word, and other kernels run."""
    system = Path("sys/devices/system/cpu")
    for name in ("possible", "present", "online", "kernel_max"):
        _write(root / system / name, (Path("/") / system / name).read_text())
    if _how(machine) == "native":
        _write(root / "proc/cpuinfo", Path("/proc/cpuinfo").read_text())
    else:
        _write(root / "proc/cpuinfo", "".join(CORE.format(number) for number in range(cores.usable())))


def _devices(root: Path) -> None:
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        if not (root / "dev" / name).exists():
            os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)


def _adbd(root: Path, port: int) -> tuple[list[str], dict[str, str]]:
    (loader,) = (root / ADBD[1:] / "lib").glob("ld-linux-*")
    command = ["chroot", f"--userspec={PHONE_UID}:{PHONE_UID}", str(root), f"{ADBD}/lib/{loader.name}",
               "--library-path", f"{ADBD}/lib", f"{ADBD}/adbd"]  # fmt: skip
    return command, {"ADBD_PORT": str(port), "PATH": "/system/bin:/usr/sbin:/usr/bin:/sbin:/bin", **EMULATED}


def _sshd(root: Path, port: int) -> tuple[list[str], dict[str, str]]:
    _write(
        root / "etc/ssh/harness_sshd_config",
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey /etc/ssh/host_key\nUsePAM no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxSessions 20\n"
        + "".join(f"SetEnv {name}={value}\n" for name, value in EMULATED.items()),
    )
    (root / "etc/ssh/host_key").chmod(0o600)
    command = ["chroot", str(root), "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/harness_sshd_config"]
    return command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


KINDS = {
    "phone": Kind(("adbd", "busybox-static", "util-linux"), _fill_phone, _adbd, 6555),
    "pi": Kind(
        ("openssh-server", "python3", "dash", "coreutils", "findutils", "tar", "gzip", "sed", "grep", "util-linux",
         "libstdc++6"),
        _fill_pi,
        _sshd,
        6022,
    ),
}  # fmt: skip


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _script(path: Path, line: str) -> None:
    _write(path, f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


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
