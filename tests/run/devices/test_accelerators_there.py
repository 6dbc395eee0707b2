"""A device gets what its job's accelerators need: here a shell of this machine, with a Python that has no packages."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from harness.core.cell import Accelerator
from harness.images import dataset
from harness.run import execute, job
from harness.run.devices import uri
from harness.run.devices.remote import Remote
from models.config import DIGITS
from tests.networks import tflite
from tests.run.devices.rig import Here, silent


@pytest.mark.parametrize("accelerators", [("cpu",), ("cpu", "cpu-compiled"), ("cpu", "gpu")], ids="+".join)
def test_an_accelerator_on_a_device(
    accelerators: tuple[Accelerator, ...], request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    """Every cell answers, with the runtime that was sent; what the CPU alone does not need is not sent for it."""
    if "gpu" in accelerators:
        request.getfixturevalue("swiftshader")
    here = Here(tmp_path / "home")
    here.program("python3", f'exec {sys.base_prefix}/bin/python3 -S "$@"')
    (folder := tmp_path / "job").mkdir()
    data = dataset.take(dataset.load(images, DIGITS), np.arange(3))
    written = job.write(folder, {"float32": tflite("plain", "float32")}, data, None, 1, accelerators)
    with Remote(here, "harness", uri._for_host("here://", None)) as device:
        device.probe()
        outputs = execute.run(written, silent, device)
    assert not outputs.failures
    expected = outputs.results["float32"].arrays["outputs"]
    for task, result in outputs.results.items():
        assert np.abs(result.arrays["outputs"] - expected).max() < 0.01, task
    assert len(outputs.results) == len(accelerators)
    (runtime,) = (here.home / "harness" / "runtime").iterdir()
    assert any(runtime.rglob("libLiteRtWebGpuAccelerator.so")) == ("gpu" in accelerators)
    assert any(runtime.rglob("ml_dtypes")) == (accelerators != ("cpu",))
