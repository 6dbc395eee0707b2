"""The ARM kernels, emulated: the same verdicts as here, every image's output compared."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from harness.cli import main
from harness.judge import policy
from harness.run.devices import uri
from harness.run.devices.virtual import Virtual
from tests.conftest import SHIPPED
from tests.run.devices.rig import Rig, pushed

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
    for one in rig.check_all(arm_phone.start(), arm_pi.start()):
        assert one.run, one.problem
        record = one.run.record
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
