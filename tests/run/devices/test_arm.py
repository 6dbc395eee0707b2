"""The ARM kernels, emulated: the same verdicts as here, every image's output compared."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.cli import main
from harness.images import dataset
from harness.judge import policy
from harness.run import execute, job
from harness.run.devices import bundle, uri
from harness.run.devices.base import Device
from harness.run.devices.local import Local
from harness.run.devices.remote import Remote
from harness.run.devices.virtual import Virtual
from models.config import DIGITS
from tests.conftest import SHIPPED
from tests.needs import needs
from tests.run.devices.rig import Here, Rig, pushed, silent

STEPS = 2  # of an int8 output between two sets of kernels
FLOAT_NOISE = 1e-4


def test_the_phone_is_one(arm_phone: Virtual) -> None:
    """uid 2000, ARM, and no Python, glibc or /dev/shm on its paths; getprop and dumpsys answer."""
    with uri.remote(arm_phone.start()) as device:
        probe = device.probe()
        done = device._do("id -u; command -v python3; ls -d /lib /usr /dev/shm")
    assert done.out.split()[0] == "2000"
    assert done.out.split()[1:] == []
    assert (probe.machine, probe.emulated) == ("aarch64", True)
    assert (probe.name, probe.system) == ("Harness Virtual Phone (qemu-user)", "Android 14")
    assert probe.state["thermal_status"] == 0
    assert probe.state["battery_saver"] is False


def test_every_output_of_the_arm_kernels(arm_phone: Virtual, arm_pi: Virtual, rig: Rig) -> None:
    """Phone and Pi at once, 55 images x 3 variants: this machine's verdicts, outputs within two steps, no time."""
    for checked in rig.check_all(arm_phone.start(), arm_pi.start()):
        assert checked.run, checked.problem
        record = checked.run.record
        assert record.device.emulated
        assert record.device.machine == record.machine.machine == "aarch64"
        assert any("emulated" in note for note in record.notes)
        for here, there in zip(rig.local.cells, record.cells, strict=True):
            assert there.latency is None
            assert there.verdict.outcome == here.verdict.outcome, (there.verdict.reasons, here.verdict.reasons)
            assert there.host is not None
            assert there.host.images == 55
            assert there.stages[-1].target == f"{there.name} on the device"
            if there.host.max_steps is not None:
                assert there.host.max_steps <= STEPS
            elif there.variant == "float32":
                assert there.host.max_difference <= FLOAT_NOISE
        assert not record.arrays.latency_runs()
    again = rig.check(arm_phone.start())
    assert again.run
    assert set(pushed(again.run.record)) == {"plan"}


def test_the_shipped_model_on_the_phone(arm_phone: Virtual, shipped_variants: Path, images: Path) -> None:
    """ResNet-164 in int8, 55 images: verdict and answers of the ARM kernels are this machine's."""
    rig = Rig(shipped_variants, SHIPPED, images, kinds=("int8",), limits=policy.load(), plan=None)
    here, there = rig.check_all("local", arm_phone.start())
    assert here.run
    assert there.run, there.problem
    for ours, theirs in zip(here.run.record.cells, there.run.record.cells, strict=True):
        assert theirs.verdict.outcome == ours.verdict.outcome, (theirs.verdict.reasons, ours.verdict.reasons)
        assert theirs.host is not None
        assert (theirs.host.images, theirs.host.flips) == (55, 0), theirs


# A 32-bit Raspberry Pi OS: Debian 12 has the last Python for which there is a wheel of tflite-runtime.
ARM32_PACKAGES = ("python3", "python3-numpy", "libstdc++6", "dash", "coreutils", "findutils", "tar", "gzip", "sed",
                  "grep", "util-linux")  # fmt: skip


def arm32_root() -> Path:
    """A root of armhf packages, from the cache of virtual devices or made for it."""
    root = bundle.cache() / "virtual" / "roots" / "armhf-bookworm-1"
    with bundle.locked(root.with_name(f"{root.name}.lock")):
        if not root.exists():
            packed = root.with_name(".armhf.part")
            shutil.rmtree(packed, ignore_errors=True)
            command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=armhf"]
            command += [f"--include={','.join(ARM32_PACKAGES)}", "bookworm", str(packed)]
            asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"]
            mirror = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
            subprocess.run([*command, f"deb {mirror} bookworm main"], check=True)
            for name in ("blas", "lapack"):  # as the packages' scripts do
                (packed / f"usr/lib/arm-linux-gnueabihf/lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
            packed.replace(root)
    return root


class Chroot(Here):
    """A shell in a root of another architecture."""

    def command(self, script: str) -> list[str]:
        home = self.home.relative_to(arm32_root())
        inside = ["env", "-i", f"HOME=/{home}", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "sh", "-c", script]
        return ["chroot", str(arm32_root()), *inside]


def test_a_32_bit_system(tiny_variants: Path, images: Path, tmp_path: Path) -> None:
    """armv7l: its own Python and NumPy, tflite-runtime brought along; predictions are this machine's, but near ties."""
    needs("emulation")
    if not Path("/proc/sys/fs/binfmt_misc/qemu-arm").exists():
        rule = Path("/usr/lib/binfmt.d/qemu-arm.conf").read_text()
        Path("/proc/sys/fs/binfmt_misc/register").write_text(rule)
    data = dataset.take(dataset.load(images, DIGITS), np.arange(0, 55, 5))
    contents = manifest.contents(tiny_variants, manifest.read(tiny_variants))
    outputs = []
    with tempfile.TemporaryDirectory(dir=arm32_root() / "tmp") as home:
        there = Remote(Chroot(Path(home)), "harness", uri._for_host("chroot://", None))
        devices: tuple[Device, ...] = there, Local()
        for number, device in enumerate(devices):
            (folder := tmp_path / str(number)).mkdir()
            with device:
                probe = device.probe()
                outputs.append(execute.run(job.write(folder, contents, data, None, 1), silent, device))
            assert probe.machine == ("armv7l" if device is there else platform.machine())
    assert there.answers["python_bits"] == "32"
    for kind, result in outputs[0].results.items():
        assert result.machine.runtime == "tflite-runtime 2.14.0"
        here = outputs[1].results[kind].arrays["outputs"]
        same = result.arrays["outputs"].argmax(axis=1) == here.argmax(axis=1)
        assert same.mean() >= 0.9  # another runtime's kernels round a near tie of this tiny model the other way
    assert set(outputs[0].results) == set(contents)


def test_a_virtual_device_is_started_and_stopped(
    arm_phone: Virtual, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`harness device virtual phone` prints an address that `harness device list` lists; stop ends it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tflite-harness" / "virtual").mkdir(parents=True)
    built = Path.home() / ".cache" / "tflite-harness" / "virtual" / "roots"
    (tmp_path / "tflite-harness" / "virtual" / "roots").symlink_to(built)
    assert main(["device", "virtual", "phone"]) == 0
    address = capsys.readouterr().out.splitlines()[0]
    try:
        assert main(["device", "list", address]) == 0
        shown = capsys.readouterr().out
        assert address in shown
        assert "aarch64 (emulated)" in shown
        assert "Harness Virtual Phone" in shown
        assert platform.machine() in shown
    finally:
        assert main(["device", "virtual", "phone", "remove"]) == 0
    capsys.readouterr()
    assert main(["device", "list", address]) == 2
    shown = capsys.readouterr().out
    assert "not connected" in shown or "no device is connected" in shown
