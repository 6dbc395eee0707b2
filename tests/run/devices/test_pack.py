"""A packed check, run where nothing but the base package is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.records import record
from tests.conftest import FEW_IMAGES_POLICY, ROOT, refusal
from tests.run.devices.rig import Rig


@pytest.fixture(scope="module")
def packed(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rig's check in one file."""
    path = tmp_path_factory.mktemp("packed") / "job.zip"
    subject = rig.subject
    words = ["device", "pack", str(path), "--models", str(subject.models), "--reference", subject.reference_model]
    assert main([*words, "--data", subject.data_folder, "--policy", str(FEW_IMAGES_POLICY)]) == 0
    return path


def test_a_bare_install_checks_a_packed_job(packed: Path, rig: Rig, tmp_path: Path) -> None:
    """In an environment of the base package alone, elsewhere: the same verdicts, by the packed limits."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, ROOT], check=True)
    installed = subprocess.run(
        ["uv", "pip", "freeze", "--python", python], capture_output=True, text=True, check=True
    ).stdout
    assert not {"tensorflow", "tensorflow-cpu", "keras"} & {line.split("==")[0] for line in installed.splitlines()}
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "harness", "check", "--packed", packed, "--json", "there.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1, 3), done.stderr
    here = {cell.cell: cell.verdict.outcome for cell in rig.local.cells}
    there = record.read(tmp_path / "there.json")
    assert {cell.cell: cell.verdict.outcome for cell in there.cells} == here
    for cell in here:
        assert np.array_equal(there.arrays.raw_answers(cell), rig.local.arrays.raw_answers(cell))


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


def test_benchmark_model_is_passed_through(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user's binary gets each variant, our flags and the user's; what it says is recorded beside our figure."""
    binary = tmp_path / "benchmark model"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "assert os.path.getsize(sys.argv[1].removeprefix('--graph=')) > 1000\n"
        "assert sys.argv[-2:] == ['--use_gpu=true', '--x=a b'] and '--num_threads=1' in sys.argv\n"
        "print('INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 1.4e+04, "
        "Inference (avg): 14575.2')\n"
    )
    subject = rig.subject
    words = ["check", "--models", str(subject.models), "--reference", subject.reference_model]
    words += ["--data", subject.data_folder, "--json", str(tmp_path / "c.json"), "--variants", "int8", "--quick"]
    words += ["--benchmark-model", str(binary), "--benchmark-flag=--use_gpu=true", "--benchmark-flag=--x=a b"]
    assert "cannot be run here" in refusal(capsys, main(words))  # not executable
    binary.chmod(0o755)
    assert main(words) in (0, 1, 3)
    stored = json.loads((tmp_path / "c.json").read_text())["device"]["benchmark_model"]
    assert stored["int8"]["inference_s"] == pytest.approx(0.0145752)
    assert "says 14.58 ms on average, of random input; ours: " in capsys.readouterr().out
    assert "there is none" in refusal(capsys, main([*words[:-3], str(tmp_path / "no")]))
