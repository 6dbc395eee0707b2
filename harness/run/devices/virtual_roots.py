"""The root folders of virtual devices, from Debian's packages, and the daemons that listen in them."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core import cores
from harness.run.devices.bundle import MACHINES
from harness.run.devices.probing import ABIS

RECIPE = 4  # counted up when roots are made differently
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


def how(machine: str) -> str:
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
    write(root / "etc/passwd", f"shell:x:{PHONE_UID}:{PHONE_UID}:shell:/{PHONE_FOLDER}:/system/bin/sh\n")
    os.chown(root / PHONE_FOLDER, PHONE_UID, PHONE_UID)
    abi = {machine: abi for abi, machine in ABIS.items()}[machine]
    properties = (
        PROPERTIES | {"ro.product.cpu.abi": abi} | ({"ro.kernel.qemu": "1"} if how(machine) == "emulated" else {})
    )
    write(root / "system/build.prop", "".join(f"{name}={value}\n" for name, value in properties.items()))
    for name, content in DUMPS.items():
        write(root / "system/dumps" / name, f"{content}\n")
    write(root / "system/dumps/low_power", "0\n")
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
    write(
        root / "etc/passwd",
        "root:*:0:0:root:/root:/bin/sh\nsshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"pi:*:{PI_UID}:{PI_UID}::/home/pi:/bin/sh\n",
    )
    write(root / "etc/group", f"root:x:0:\nnogroup:x:65534:\npi:x:{PI_UID}:\n")
    write(root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    _script(root / "usr/bin/vcgencmd", "echo throttled=0x0")
    # What the packages' scripts do: pip needs the certificates, NumPy and SciPy the libraries.
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    write(root / "etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in certificates))
    libraries = root / "usr/lib" / MACHINES[machine].libraries
    for name in ("blas", "lapack"):
        if (libraries / name).is_dir():
            (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")


def _processor(root: Path, machine: str) -> None:
    """What XNNPACK reads of a processor: without it, XNNPACK is left out without a word, and other kernels run."""
    system = Path("sys/devices/system/cpu")
    for name in ("possible", "present", "online", "kernel_max"):
        write(root / system / name, (Path("/") / system / name).read_text())
    if how(machine) == "native":
        write(root / "proc/cpuinfo", Path("/proc/cpuinfo").read_text())
    else:
        write(root / "proc/cpuinfo", "".join(CORE.format(number) for number in range(cores.usable())))


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
    write(
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


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _script(path: Path, line: str) -> None:
    write(path, f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
