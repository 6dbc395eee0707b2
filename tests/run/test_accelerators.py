"""The worker's backends on what a machine without accelerators has: SwiftShader as the GPU, OpenVINO as the NPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from harness.artifacts import flatbuffer
from harness.core.cell import Accelerator
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.run import execute, job, worker
from harness.run.devices import uri
from harness.run.execute import Outputs
from harness.run.latency_plan import LatencyPlan
from tests.conftest import DIGITS
from tests.networks import tflite

QUICK = LatencyPlan(processes=2, turns=1, block_s=0.002, warmup_s=0.01)
SOFTWARE = ("gpu", "gpu-fp32", "npu")


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> Any:
    """One by name, with what it needs on this machine."""
    if request.param in SOFTWARE:
        request.getfixturevalue("openvino" if request.param == "npu" else "swiftshader")
    return request.param


@pytest.fixture
def data(few_images: Path) -> Dataset:
    return dataset.take(dataset.load(few_images, DIGITS), np.arange(0, 110, 10))


def ran(
    folder: Path,
    contents: Mapping[str, bytes],
    data: Dataset,
    accelerators: tuple[Accelerator, ...],
    plan: LatencyPlan | None = None,
    **options: Any,
) -> Outputs:
    written = job.write(folder, contents, data, plan, 2, accelerators)
    return execute.run(written, lambda *_: None, **options)


@pytest.mark.parametrize("accelerator", ["cpu-compiled", *SOFTWARE], indirect=True)
def test_outputs_are_raw_and_as_the_interpreter_gives_them(
    accelerator: Accelerator, data: Dataset, tmp_path: Path
) -> None:
    """float32 and int8, input and output of the model's own type: near the interpreter's, and quantized alike."""
    contents = {kind: tflite("plain", kind) for kind in ("float32", "int8")}
    outputs = ran(tmp_path, contents, data, ("cpu", accelerator))
    assert not outputs.failures
    for kind, tolerance in (("float32", 0.01), ("int8", 2)):
        expected, actual = (outputs.results[name].arrays for name in (kind, f"{kind}@{accelerator}"))
        assert actual["outputs"].dtype == expected["outputs"].dtype
        assert np.abs(actual["outputs"].astype(float) - expected["outputs"]).max() <= tolerance
        for name in ("scale", "zero_point", "input_means"):
            assert np.array_equal(actual[name], expected[name])


@pytest.mark.parametrize("accelerator", SOFTWARE, indirect=True)
def test_what_ran_is_recorded_and_software_is_not_timed(
    accelerator: Accelerator, data: Dataset, tmp_path: Path
) -> None:
    """Adapter, driver and precision by name; every operation taken; latency on the CPU alone."""
    contents = {"float32": tflite("plain")}
    outputs = ran(tmp_path, contents, data, ("cpu", accelerator), QUICK)
    result = outputs.results[f"float32@{accelerator}"].ran
    assert result.accelerator == accelerator
    assert ("SwiftShader" if accelerator.startswith("gpu") else "not an NPU") in str(result.adapter)
    assert str(result.driver).startswith(("SwiftShader driver (", "OpenVINO 202"))
    assert result.precision in ("float32", "bfloat16", "OpenVINO's choice")
    assert result.software
    assert result.taken == result.operations == 5
    assert not result.not_taken
    assert not result.fell_back
    assert result.problem is None
    timed = {name: outputs.results[name] for name in outputs.results if job.is_latency(name)}
    assert {name: result.ran.accelerator for name, result in timed.items()} == {
        "latency-1": "cpu",
        "latency-2": "cpu",
    }
    assert not outputs.failures


def test_each_accelerator_is_timed_with_a_control_of_its_own(data: Dataset, tmp_path: Path) -> None:
    """cpu-compiled beside cpu: its own processes, order and control, of cells by name."""
    outputs = ran(tmp_path, {"float32": tflite("plain")}, data, ("cpu", "cpu-compiled"), QUICK)
    arrays = outputs.results["latency-3"].arrays
    assert str(arrays["control"]) == "float32@cpu-compiled"
    assert sorted(arrays["kinds"].tolist()) == ["control", "float32@cpu-compiled"]
    assert arrays["float32@cpu-compiled.samples"].min() > 0
    assert outputs.results["latency-1"].arrays["kinds"].tolist() == ["float32", "control"]


@pytest.mark.usefixtures("swiftshader")
def test_the_library_says_which_convolution_it_may_get_wrong(data: Dataset, tmp_path: Path) -> None:
    """The known fault: nonsense, "fully accelerated", and a warning of the library that is kept."""
    outputs = ran(tmp_path, {"dynamic_range": tflite("strided", "dynamic_range")}, data, ("cpu", "gpu"))
    expected, actual = (outputs.results[name] for name in ("dynamic_range", "dynamic_range@gpu"))
    assert np.abs(actual.arrays["outputs"] - expected.arrays["outputs"]).max() > 1e-3
    assert actual.ran.taken == actual.ran.operations
    (warning,) = actual.ran.warnings
    assert warning.startswith("Shape mismatch in GpuModelBuilder")


@pytest.mark.usefixtures("swiftshader")
def test_operations_that_are_not_taken_are_named(data: Dataset, tmp_path: Path) -> None:
    """They run on the CPU: right predictions, and no silence over it."""
    outputs = ran(tmp_path, {"float32": tflite("int64")}, data, ("cpu", "gpu"))
    result = outputs.results["float32@gpu"]
    assert np.allclose(result.arrays["outputs"], outputs.results["float32"].arrays["outputs"], atol=1e-4)
    assert result.ran.fell_back
    assert result.ran.taken is not None
    assert result.ran.operations is not None
    assert 0 < result.ran.taken < result.ran.operations
    assert {line.partition(":")[0] for line in result.ran.not_taken} == {"ARG_MAX", "CAST", "RESHAPE", "STRIDED_SLICE"}
    assert len(result.ran.not_taken) == 4


@pytest.mark.usefixtures("openvino")
def test_a_plugin_that_fails_leaves_the_cpu_and_says_so(data: Dataset, tmp_path: Path) -> None:
    """OpenVINO has no SHAPE; LiteRT then runs all on XNNPACK: no operation is counted as taken."""
    outputs = ran(tmp_path, {"float32": tflite("flattened", batch=None)}, data, ("npu",))
    result = outputs.results["float32@npu"].ran
    assert result.fell_back
    assert result.taken == 0
    assert "SHAPE" in result.not_taken
    assert "harness convert --batch 1" in result.left
    assert result.problem


@pytest.mark.usefixtures("swiftshader")
def test_a_model_that_does_not_compile_fails_alone(data: Dataset, tmp_path: Path) -> None:
    """FAIL with the library's reason and what ran known; the next cell is computed."""
    contents = {"float32": tflite("flattened", batch=None), "int8": tflite("plain", "int8")}
    outputs = ran(tmp_path, contents, data, ("gpu",))
    (failure,) = outputs.failures.values()
    assert failure.outcome is Outcome.FAIL
    assert "only supports static-sized tensors" in failure.reasons[0]
    assert failure.reasons[0].endswith("use harness convert --batch 1")
    assert outputs.results["float32@gpu"].ran.taken == 0
    assert "SwiftShader" in str(outputs.results["float32@gpu"].ran.adapter)
    assert "outputs" in outputs.results["int8@gpu"].arrays


