"""Older runtimes: what apps ship, and what a Raspberry Pi of 32 bits has."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

from harness.artifacts import manifest
from harness.cli import main
from harness.judge import policy
from harness.records import record
from harness.tools import trials
from tests import store
from tests.conftest import CALIBRATION, FEW_IMAGES_POLICY, ROOT, assert_alike

BASE = ["tflite-runtime==2.14.0", "numpy<2", "msgspec", "pillow", "rich", "scipy", "shtab", "tabulate"]


@pytest.fixture(scope="session")
def old_python() -> Path:
    """A Python with the base packages and tflite-runtime 2.14 alone: no ai-edge-litert, no TensorFlow."""

    def make(out: Path) -> None:
        venv.create(out, with_pip=False)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", out / "bin" / "python", *BASE], check=True)

    return store.obtain("tflite-runtime", BASE, make) / "bin" / "python"


def test_a_stored_reference_is_checked_with_tflite_runtime_alone(
    old_python: Path, tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """Without TensorFlow, all three variants load in tflite-runtime 2.14 and answer as in ai-edge-litert, but for
    rounding."""
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    arguments = ["check", "--models", str(tiny_variants), "--reference", str(tiny_model), "--data", str(few_images)]
    arguments += ["--no-latency"]
    main([*arguments, "--json", str(here)])  # stores the reference, too
    done = subprocess.run(
        [old_python, "-m", "harness", *arguments, "--json", str(there)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert there.exists(), done.stderr
    ours, theirs = record.read(here), record.read(there)
    assert theirs.machine.runtime == "tflite-runtime 2.14.0"
    for cell in theirs.cells:
        assert cell.parity is not None, cell.verdict.reasons
        newer, older = (run.arrays.answers(cell.cell) for run in (ours, theirs))
        assert_alike(cell.cell, newer, older, policy.load(FEW_IMAGES_POLICY))


def test_the_manifest_says_what_the_older_runtime_makes_of_each_file(
    old_python: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each variant is run there: what it predicts is compared with this runtime, int16 activations are refused."""
    arguments = ["convert", str(tiny_model), "--out", str(tmp_path), "--variants", "float32,float16,int16x8"]
    assert main([*arguments, "--runtime", str(old_python)]) == 0
    shown = capsys.readouterr().out
    for kind, variant in manifest.read(tmp_path).items():
        here, there = variant.runtimes
        assert here.same_top1 == here.images >= 44
        assert there.runtime == "tflite-runtime 2.14.0"
        if kind == "int16x8":
            assert variant.oldest_runtime == "2.15.0"
            assert there.problem is not None
            assert "CONV_2D" in there.problem
        else:
            assert (there.problem, there.same_top1) == (None, there.images)
            assert f"{kind}: tflite-runtime 2.14.0 gives" in shown


def test_the_shipped_variants_predict_alike_in_the_older_runtime(old_python: Path, shipped_variants: Path) -> None:
    """On one image in fifty another answer is borne: the runtimes round differently."""
    variants = manifest.read(shipped_variants)
    compared, _ = trials.compare(shipped_variants, variants, CALIBRATION, [str(old_python)])
    for kind, variant in compared.items():
        there = variant.runtimes[-1]
        assert there.problem is None
        assert there.same_top1 >= there.images - 1, kind


def test_computing_a_reference_without_tensorflow_says_what_to_install(
    old_python: Path, tiny_model: Path, few_images: Path, tmp_path: Path
) -> None:
    """One line and exit code 2."""
    done = subprocess.run(
        [old_python, "-m", "harness", "evaluate", str(tiny_model), "--data", few_images, "--models", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "pip install '.[convert]'" in done.stderr
    assert done.stderr.count("\n") == 1
