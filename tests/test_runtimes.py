"""Older runtimes: what apps ship, and what a Raspberry Pi of 32 bits has."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.cli import main
from harness.records import record
from tests.conftest import ROOT, SHIPPED

BASE = ["tflite-runtime==2.14.0", "numpy<2", "pillow", "scipy", "tabulate"]


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the base packages and tflite-runtime 2.14 alone: no ai-edge-litert, no TensorFlow."""
    folder = tmp_path_factory.mktemp("tflite-runtime")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *BASE], check=True)
    return python


def test_a_stored_reference_is_checked_with_tflite_runtime_alone(
    old_python: Path, tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """Without TensorFlow, all three variants load in tflite-runtime 2.14 and answer as in ai-edge-litert."""
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    arguments = ["check", "--models", str(tiny_variants), "--reference", str(tiny_model), "--data", str(few_images)]
    arguments += ["--quick"]
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
        answers = (run.arrays.raw_answers(cell.cell).argmax(1) for run in (ours, theirs))
        agreement = np.equal(*answers).mean()
        assert agreement == 1.0 if cell.variant == "float32" else agreement >= 0.97, cell.name


def test_the_manifest_says_what_the_older_runtime_makes_of_each_file(
    old_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped model's variants are run there: the default ones answer alike, int16 activations are refused."""
    kinds = (*manifest.KINDS, "float16", "int16x8")
    arguments = ["convert", str(SHIPPED), "--out", str(tmp_path), "--variants", ",".join(kinds)]
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
            assert there.problem is None
            assert there.same_top1 >= there.images - 1, kind
            assert f"{kind}: tflite-runtime 2.14.0 gives" in shown


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