@pytest.mark.usefixtures("openvino")
def test_a_failure_while_running_has_the_library_s_reason(data: Dataset, tmp_path: Path) -> None:
    """OpenVINO forgets the stride of a dynamic-range 1x1 convolution at the output, and then refuses its shape."""
    model = flatbuffer.read(tflite("strided", "dynamic_range"))
    (operator,) = (o for o in model.subgraphs[0].operators if "strided" in flatbuffer.outputs(model.subgraphs[0], o))
    operator.builtinOptions.fusedActivationFunction = 0
    content = flatbuffer.cut(model, [operator], [int(operator.inputs[0])], [int(operator.outputs[0])])
    written = job.write_tensors(tmp_path, content, [np.ones((1, 1, 28, 28, 64), np.float32)], "npu")
    failure = execute.run(written, lambda *_: None).failures[job.TENSORS]
    assert failure.outcome is Outcome.FAIL
    assert failure.reasons[0].startswith("npu: failed while running: Can't set the output tensor with index: 0")


def test_a_file_that_the_interpreter_refuses_fails_alone(data: Dataset, tmp_path: Path) -> None:
    """Damaged: the runtime's reason, and its name."""
    outputs = ran(tmp_path, {"float32": tflite("plain")[:5000], "int8": tflite("plain", "int8")}, data, ("cpu",))
    assert outputs.failures["float32"].reasons[0].startswith("cpu: refused: ")
    assert outputs.results["float32"].ran.runtime.startswith("ai-edge-litert ")
    assert "outputs" in outputs.results["int8"].arrays


def test_a_type_without_buffers_fails_alone(data: Dataset, tmp_path: Path) -> None:
    """CompiledModel's Python buffers hold no int16."""
    outputs = ran(tmp_path, {"int16x8": tflite("plain", "int16x8")}, data, ("cpu-compiled",))
    assert "Unsupported dtype: int16" in outputs.failures["int16x8@cpu-compiled"].reasons[0]


@pytest.mark.usefixtures("swiftshader")
@pytest.mark.slow
def test_a_hang_while_compiling_is_stopped_and_named(data: Dataset, tmp_path: Path) -> None:
    """The silence limit passes in the accelerator's compiler: FAIL, as no other process is to blame."""
    outputs = ran(tmp_path, {"float32": tflite("plain", deep=60)}, data, ("gpu",), silence_limit_s=1.0)
    failure = outputs.failures["float32@gpu"]
    assert failure.outcome is Outcome.FAIL
    assert "silent too long and was stopped while compiling for gpu" in failure.reasons[0]


