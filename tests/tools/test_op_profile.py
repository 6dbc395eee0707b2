"""`harness profile`: the profiler of the installed wheel, and what a variant's operations cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.core.errors import SetupError
from harness.images import dataset
from harness.run.devices.benchmark_model import BenchmarkModel, profiled_steps
from harness.run.devices.local import Local
from harness.tools import op_profile, roofline
from tests.conftest import DIGITS, refusal


@pytest.fixture(scope="session")
def profile(tiny_variants: Path, few_images: Path) -> op_profile.Profile:
    """int8, on two images."""
    images = dataset.take(dataset.load(few_images, DIGITS), np.arange(2)).inputs()
    return op_profile.measure(tiny_variants / "int8.tflite", images, "int8")


def test_the_wheels_profiler_times_every_operation(profile: op_profile.Profile) -> None:
    """The structures that the worker declares are those of the wheel: names, types and times make sense."""
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
    runs = [[("Invoke", op_profile.INVOKE, 0, 100), ("CONV_2D", op_profile.OPERATOR, 0, 1_795_628_901)]] * 5
    with pytest.raises(SetupError, match=r"a\.tflite: .*do not add up to the inference; expected ai-edge-litert"):
        op_profile.operations(runs, Path("a.tflite"))


def test_the_command_shows_kernels_layers_and_the_roofline(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a variant of the folder, and for a file elsewhere; what is not there is refused in one line."""
    words = ["--models", str(tiny_variants), "--data", str(few_images), "--images", "2", "--layers", "3"]
    assert main(["profile", "float32", *words]) == 0
    shown = capsys.readouterr().out
    for text in ("kernel", "Convolution", "of it in the delegate", "GMAC", "the roofline allows"):
        assert text in shown
    lines = shown.splitlines()
    layers = lines[next(i for i, line in enumerate(lines) if line.startswith("slowest layers")) + 2 :]
    assert layers.index("") == 3
    assert "'int4'" in refusal(capsys, main(["explain", "int4", "--time", *words]))
    assert "no.tflite" in refusal(capsys, main(["profile", str(tmp_path / "no.tflite"), *words]))


# Tables of benchmark_model --enable_op_profiling=true as two of its versions print them, shortened.
OLDER = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t    [node type]\t [start]\t [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\tAllocateTensors\t   0.000\t   1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t          [node type]\t [start]\t [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\tTfLiteXNNPackDelegate\t   0.000\t  11.665\t   11.500\t 95.833%\t 95.833%\t     0.000\t        1\t[a/b, c]:71
\t              SOFTMAX\t  11.500\t   0.506\t    0.500\t  4.167%\t100.000%\t     0.000\t        1\t[c/Softmax]:72

============================== Top by Computation Time ==============================
\t              SOFTMAX\t  11.500\t   0.506\t    0.500\t  4.167%\t100.000%\t     0.000\t        1\t[c/Softmax]:72
"""
NEWER = """INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
                  [node type]  [first]  [avg ms]     [%]  [cdf%]  [mem KB]  [times called]  [Name]
Convolution (NHWC, QS8) IGEMM    0.398     0.407  2.658%  3.986%     0.000               2  Delegate/Convolution:0
                     QUANTIZE    0.199     0.203  1.328%  5.314%     0.000               1  [tfl.quantize]:0

============================== Top by Computation Time ==============================
"""


@pytest.mark.parametrize(
    ("printed", "steps"),
    [
        (OLDER, [("TfLiteXNNPackDelegate", True, 0.0115), ("SOFTMAX", False, 0.0005)]),
        (NEWER, [("Convolution (NHWC, QS8) IGEMM", True, 0.000814), ("QUANTIZE", False, 0.000203)]),
        ("Inference timings in us: Init: 1, First inference: 2", []),
    ],
)
def test_benchmark_models_tables_are_read(printed: str, steps: list[tuple[str, bool, float]]) -> None:
    """Of the inferences, not of the start, in order; a kernel that was called twice took twice its average."""
    read = profiled_steps(printed)
    assert [(step.kernel, step.delegated) for step in read] == [(name, delegated) for name, delegated, _ in steps]
    assert [step.seconds for step in read] == pytest.approx([seconds for _, _, seconds in steps])


def test_a_benchmark_model_of_the_users_gives_the_same_table(
    tiny_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """Its kernels, scaled to the worker's own time of an inference; a tool that prints no table is named."""
    images = dataset.take(dataset.load(few_images, DIGITS), np.arange(2)).inputs()
    tool, file = tmp_path / "benchmark_model", tiny_variants / "int8.tflite"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *--graph=/*--enable_op_profiling=true*) cat {tmp_path}/table;; esac\n')
    tool.chmod(0o755)
    (tmp_path / "table").write_text(OLDER)
    profile = op_profile.measure(file, images, "int8", Local(), BenchmarkModel(tool))
    kernels = [(step.kernel, step.delegated) for step in profile.steps]
    assert kernels == [("TfLiteXNNPackDelegate", True), ("SOFTMAX", False)]
    assert profile.delegated_share == pytest.approx(11.5 / 12)
    assert profile.profiled_s == pytest.approx(0.012)
    (tmp_path / "table").write_text("nothing of the kind")
    with pytest.raises(SetupError, match=r"printed no table of operations \(exit code 0: nothing of the kind\)"):
        op_profile.measure(file, images, "int8", Local(), BenchmarkModel(tool))
