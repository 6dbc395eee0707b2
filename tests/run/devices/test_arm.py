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
from harness.judge.policy import Policy
from harness.records.record import Record
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


POLICY = """# what 22 images can decide of a sound variant of a small model
[limits]
max_accuracy_drop = 0.6
min_accuracy_ratio = 0.0
max_flip_share = 0.6
max_class_drop = 1.0
max_far_share = 0.6
max_mean_probability_difference = 0.5
max_log_loss_rise = 1.0

[variant.float32]
max_flip_share = 0.6
max_far_share = 0.6
max_mean_probability_difference = 0.5
max_log_loss_rise = 1.0
"""


@pytest.fixture(scope="module")
def few(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 of the images, 2 of each class: an emulated inference takes a second."""
    folder = tmp_path_factory.mktemp("twenty-two")
    for path in images.glob("*_[12].jpg"):
        shutil.copy(path, folder)
    return folder


def assert_as_here(here: Record, there: Record, limits: Policy) -> None:
    """On an emulated ARM device: this machine's verdicts and, but for rounding, its outputs on 22 images; no time."""
    assert there.device.emulated
    assert there.device.machine == there.machine.machine == "aarch64"
    assert any("emulated" in note for note in there.notes)
    for local, remote in zip(here.cells, there.cells, strict=True):
        assert remote.verdict.outcome == local.verdict.outcome, (remote.verdict.reasons, local.verdict.reasons)
        assert remote.latency is None
        assert remote.host is not None
        assert remote.host.images == 22
        assert remote.stages[-1].target == f"{remote.name} on the device"
        assert_alike(local.cell, here.arrays.answers(local.cell), there.arrays.answers(local.cell), limits)
    assert not there.arrays.latency_runs()


@pytest.mark.parametrize("kinds", [("int8",), pytest.param(("float32", "dynamic_range"), marks=pytest.mark.slow)])
def test_every_output_of_the_arm_kernels(
    kinds: tuple[str, ...], arm_pi: Virtual, tiny_model: Path, tiny_variants: Path, few: Path, tmp_path: Path
) -> None:
    """A Pi: PASS, as here."""
    (tmp_path / "policy.toml").write_text(POLICY)
    rig = Rig(tiny_variants, tiny_model, few, kinds=kinds, limits=policy.load(tmp_path / "policy.toml"))
    here, there = rig.check_all("local", arm_pi.start())
    assert here.run
    assert there.run, there.problem
    assert here.run.record.outcome is Outcome.PASS
    assert_as_here(here.run.record, there.run.record, policy.load(FEW_IMAGES_POLICY))


@pytest.mark.slow
def test_the_shipped_model_on_the_phone(arm_phone: Virtual, shipped_variants: Path, few: Path) -> None:
    """A phone, ResNet-164 in int8."""
    rig = Rig(shipped_variants, SHIPPED, few, kinds=("int8",), limits=policy.load())
    here, there = rig.check_all("local", arm_phone.start())
    assert here.run
    assert there.run, there.problem
    assert_as_here(here.run.record, there.run.record, policy.load())


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
        theirs, ours = (
            dequantize(done.results[kind].arrays["outputs"], entry.scale, entry.zero_point) for done in outputs
        )
        assert_alike(Cell(kind), ours, theirs, policy.load(FEW_IMAGES_POLICY))
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