@pytest.mark.usefixtures("swiftshader")
def test_a_driver_out_of_memory_costs_one_cell(data: Dataset, tmp_path: Path) -> None:
    """SwiftShader's device memory is the process's: it dies of a limit on that, while it compiles; the CPU answers."""
    written = job.write(tmp_path, {"float32": tflite("plain")}, data, None, 2, ("gpu", "cpu"))
    size = r'int(search(r"VmSize:\s*(\d+)", text("/proc/self/status"))) * 1024'
    limit = f"resource.setrlimit(resource.RLIMIT_AS, ({size} + (64 << 20),) * 2)"
    compiles = "model = litert.CompiledModel.from_buffer("
    written.worker.write_text(written.worker.read_text().replace(compiles, f"{limit}; {compiles}"))
    outputs = execute.run(written, lambda *_: None)
    failure = outputs.failures["float32@gpu"]
    assert failure.outcome is Outcome.FAIL
    assert "while compiling for gpu" in failure.reasons[0]
    assert "outputs" in outputs.results["float32"].arrays


def test_a_machine_without_a_vulkan_driver_is_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up, not a verdict; before the CPU's cells are computed; what to install is said."""
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    with pytest.raises(
        SetupError, match=r"finds no Vulkan driver .*No adapters found.*chromium/vk_swiftshader_icd.json$"
    ):
        ran(tmp_path, {"float32": tflite("plain")}, data, ("cpu", "gpu"))
    assert not list(tmp_path.glob("results/*.npz"))


def test_a_phone_s_gpu_is_refused_with_what_works_instead(data: Dataset, tmp_path: Path) -> None:
    """Before anything is pushed: nothing answers at this address."""
    written = job.write(tmp_path, {"float32": tflite("plain")}, data, None, 2, ("cpu", "gpu"))
    with pytest.raises(SetupError, match=r"adb://none: --accelerator gpu: .*glibc.*use cpu or cpu-compiled there"):
        execute.run(written, lambda *_: None, uri.device("adb://none"))


def test_another_python_runs_the_worker(data: Dataset, tmp_path: Path) -> None:
    """By the address local?python=PATH: it is started, and its own words say what it lacks."""
    python = tmp_path / "a python"
    python.write_text("#!/bin/sh\necho no interpreter: install one >&2\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / "job").mkdir()
    written = job.write(tmp_path / "job", {"float32": tflite("plain")}, data, None, 2)
    device = uri.device(f"local?python={quote(str(python))}")
    with pytest.raises(SetupError, match=r"local\?python=.*a%20python: .*no interpreter"):
        execute.run(written, lambda *_: None, device)
    with pytest.raises(SetupError, match="cannot be started"):
        execute.run(written, lambda *_: None, uri.device("local?python=/none"))


@pytest.mark.parametrize(
    ("wanted", "library", "advice"),
    [
        ("npu", "", r"libopenvino\.so\.\d+: cannot open.*pip install openvino"),
        ("gpu", "libLiteRtWebGpuAccelerator.so", "no GPU accelerator here"),
        ("cpu-compiled", "compiled_model.py", "no CompiledModel here"),
    ],
)
def test_a_runtime_without_the_accelerator_is_refused(
    wanted: Accelerator, library: str, advice: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT in a folder of its own, where its plugin does not find OpenVINO, or without one of its files."""
    package = Path(worker.find_runtime()[0].__file__).parent
    for path in package.rglob("*"):
        link = tmp_path / "site" / "ai_edge_litert" / path.relative_to(package)
        if not path.is_dir() and path.name != library and "__pycache__" not in path.parts:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "job").mkdir()
    with pytest.raises(SetupError, match=advice):
        ran(tmp_path / "job", {"float32": tflite("plain")}, data, (wanted,))


def test_the_last_useful_line_says_what_went_wrong() -> None:
    """Of LiteRT's logs as they are: what, not where, without time and source."""
    openvino = """\
ERROR: [openvino_compiler_plugin.cc:714] Exception in compilation: Exception from src/inference/src/cpp/core.cpp:117:
Exception from src/inference/src/dev/plugin.cpp:54:
Cannot load library "libopenvino_intel_npu_compiler_loader.so": No such file or directory
INFO: [compiled_model.cc:1397] 0 compiler plugins were applied successfully:
ERROR: [compiled_model.cc:1400] Plugin errs: IntelOpenVINO ERROR: [litert/compiler/plugin/compiler_plugin.cc:504]"""
    assert worker.last_problem(openvino.splitlines(), "").startswith('Cannot load library "libopenvino_intel_npu')
    glog = "E0000 00:00:1795624400.928982    6012 delegate_webgpu.cc:736] Failed to allocate 4 GB of device memory"
    assert worker.last_problem([glog], "") == "Failed to allocate 4 GB of device memory"
    error = "ERROR: [./litert/cc/litert_compiled_model.h:1961]\n└ Failed to modify graph with delegate"
    assert worker.last_problem([], error) == "Failed to modify graph with delegate"
