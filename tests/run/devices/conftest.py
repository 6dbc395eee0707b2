"""Virtual devices: native ones, quick, for everything about the way there; ARM ones under qemu-user for the answers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run.devices import recovery
from harness.run.devices.probing import VIRTUAL_MARK
from harness.run.devices.virtual import Virtual
from tests.conftest import TEST_IMAGES
from tests.needs import needs
from tests.run.devices.rig import Rig


@pytest.fixture(scope="session", autouse=True)
def own_adb() -> Iterator[None]:
    """An adb server of the tests' own, so that no device of the user's is touched."""
    before = os.environ.get("ANDROID_ADB_SERVER_PORT")
    os.environ["ANDROID_ADB_SERVER_PORT"] = str(20000 + os.getpid() % 10000)
    yield
    if shutil.which("adb"):
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
    if before is None:
        del os.environ["ANDROID_ADB_SERVER_PORT"]
    else:
        os.environ["ANDROID_ADB_SERVER_PORT"] = before


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost device is waited for two seconds only."""
    monkeypatch.setattr(recovery, "RECONNECT_WITHIN_S", 2.0)
    monkeypatch.setattr(recovery, "PAUSE_S", 0.1)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """55 of the committed test images, 5 of each class."""
    folder = tmp_path_factory.mktemp("fifty-five")
    for label in range(11):
        for number in range(1, 6):
            shutil.copy(TEST_IMAGES / f"{label}_{number}.jpg", folder)
    return folder


@pytest.fixture(scope="session")
def rig(tiny_model: Path, tiny_variants: Path, images: Path) -> Rig:
    """The tiny model's variants and what this machine answers to 55 images."""
    made = Rig(tiny_variants, tiny_model, images)
    done = made.check("local")
    assert done.run, done.problem
    made.local = done.run.record
    return made


# What a Raspberry Pi's owner has from apt; the rest of what the harness needs, pip brings.
APT_PACKAGES = ("bash", "python3-venv", "python3-numpy", "python3-scipy", "python3-pil")


def _started(kind: str, folder: Path, machine: str, packages: tuple[str, ...] = ()) -> Iterator[Virtual]:
    needs("devices" if machine == platform.machine() else "emulation")
    device = Virtual(kind, folder, machine, packages)
    device.start()
    if machine == platform.machine():  # no latency: these tests are about the way there
        (device.root / VIRTUAL_MARK[1:]).write_text(f"emulated virtual {kind}\n")
    yield device
    device.remove()


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virtual]:
    """A phone of this machine's processor, without emulation: everything but the answers is as on the ARM one."""
    yield from _started("phone", tmp_path_factory.mktemp("phone"), platform.machine())


@pytest.fixture(scope="session")
def pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virtual]:
    """A Raspberry Pi of this machine's processor, with NumPy, SciPy and Pillow of its own."""
    yield from _started("pi", tmp_path_factory.mktemp("pi"), platform.machine(), APT_PACKAGES)


@pytest.fixture(scope="session")
def arm_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virtual]:
    """An ARM phone, emulated."""
    yield from _started("phone", tmp_path_factory.mktemp("arm-phone"), "aarch64")


@pytest.fixture(scope="session")
def arm_pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virtual]:
    """An ARM Raspberry Pi, emulated."""
    yield from _started("pi", tmp_path_factory.mktemp("arm-pi"), "aarch64")
