"""Which operation an accelerator computes otherwise than the CPU: `harness explain VARIANT --accelerator gpu`.

Intermediate tensors cannot be read on an accelerator. So the file is cut at tensors that everything flows through, and
the part before a cut is compared with the CPU's, halving; then each operation between the last cut that agrees and the
first that does not is run alone, on the inputs that the CPU computes for it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import calibration
from harness.artifacts import flatbuffer, manifest
from harness.artifacts.outputs import FloatArray, dequantize
from harness.core.cell import Accelerator
from harness.core.files import check_writable, write_atomic
from harness.core.progress import Progress
from harness.images import dataset
from harness.run import execute, job
from harness.run.devices.base import Device
from harness.tools.explain import KeptTensors, short

DEPARTS = 0.1  # relative error of a tensor: rounding makes less, a wrong operation more
ROUNDING = 1.5  # steps of a quantized tensor that are no error

Array = npt.NDArray[Any]
Run = Callable[[bytes, Sequence[Array]], "list[Array] | str"]


@dataclass(frozen=True)
class Difference:
    """Of an accelerator's output from the CPU's, as real numbers.

    error: root mean square of the difference / of the values; infinite where it cannot be compared; NaN: not known.
    largest: difference; extent: the CPU's largest value. what: "" or what is wrong beside the numbers.
    """

    error: float
    largest: float = np.nan
    extent: float = np.nan
    what: str = ""

    @property
    def departs(self) -> bool:
        return self.error > DEPARTS

    def __str__(self) -> str:
        shown = f"{self.error:.1%} of their size (at most {self.largest:.3g}; the largest value is {self.extent:.3g})"
        return self.what or shown


@dataclass(frozen=True)
class Case:
    """A part of the model with its real inputs: what the CPU and the accelerator make of one image."""

    content: bytes
    inputs: tuple[Array, ...]
    expected: Array
    actual: Array | None


@dataclass(frozen=True)
class Finding:
    """operations: the smallest part that departs, as (name, description): one, where it departs alone. whole: of the
    model's output. agree: operations that come before and agree, of `operations_in_model`."""

    accelerator: str
    whole: Difference
    operations: tuple[tuple[str, str], ...] = ()
    difference: Difference | None = None
    agree: int = 0
    operations_in_model: int = 0
    case: Case | None = None


def on_device(accelerator: Accelerator, device: Device | None = None) -> Run:
    """Runs parts of a model, each in a process of its own. The result: outputs, or why there are none."""

    def run(content: bytes, inputs: Sequence[Array]) -> list[Array] | str:
        with tempfile.TemporaryDirectory(prefix="harness-cut-") as folder:
            written = job.write_tensors(Path(folder), content, inputs, accelerator)
            outputs = execute.run(written, lambda *_: None, device)
        if failure := outputs.failures.get(job.TENSORS):
            return failure.reasons[0]
        result = outputs.results[job.TENSORS]
        if result.ran.fell_back and not result.ran.taken:
            return f"not taken by the accelerator: {result.ran.left}"
        return list(result.arrays.values())

    return run


