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
from harness.artifacts.outputs import dequantize
from harness.cli import main
from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.judge import policy
from harness.run import execute, job
from harness.run.devices import bundle, uri
from harness.run.devices.base import Device
from harness.run.devices.local import Local
from harness.run.devices.remote import Remote
from harness.run.devices.virtual import Virtual
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY, SHIPPED, assert_alike
from tests.needs import needs
from tests.run.devices.rig import Here, Rig, silent


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


@pytest.fixture(scope="module")
def few(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 of the images, 2 of each class: an emulated inference takes a second."""
    folder = tmp_path_factory.mktemp("twenty-two")
    for path in images.glob("*_[12].jpg"):
        shutil.copy(path, folder)
    return folder


def test_every_output_of_the_arm_kernels(
    arm_phone: Virtual, arm_pi: Virtual, tiny_model: Path, tiny_variants: Path, few: Path, tmp_path: Path
) -> None:
    """Phone and Pi at once, 22 images x 3 variants: PASS as here, outputs alike, no time."""
    (tmp_path / "policy.toml").write_text(FEW_IMAGES_POLICY.read_text().replace("_share = 0.1", "_share = 0.3"))
    rig = Rig(tiny_variants, tiny_model, few, limits=policy.load(tmp_path / "policy.toml"))
    here, *there = rig.check_all("local", arm_phone.start(), arm_pi.start())
    assert here.run
    assert here.run.record.outcome is Outcome.PASS
    for checked in there:
        assert checked.run, checked.problem
        record = checked.run.record
        assert record.device.emulated
        assert record.device.machine == record.machine.machine == "aarch64"
        assert any("emulated" in note for note in record.notes)
        for cell in record.cells:
            assert cell.latency is None
            assert cell.verdict.outcome is Outcome.PASS, cell.verdict.reasons
            assert cell.host is not None
            assert cell.host.images == 22
            assert cell.stages[-1].target == f"{cell.name} on the device"
            assert_alike(cell.cell, here.run.record.arrays.answers(cell.cell), record.arrays.answers(cell.cell))
        assert not record.arrays.latency_runs()


def test_the_shipped_model_on_the_phone(arm_phone: Virtual, shipped_variants: Path, few: Path) -> None:
    """ResNet-164 in int8, 22 images: verdict and answers of the ARM kernels are this machine's, but for rounding."""
    rig = Rig(shipped_variants, SHIPPED, few, kinds=("int8",), limits=policy.load(), plan=None)
    here, there = rig.check_all("local", arm_phone.start())
    assert here.run
    assert there.run, there.problem
    ours, theirs = here.run.record, there.run.record
    for local, remote in zip(ours.cells, theirs.cells, strict=True):
        assert remote.verdict.outcome == local.verdict.outcome, (remote.verdict.reasons, local.verdict.reasons)
        assert remote.host is not None
        assert remote.host.images == 22
        assert_alike(local.cell, ours.arrays.answers(local.cell), theirs.arrays.answers(local.cell))
        print("HOST", remote.host)


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
    """armv7l: its own Python and NumPy, tflite-runtime brought along; outputs are this machine's, but for rounding."""
    needs("emulation")
    if not Path("/proc/sys/fs/binfmt_misc/qemu-arm").exists():
        rule = Path("/usr/lib/binfmt.d/qemu-arm.conf").read_text()
        Path("/proc/sys/fs/binfmt_misc/register").write_text(rule)
    data = dataset.take(dataset.load(images, DIGITS), np.arange(0, 55, 5))
    variants = manifest.read(tiny_variants)
    contents = manifest.contents(tiny_variants, variants)
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
        entry = variants[kind].output
        ours, theirs = (
            dequantize(done.results[kind].arrays["outputs"], entry.scale, entry.zero_point) for done in outputs
        )
        assert_alike(Cell(kind), theirs, ours)
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
