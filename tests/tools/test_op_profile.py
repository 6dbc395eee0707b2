"""`harness explain --time`: the profiler of the installed wheel, and what a variant's operations cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.core.errors import SetupError
from harness.images import dataset
from harness.tools import op_profile, profiler_process, roofline
from tests.conftest import DIGITS, refusal


@pytest.fixture(scope="session")
def profile(tiny_variants: Path, few_images: Path) -> op_profile.Profile:
    """int8, on two images."""
    images = dataset.take(dataset.load(few_images, DIGITS), np.arange(2)).inputs()
    return op_profile.measure(tiny_variants / "int8.tflite", images, "int8")


def test_the_wheels_profiler_times_every_operation(profile: op_profile.Profile) -> None:
    """The structures that profiler_process declares are those of the wheel: names, types and times make sense."""
    kernels = {step.kernel for step in profile.steps}
    assert any(kernel.startswith("Convolution") for kernel in kernels)
    assert any(kernel.startswith("Fully Connected") for kernel in kernels)
    assert all(kernel.isprintable() and kernel for kernel in kernels)
    assert {step.delegated for step in profile.steps} == {
        True,
        False,
    }  # SOFTMAX and 1x1 poolings are left to plain kernels
    assert {step.kernel for step in profile.steps if not step.delegated} == {"MAX_POOL_2D", "SOFTMAX"}
    assert all(step.seconds >= 0 for step in profile.steps)
    assert sum(step.seconds for step in profile.steps) == pytest.approx(profile.latency_s)
    assert 0 < profile.delegated_share < 1
    assert sum(count for _, count, _ in profile.by_kernel()) == len(profile.steps)


def test_kernels_are_matched_with_the_operations_that_they_do(profile: op_profile.Profile) -> None:
    """Each convolution and dense layer of the graph has its kernel, in order."""
    products = [work for work in profile.work if work.macs]
    assert [step.work for step in profile.steps if step.work and step.work.macs] == products
    assert len(products) > 20
    assert profile.min_s > 0
    assert profile.peak_macs_per_s == profile.peak.int8_macs_per_s


def test_the_work_of_a_layer_is_counted(tiny_variants: Path) -> None:
    """The first convolution, 3x3 on one padded grey image to 16 channels; the last layer, dense to 11 classes."""
    works = {kind: roofline.work((tiny_variants / f"{kind}.tflite").read_bytes()) for kind in ("float32", "int8")}
    first, *_, dense = [work for work in works["int8"] if work.macs]
    assert first.operation == "CONV_2D"
    assert first.macs % (32 * 32 * 9) == 0
    assert dense.operation == "FULLY_CONNECTED"
    assert dense.macs % 11 == 0
    totals = {
        kind: (sum(work.macs for work in rows), sum(work.moved_bytes for work in rows)) for kind, rows in works.items()
    }
    assert totals["float32"][0] == totals["int8"][0]
    assert totals["int8"][1] < totals["float32"][1] / 2


def test_a_profiler_of_another_layout_is_refused() -> None:
    """Times that do not add up to the inference are not shown: one line says what was expected."""
    runs = [[["Invoke", profiler_process.INVOKE, 0, 100], ["CONV_2D", profiler_process.OPERATOR, 0, 1_795_628_901]]] * 5
    with pytest.raises(SetupError, match=r"a\.tflite: .*do not add up to the inference; expected ai-edge-litert"):
        op_profile.operations(runs, Path("a.tflite"))


def test_the_command_shows_kernels_layers_and_the_roofline(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a variant of the folder, and for a file elsewhere; what is not there is refused in one line."""
    words = ["--time", "--models", str(tiny_variants), "--data", str(few_images), "--images", "2", "--layers", "3"]
    assert main(["explain", "float32", *words]) == 0
    shown = capsys.readouterr().out
    for text in ("kernel", "Convolution", "of it in the delegate", "GMAC", "the roofline allows"):
        assert text in shown
    lines = shown.splitlines()
    layers = lines[next(i for i, line in enumerate(lines) if line.startswith("slowest layers")) + 2 :]
    assert layers.index("") == 3
    assert "'int4'" in refusal(capsys, main(["explain", "int4", *words]))
    assert "no.tflite" in refusal(capsys, main(["explain", str(tmp_path / "no.tflite"), *words]))