class _Search:
    def __init__(self, content: bytes, images: Array, run: Run, progress: Callable[[str], None]) -> None:
        self.model, self._kept = flatbuffer.read(content), KeptTensors(content)
        self.graph = self.model.subgraphs[0]
        self._images, self._run, self._progress = images, run, progress
        self._failure_counts = False  # whether a part without outputs departs, or is not known

    def expected(self, tensors: Sequence[int]) -> list[Array]:
        """The CPU's values of some tensors, each [images, ...]."""
        rows = []
        for image in self._images:
            self._kept.run(image)
            rows.append([self._kept.stored(index) for index in tensors])
        return [np.stack(values) for values in zip(*rows, strict=True)]

    def measure(self, operators: Sequence[Any], doing: str) -> tuple[Difference, Case]:
        """A part of the graph, on the accelerator and on the CPU: the output that differs most."""
        self._progress(doing)
        inputs, outputs = boundary(self.model, operators)
        content = flatbuffer.cut(self.model, operators, inputs, outputs)
        given, expected = self.expected(inputs), self.expected(outputs)
        actual = self._run(content, given)
        if isinstance(actual, str):
            difference = Difference(np.inf if self._failure_counts else np.nan, what=actual)
            return difference, Case(content, tuple(array[0] for array in given), expected[0][0], None)
        differences = [
            compare(self._real(index, ours), self._real(index, theirs), self._step(index))
            for index, ours, theirs in zip(outputs, expected, actual, strict=True)
        ]
        number = max(range(len(outputs)), key=lambda n: differences[n].error)
        ours, theirs = expected[number], actual[number]
        image = int(np.argmax([compare(a, b).error for a, b in zip(ours, theirs, strict=True)]))
        case = Case(content, tuple(array[image] for array in given), ours[image], theirs[image])
        return differences[number], case

    def whole(self) -> Difference:
        self._failure_counts = True
        difference, _ = self.measure(self.graph.operators, "the whole model")
        self._failure_counts = np.isinf(difference.error) and bool(difference.what)
        return difference

    def _real(self, index: int, stored: Array) -> FloatArray:
        scale, zero_point = self._kept.tensors[index]["quantization"]
        return dequantize(stored, scale, zero_point)

    def _step(self, index: int) -> float:
        return float(self._kept.tensors[index]["quantization"][0])


def variant(
    models: Path,
    kind: str,
    folder: Path,
    images: int,
    accelerator: Accelerator,
    out: Path,
    progress: Progress,
    *,
    skip_bad: bool = False,
) -> Finding:
    """Explain a variant of a folder on some images of another, and write the smallest part that departs.

    Raises SetupError: no such variant or images, or no such accelerator here.
    """
    entry = manifest.find(manifest.read(models), kind, models)
    manifest.verify(models, entry, entry.source_sha256)
    check_writable(out)
    chosen = calibration.choose(dataset.load(folder, entry.spec, skip_bad=skip_bad), images)
    steps = itertools.count(1)
    finding = explain(
        entry.path(models).read_bytes(),
        chosen.inputs(),
        accelerator,
        on_device(accelerator),
        lambda doing: progress(doing, next(steps), 0),
    )
    if finding.case:
        write(finding, out, f"{finding.operations[0][1]} on {accelerator}")
    return finding


def explain(
    content: bytes,
    images: npt.NDArray[np.float32],
    accelerator: str,
    run: Run,
    progress: Callable[[str], None] = lambda doing: None,
) -> Finding:
    """Find the first operation whose own output departs from the CPU's beyond what its inputs explain."""
    search = _Search(content, images, run, progress)
    operators = search.graph.operators
    whole = search.whole()
    finding = Finding(accelerator, whole, operations_in_model=len(operators))
    if not whole.departs:
        return finding
    ends = [0, *articulations(search.model), len(operators)]
    low, high = 0, len(ends) - 1
    while high - low > 1:
        middle = (low + high) // 2
        before, _ = search.measure(operators[: ends[middle]], f"the first {ends[middle]} operations")
        low, high = (low, middle) if before.departs else (middle, high)
    part = operators[ends[low] : ends[high]]
    for position, operator in enumerate(part, start=ends[low]):
        difference, case = search.measure([operator], name(search, operator))
        if difference.departs:
            return _found(search, finding, [operator], difference, case, position)
    return _together(search, finding, ends[: high + 1])


def _together(search: _Search, finding: Finding, ends: list[int]) -> Finding:
    """No operation departs alone: the shortest run of them, up to the last of some cuts, that departs together."""

    def measure(start: int) -> tuple[Difference, Case]:
        return search.measure(operators[start : ends[-1]], f"{ends[-1] - start} operations together")

    operators = search.graph.operators
    departs, agrees = 0, len(ends) - 1
    while agrees - departs > 1:
        middle = (departs + agrees) // 2
        departs, agrees = (middle, agrees) if measure(ends[middle])[0].departs else (departs, middle)
    return _found(search, finding, operators[ends[departs] : ends[-1]], *measure(ends[departs]), ends[departs])


