"""A packed check, run where nothing but the base package is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.records import record
from harness.run.devices.virtual import Virtual
from tests.conftest import FEW_IMAGES_POLICY, ROOT, refusal
from tests.run.devices.rig import Rig


@pytest.fixture(scope="module")
def packed(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rig's check in one file."""
    path = tmp_path_factory.mktemp("packed") / "job.zip"
    words = ["device", "pack", str(path), "--models", str(rig.models), "--reference", str(rig.model)]
    assert main([*words, "--data", str(rig.images), "--policy", str(FEW_IMAGES_POLICY)]) == 0
    return path


def install_as_pip_does(pi: Virtual) -> None:
    """What pip brings to a Pi from the package index, installed there without it: the Pi of a test has no network."""
    from_apt = [word for name in ("numpy", "scipy", "pillow") for word in ("--no-emit-package", name)]
    here = ["--quiet", "--no-python-downloads", "--python-version", "3.13", "--only-binary", ":all:"]
    needed = pi.root / "needed.txt"
    subprocess.run(["uv", "pip", "compile", *here, *from_apt, "-o", needed, ROOT / "pyproject.toml"], check=True)
    target = pi.root / "usr/local/lib/python3.13/dist-packages"
    subprocess.run(["uv", "pip", "install", *here, "--no-deps", "--target", target, "-r", needed], check=True)


def test_a_pi_runs_a_packed_job_with_its_own_python(
    packed: Path, rig: Rig, pi: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pack here, one command there, the record back: its verdicts are this machine's, and so is every output."""
    config = pi.start().partition("config=")[2]
    install_as_pip_does(pi)
    home = pi.root / "home/pi"
    shutil.copy(packed, home / "job.zip")
    command = "PIP_NO_INDEX=1 python3 job.zip --json there.json --no-latency"
    done = subprocess.run(["ssh", "-F", config, "virtual-pi", command], capture_output=True, text=True)
    assert (home / "there.json").exists(), done.stderr
    for name in ("there.json", "there.npz"):
        shutil.copy(home / name, tmp_path)
    assert main(["verdict", str(tmp_path / "there.json")]) == done.returncode
    there = record.read(tmp_path / "there.json")
    here = {cell.cell: cell.verdict.outcome for cell in rig.local.cells}
    assert {cell.cell: cell.verdict.outcome for cell in there.cells} == here
    assert there.machine.python.startswith("3.13")
    assert there.machine.numpy.startswith("2.2")  # Debian's
    for cell in here:
        assert np.array_equal(there.arrays.raw_answers(cell), rig.local.arrays.raw_answers(cell))


def test_a_job_that_cannot_be_installed(packed: Path, tmp_path: Path) -> None:
    """Without what pip needs: its message, one line, exit code 2; the next run tries again."""
    job = Path(shutil.copy(packed, tmp_path))
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1"}
    done = subprocess.run([sys.executable, job], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ai-edge-litert" in done.stderr
    assert done.stderr.endswith("job.zip: pip could not install the harness; see its message above\n")
    assert not list(tmp_path.glob("harness-*/installed"))


def test_a_damaged_pack_is_refused(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut short, changed within, or not there: exit code 2 and what to do."""
    content = packed.read_bytes()
    path = tmp_path / "job.zip"
    arguments = ["check", "--packed", str(path), "--json", str(tmp_path / "c.json")]
    assert "expected what harness device pack wrote" in refusal(capsys, main(arguments))
    path.write_bytes(content[: len(content) // 2])
    assert "pack again" in refusal(capsys, main(arguments))
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(path, "w") as changed:
        for name in whole.namelist():
            part = bytearray(whole.read(name))
            if name == "int8.tflite":
                part[1000] ^= 1
            changed.writestr(name, bytes(part))
    assert "int8.tflite" in refusal(capsys, main(arguments))
