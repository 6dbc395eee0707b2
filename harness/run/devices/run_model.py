"""Google's run_model instead of our worker (experimental): answers as an app gets them, from the device's own drivers.

LiteRT's tool runs a model once on the tensors of a folder, and prints its outputs, at least to six digits. It is
started for each image. `?run_model=FILE` of an address names the binary, built for the device. It is not timed:
benchmark_model is for that.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from msgspec import structs

from harness.artifacts import model_tensors
from harness.artifacts.model_tensors import ModelTensors
from harness.core import npz, shapes
from harness.core.errors import SetupError
from harness.core.files import write_atomic
from harness.core.progress import Progress
from harness.run import job as jobs
from harness.run.devices import bundle, shell
from harness.run.devices.base import INPUTS, SILENCE_LIMIT_S, Device, Ended, Executed, Probe
from harness.run.job import About, Job, Machine, Ran

RUNTIME = "run_model (experimental)"
ACCELERATORS = ("cpu", "gpu", "npu")
LOG = "run_model.txt"  # in the cache: what it printed, where that was not understood
_CANNOT_RUN = (126, 127)  # of a shell: not executable, not there
_PRINTED = {1: np.float32, 2: np.int32, 3: np.uint8, 9: np.int8}  # by LiteRT's ElementType: as numbers
_PREFIX = re.compile(r"^[IWEF]\d{4} \S+\s+\d+ [^\]\s]+:\d+\] ")


class RunModel:
    """A device whose tasks run_model does. libraries: files that lie beside the inputs. Raises SetupError: no such
    binary, or library."""

    def __init__(self, device: Device, binary: Path, flags: Sequence[str] = (), libraries: Sequence[Path] = ()) -> None:
        for path in (binary, *libraries):
            if not path.is_file():
                what = "LiteRT's run_model" if path == binary else "a library of run_model"
                raise SetupError(f"{path}: expected {what} for the device; there is none")
        self._device, self._binary, self._flags = device, binary, flags
        self._libraries = {path.name: path.read_bytes() for path in libraries}
        self.traffic = device.traffic

    @property
    def uri(self) -> str:
        return f"{self._device.uri}{'&' if '?' in self._device.uri else '?'}run_model={quote(self._binary.name)}"

    def __enter__(self) -> Self:
        self._device.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.__exit__(kind, error, trace)

    def probe(self) -> Probe:
        self._probe = structs.replace(self._device.probe(), uri=self.uri)
        return self._probe

    def push(self, job: Job) -> Job:
        return self._device.push(job)

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        """Every task, image by image. A program that ends by itself is data; one that cannot be started is not."""
        plan = json.loads(job.plan.read_text())
        images = np.load(job.folder / plan["inputs"][0])
        for task in plan["tasks"]:
            if job.result_path(task["name"]).exists():
                continue
            if task["do"] != jobs.ANSWERS:
                raise SetupError(f"{self.uri}: run_model gives answers only, no times: use --no-latency")
            ran = Ran(accelerator=task["accelerator"], runtime=RUNTIME)
            ((file, _),) = task["variants"].values()
            model = model_tensors.read((job.folder / file).read_bytes())
            rows: list[npt.NDArray[Any]] = []
            prepared = model.inputs[0].quantize(images)
            for number, tensor in enumerate(prepared):
                progress(task["name"], number, len(prepared))
                done = self._once(job, task, file, model, tensor, silence_limit_s)
                if done.code in _CANNOT_RUN:
                    reason = shell.plain(done.error + done.out)
                    raise SetupError(
                        f"{self.uri}: {self._binary} cannot be run there ({reason}); is it for its processor?"
                    )
                if done.code < 0 or done.code > 128:
                    return Ended(-(done.code % 128), task["name"], _reason(done))
                if done.code:
                    self._store(job, plan, task, Ran(ran.accelerator, RUNTIME, problem=f"failed: {_reason(done)}"), {})
                    break
                rows.append(self._row(done.out + done.error, model))
            else:
                scale, zero_point = model.quantization
                means = prepared.reshape(len(prepared), -1).mean(axis=1, dtype=np.float64)
                arrays = {"outputs": np.stack(rows), "scale": np.float64(scale), "zero_point": np.int64(zero_point)}
                self._store(job, plan, task, ran, {**arrays, "input_means": means})
        return Ended(0, None, "")

    def pull(self, job: Job) -> None:
        """They are here already."""

    def program(
        self,
        path: Path,
        arguments: Sequence[str],
        job: Job,
        timeout_s: float,
        inputs: Mapping[str, bytes] | None = None,
    ) -> Executed:
        return self._device.program(path, arguments, job, timeout_s, inputs)

    def _once(
        self,
        job: Job,
        task: Mapping[str, Any],
        file: str,
        model: ModelTensors,
        tensor: npt.NDArray[Any],
        limit_s: float,
    ) -> Executed:
        count = max(int(np.prod(output.shape)) for output in model.outputs)
        arguments = [
            f"--graph={{files}}/{Path(file).name}",
            f"--accelerator={task['accelerator']}",
            f"--input_dir={INPUTS}",
            "--print_tensors=true",
            "--compare_numerical=true",  # without it only sizes are printed
            f"--sample_size={count}",
            *self._flags,
        ]
        raw = {f"{model.inputs[0].name}.raw": tensor.tobytes()}
        return self._device.program(self._binary, arguments, job, limit_s, {**self._libraries, **raw})

    def _row(self, printed: str, model: ModelTensors) -> npt.NDArray[Any]:
        try:
            given = outputs(printed)
            if len(given) != len(model.outputs):
                raise ValueError(f"{len(given)} outputs of {len(model.outputs)}")
            return model.numbers([given[output.place] for output in model.outputs])
        except ValueError as error:
            path = bundle.cache() / LOG
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, printed.encode())
            raise SetupError(
                f"{self.uri}: what {self._binary.name} prints is not understood ({error}); please send {path}"
            ) from error

    def _store(
        self, job: Job, plan: Mapping[str, Any], task: Mapping[str, Any], ran: Ran, arrays: dict[str, Any]
    ) -> None:
        probe = self._probe
        machine = Machine(
            RUNTIME,
            system=probe.system,
            machine=probe.machine,
            cores=probe.cores,
            host=probe.name,
            processor=probe.name,
        )
        about = shapes.encode(About(plan["nonce"], task["name"], machine, ran)).decode()
        path = job.result_path(task["name"])
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, npz.encode({"about": np.array(about), **arrays}, compress=False))


def outputs(printed: str) -> list[npt.NDArray[Any]]:
    """The output tensors that run_model printed, flat, in the order of the signature. Raises ValueError."""
    tensors: list[tuple[Any, int, dict[int, str]]] = []
    inside = False
    for line in (_PREFIX.sub("", line) for line in printed.splitlines()):
        if match := re.fullmatch(r"(Input|Output) buffer (\d+):", line):
            inside = match[1] == "Output"
            if inside and int(match[2]) != len(tensors):
                raise ValueError(f"output {match[2]} after {len(tensors)} outputs")
            if inside:
                tensors.append((None, 0, {}))
        elif inside and (match := re.fullmatch(r"  ElementType: (\d+)", line)):
            tensors[-1] = (_PRINTED.get(int(match[1])), *tensors[-1][1:])
        elif inside and (match := re.fullmatch(r"  Total logical elements: (\d+)", line)):
            tensors[-1] = (tensors[-1][0], int(match[1]), tensors[-1][2])
        elif inside and (match := re.fullmatch(r"    (\d+): (\S+)", line)):
            tensors[-1][2][int(match[1])] = match[2]
    if not tensors:
        raise ValueError("no 'Output buffer 0:'")
    return [_tensor(*tensor) for tensor in tensors]


def _tensor(dtype: Any, count: int, values: Mapping[int, str]) -> npt.NDArray[Any]:
    if dtype is None:
        raise ValueError("an element type that it does not print as numbers")
    if not count or sorted(values) != list(range(count)):
        raise ValueError(f"values of {len(values)} of {count} elements")
    numbers = np.array([float(values[place]) for place in range(count)])
    if dtype is np.float32:
        return numbers.astype(np.float32)
    limits = np.iinfo(np.uint8 if dtype is np.int8 else dtype)
    if not ((numbers == np.round(numbers)) & (numbers >= limits.min) & (numbers <= limits.max)).all():
        raise ValueError("numbers that the type does not have")
    return numbers.astype(np.uint8).view(np.int8) if dtype is np.int8 else numbers.astype(dtype)  # int8 as if unsigned


def _reason(done: Executed) -> str:
    """The last line that says what went wrong."""
    lines = (done.out + done.error).splitlines()
    errors = [line for line in lines if re.match(r"[EF]\d{4} |ERROR", line)] or lines
    return shell.plain(_PREFIX.sub("", errors[-1])) if errors else f"exit code {done.code}"


def words(text: str) -> tuple[str, ...]:
    """Of `run_flags` or `run_files` of an address. Raises SetupError."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise SetupError(f"run_flags or run_files {text!r}: {error}") from error