def _found(
    search: _Search, finding: Finding, part: Sequence[Any], difference: Difference, case: Case, position: int
) -> Finding:
    named = tuple((name(search, operator), flatbuffer.describe(search.model, operator)) for operator in part)
    return replace(finding, operations=named, difference=difference, agree=position, case=case)


def name(search: _Search, operator: Any) -> str:
    return short(flatbuffer.outputs(search.graph, operator))


def boundary(model: Any, operators: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The tensors that operators of the main graph take from without, and those that are used without."""
    graph = model.subgraphs[0]
    chosen = set(map(id, operators))
    made = dict.fromkeys(int(index) for operator in operators for index in operator.outputs)
    taken = dict.fromkeys(int(i) for op in operators for i in op.inputs if i >= 0)
    inputs = [index for index in taken if index not in made and not flatbuffer.constant(model, index)]
    used = {int(i) for op in graph.operators if id(op) not in chosen for i in op.inputs} | set(map(int, graph.outputs))
    return inputs, [index for index in made if index in used]


def articulations(model: Any) -> Iterator[int]:
    """After how many operators a single tensor carries all that the rest of the graph needs."""
    graph = model.subgraphs[0]
    last = {int(index): len(graph.operators) for index in graph.outputs}
    for number, operator in enumerate(graph.operators):
        last |= {int(index): max(last.get(int(index), 0), number) for index in operator.inputs}
    live = set(map(int, graph.inputs))
    for number, operator in enumerate(graph.operators[:-1]):
        live |= set(map(int, operator.outputs))
        live = {index for index in live if last.get(index, -1) > number}
        if len(live) == 1:
            yield number + 1


def compare(expected: Array, actual: Array, step: float = 0.0) -> Difference:
    """step: of a quantized tensor; differences within ROUNDING steps count as none."""
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    extent = float(np.abs(expected).max())
    wrong = ~np.isfinite(actual) & np.isfinite(expected)
    if wrong.any():
        return Difference(np.inf, np.inf, extent, f"NaN or infinity in {wrong.mean():.1%} of its values")
    off = np.abs(actual - expected)
    beyond = np.maximum(off - ROUNDING * step, 0)
    size = float(np.sqrt(np.mean(expected**2)))
    error = float(np.sqrt(np.mean(beyond**2))) / size if size else float(np.inf if beyond.any() else 0)
    zeros = "only zeros" if not actual.any() and error > DEPARTS else ""
    return Difference(error, float(off.max()), extent, zeros)


OPTIONS = {
    "cpu-compiled": "HardwareAccelerator.CPU",
    "gpu": "HardwareAccelerator.GPU",
    "gpu-fp32": "HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True)",
    "npu": "HardwareAccelerator.NPU, intel_openvino_options=IntelOpenVinoOptions(graph_backend=0)",
}
SCRIPT = '''"""{title}"""
import numpy as np
from ai_edge_litert.compiled_model import *  # noqa: F403

case = np.load("case.npz")
model = CompiledModel.from_file("case.tflite", options=Options({options}))
inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
for number, buffer in enumerate(inputs):
    buffer.write(case[f"input{{number}}"])
model.run_by_index(0, inputs, outputs)
actual = outputs[0].read(case["expected"].size, case["expected"].dtype).reshape(case["expected"].shape)
off = np.abs(actual.astype(float) - case["expected"])
print(f"largest difference {{off.max():.3g}}, largest value {{np.abs(case['expected'].astype(float)).max():.3g}}")
'''


def write(finding: Finding, folder: Path, title: str) -> None:
    """The minimal failing file: case.tflite, case.npz (input0, ..., expected, actual) and reproduce.py."""
    assert finding.case is not None
    case = finding.case
    arrays = {f"input{number}": array for number, array in enumerate(case.inputs)} | {"expected": case.expected}
    if case.actual is not None:
        arrays["actual"] = case.actual
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "case.tflite", case.content)
    with (folder / "case.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its other keyword is a flag
    script = SCRIPT.format(title=title, options=OPTIONS[finding.accelerator])
    write_atomic(folder / "reproduce.py", script.encode())
