"""The job: a folder that holds all a worker needs, and into which it writes its results.

job.json (the plan), worker.py, files/<SHA-256> (variants, inputs), results/<task>.npz.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs

from harness.core import npz, shapes
from harness.core.cell import BROWSERS, Accelerator, Cell
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.shapes import Shape
from harness.images.dataset import Dataset
from harness.run import worker
from harness.run.latency_plan import PACED_BLOCK, LatencyPlan, Mode
from harness.run.latency_run import latency_run

Array = npt.NDArray[Any]

SCHEMA = "harness-job/2"
FILES = "files"
MAX_RESULT_BYTES = 2**30  # of a task, packed and unpacked
ALL_CORES = 0  # of the machine that runs the job
LATENCY = "latency"  # the tasks of it are latency-1, latency-2, ...
CONTROL_OF = "int8"  # whose file is measured twice, where there is one: the fastest, so that a bias shows most
COUNT = "count"  # the tasks of it are count-int8, ...
PROFILE = "profile"
ANSWERS = "answers"
TENSORS = "tensors"
MAX_TENSORS = 256  # that a part of a model gives


def is_latency(task: str) -> bool:
    return task.startswith(f"{LATENCY}-")


def counted_cell(task: str) -> str | None:
    """The cell whose instructions a task counts. None if it is another task."""
    return task.removeprefix(f"{COUNT}-") if task.startswith(f"{COUNT}-") else None


def process_number(task: str) -> int:
    """Of a task that measures latency; counted from 1."""
    return int(task.removeprefix(f"{LATENCY}-"))


@dataclass(frozen=True)
class Job:
    """A job folder and the nonce its results must carry."""

    folder: Path
    nonce: str
    tasks: tuple[str, ...]

    @property
    def worker(self) -> Path:
        return self.folder / "worker.py"

    @property
    def plan(self) -> Path:
        return self.folder / "job.json"

    @property
    def accelerators(self) -> set[str]:
        """Those asked for."""
        return {task["accelerator"] for task in json.loads(self.plan.read_text())["tasks"]}

    def files(self) -> dict[Path, str]:
        """The variants and the inputs, each named by its SHA-256, and which of the two it is."""
        inputs = json.loads(self.plan.read_text())["inputs"][1]
        return {path: "inputs" if path.name == inputs else "models" for path in (self.folder / FILES).iterdir()}

    def result_path(self, task: str) -> Path:
        return self.folder / "results" / f"{task}.npz"


def write(
    folder: Path,
    contents: Mapping[str, bytes],
    data: Dataset | Array,
    plan: LatencyPlan | None,
    parallel: int,
    accelerators: Sequence[Accelerator] = ("cpu",),
    *,
    count: bool = False,
) -> Job:
    """Fill an empty folder with worker, .tflite files, inputs and plan: a task for each cell's answers, and for each
    process that measures latency; none of those without a plan. contents: of the variants' files, by kind. data:
    images, or float32 inputs [N, H, W, C]. count: the instructions of each variant, too."""
    files = {kind: _put(folder, content) for kind, content in contents.items()}
    early = sorted(accelerators, key=worker.CPUS.__contains__)  # one that is not there ends the job at once
    tasks = [_answers(Cell(kind, accelerator), file, parallel) for accelerator in early for kind, file in files.items()]
    if count and "cpu" in accelerators:
        tasks = [_count(Cell(kind), file) for kind, file in files.items()] + tasks
    if plan:
        tasks += _latency(files, plan, accelerators)
    return _write(folder, data.inputs() if isinstance(data, Dataset) else data, tasks)


def write_latency(folder: Path, contents: Mapping[str, bytes], data: Dataset, plan: LatencyPlan) -> Job:
    """The same without the answers."""
    files = {kind: _put(folder, content) for kind, content in contents.items()}
    return _write(folder, data.inputs(), _latency(files, plan, ("cpu",)))


def write_answers(folder: Path, content: bytes, data: Dataset, parallel: int) -> Job:
    """Fill an empty folder with worker, inputs and one .tflite file: the one task is ANSWERS."""
    return _write(folder, data.inputs(), [_answers(Cell(ANSWERS), _put(folder, content), parallel)])


def write_tensors(folder: Path, content: bytes, inputs: Sequence[Array], accelerator: Accelerator) -> Job:
    """Fill an empty folder with worker, a part of a model and its input tensors, each [N, ...]: the one task is
    TENSORS."""
    task = {"name": TENSORS, "do": TENSORS, "accelerator": accelerator, "fresh": True}
    files = {TENSORS: _put(folder, content)}
    return _write(folder, {str(n): array for n, array in enumerate(inputs)}, [{**task, "variants": files}])


def write_profile(folder: Path, files: Mapping[str, bytes], data: Array, runs: int, *, events: bool) -> Job:
    """Fill an empty folder with worker, inputs [N, H, W, C] and the files of a profile: the one task is PROFILE.

    events: whether the runtime's profiler is asked."""
    task = {"name": PROFILE, "do": PROFILE, "accelerator": "cpu", "fresh": True, "runs": runs, "events": events}
    return _write(folder, data, [{**task, "variants": {name: _put(folder, file) for name, file in files.items()}}])


def _latency(
    files: Mapping[str, tuple[str, str]], plan: LatencyPlan, accelerators: Sequence[Accelerator]
) -> list[dict[str, Any]]:
    """A task per process, which times one accelerator's cells in one mode. Each cell is loaded first in one process or
    another, alone in memory; the control, a second instance of one cell's file, is before its twin or after it."""
    tasks: list[dict[str, Any]] = []
    for (mode, of_mode), accelerator in product(plan.modes().items(), accelerators):
        if mode != "steady" and accelerator in BROWSERS:
            continue  # a page has no process of its own to start, and its worker does not pause
        cells = {str(Cell(kind, accelerator)): file for kind, file in files.items()}
        control_of = str(Cell(CONTROL_OF if CONTROL_OF in files else next(iter(files)), accelerator))
        control = None if of_mode.alone else control_of
        starts = 0 if of_mode.alone else of_mode.min_starts * len(cells)
        for number in range(max(of_mode.processes, starts)):
            first = number % len(cells)
            order = [*list(cells)[first:], *list(cells)[:first]]
            if control:
                order.insert(order.index(control) if number % 2 else len(order), worker.CONTROL)
            tasks += [
                {
                    "name": f"{LATENCY}-{len(tasks) + part}",
                    "do": "latency",
                    "accelerator": accelerator,
                    "fresh": True,
                    "variants": {cell: cells[cell] for cell in loaded if cell in cells},
                    "order": loaded,
                    "control": control,
                    "mode": mode,
                    **_block(mode, of_mode),
                    **structs.asdict(of_mode),
                }
                for part, loaded in enumerate([[cell] for cell in order] if of_mode.alone else [order], start=1)
            ]
    return tasks


def _block(mode: Mode, plan: LatencyPlan) -> dict[str, Any]:
    """Of each block: inferences before it that are not counted, those that are (0: as many as block_s holds), and the
    pause before each."""
    if mode == "paced":
        return {"lead_in": 0, "inferences": PACED_BLOCK, "pause_s": plan.pace_s}
    return {"lead_in": 0 if mode == "sustained" else worker.LEAD_IN, "inferences": 0, "pause_s": 0.0}


def _answers(cell: Cell, file: tuple[str, str], parallel: int) -> dict[str, Any]:
    """A task. On an accelerator in a process of its own: a driver that crashes or hangs costs one cell."""
    return {
        "name": str(cell),
        "do": "answers",
        "accelerator": cell.accelerator,
        "fresh": cell.accelerator not in worker.CPUS,
        "variants": {str(cell): file},
        "parallel": parallel,
    }


def _count(cell: Cell, file: tuple[str, str]) -> dict[str, Any]:
    """A task that counts instructions: among the first, as a missing tool ends the job at once."""
    return {
        "name": f"{COUNT}-{cell}",
        "do": COUNT,
        "accelerator": cell.accelerator,
        "fresh": True,
        "variants": {str(cell): file},
    }


def _put(folder: Path, content: bytes) -> tuple[str, str]:
    """Name in the job folder and SHA-256 of a file that was put there."""
    digest = sha256(content)
    (folder / FILES).mkdir(exist_ok=True)
    (folder / FILES / digest).write_bytes(content)
    return f"{FILES}/{digest}", digest


def _write(folder: Path, inputs: Array | Mapping[str, Array], tasks: list[dict[str, Any]]) -> Job:
    for task in tasks:
        if Path(task["name"]).name != task["name"]:
            raise SetupError(f"{task['name']!r}: expected a variant's name, not a path")
    buffer = io.BytesIO()
    if isinstance(inputs, Mapping):
        np.savez(buffer, **inputs)  # type: ignore[arg-type]  # its other keyword is a flag
    else:
        np.save(buffer, inputs)
    plan = {
        "schema": SCHEMA,
        "nonce": secrets.token_hex(8),
        "inputs": _put(folder, buffer.getvalue()),
        "worker": sha256(Path(worker.__file__).read_bytes()),
        "tasks": tasks,
    }
    shutil.copyfile(worker.__file__, folder / "worker.py")
    return _write_plan(folder, plan)


def without(job: Job, task: str, variant: str | None = None) -> Job:
    """The same job, rewritten to leave out a task, and with a variant's answers its latency.

    variant: whose latency it is that cannot be measured; then the others' is, and the task stays.
    """
    plan = json.loads(job.plan.read_text())
    kept = []
    for entry in plan["tasks"]:
        if entry["do"] == LATENCY:
            gone = entry["control"] if variant == worker.CONTROL else variant or task
            entry["variants"].pop(gone, None)
            if entry["control"] and entry["control"] not in entry["variants"]:
                entry["control"] = min(entry["variants"], default=None)  # the same in every process
        if entry["variants"] and (variant or entry["name"] != task):
            kept.append(entry)
    return _write_plan(job.folder, plan | {"tasks": kept})


def without_software_times(job: Job) -> Job:
    """The same job without the latency tasks of accelerators whose answers were computed in software."""
    results = [read_result(job, task) for task in job.tasks if not is_latency(task)]
    software = {result.ran.accelerator for result in results if result and result.ran.software}
    plan = json.loads(job.plan.read_text())
    tasks = [task for task in plan["tasks"] if task["do"] != LATENCY or task["accelerator"] not in software]
    return _write_plan(job.folder, plan | {"tasks": tasks})


def with_nonce(job: Job, nonce: str) -> Job:
    """The same job under the nonce of an earlier, unfinished run, whose results then count."""
    return _write_plan(job.folder, json.loads(job.plan.read_text()) | {"nonce": nonce})


def _write_plan(folder: Path, plan: dict[str, Any]) -> Job:
    (folder / "job.json").write_text(json.dumps(plan, indent=1))
    return Job(folder, plan["nonce"], tuple(task["name"] for task in plan["tasks"]))


UNAVAILABLE = "unavailable"


class Machine(Shape):
    """What ran a worker, as it says itself."""

    runtime: str = UNAVAILABLE
    numpy: str = UNAVAILABLE
    python: str = UNAVAILABLE
    system: str = UNAVAILABLE
    machine: str = UNAVAILABLE  # architecture: aarch64, x86_64
    cores: int | None = None
    host: str = UNAVAILABLE
    processor: str = UNAVAILABLE


class Ran(Shape):
    """What ran a cell; None for what is not known. See worker.Interpreter.ran."""

    accelerator: Accelerator  # asked for
    runtime: str
    adapter: str | None = None
    driver: str | None = None
    precision: str | None = None
    software: bool = False  # the accelerator is imitated by the processor: its times say nothing
    operations: int | None = None  # of the model
    taken: int | None = None  # of those, by the accelerator
    not_taken: tuple[str, ...] = ()
    fell_back: bool = False
    warnings: tuple[str, ...] = ()
    problem: str | None = None  # why the model was not compiled

    @property
    def left(self) -> str:
        """The operations that the accelerator left to the CPU, and why."""
        return advised("; ".join(self.not_taken) or self.problem or "the library does not say which it left")


def advised(reason: str) -> str:
    """Why an accelerator does not run a model; and what to do, where that is known."""
    computed = re.search(r"static-sized|\bSHAPE\b", reason)
    advice = "; shapes are computed while it runs, as for a batch of any size: use harness convert --batch 1"
    return reason + advice if computed else reason


class About(Shape):
    """What a result says of itself."""

    nonce: str
    task: str
    machine: Machine
    ran: Ran


@dataclass(frozen=True)
class Result:
    """One task's arrays, the machine, and what ran on which accelerator: see `Ran`."""

    arrays: dict[str, Array]
    machine: Machine
    ran: Ran


def read_result(job: Job, task: str) -> Result | None:
    """A task's result. None if it has none. Raises SetupError: damaged, of another job, other arrays than asked for."""
    path = job.result_path(task)
    if not path.exists():
        return None
    with path.open("rb") as file:
        arrays = npz.read(file, str(path), max_bytes=MAX_RESULT_BYTES)
    about = shapes.decode(str(arrays.pop("about", "")), About, str(path))
    if (about.nonce, about.task) != (job.nonce, task):
        raise SetupError(f"{path}: the result is of another job; run again")
    (entry,) = (entry for entry in json.loads(job.plan.read_text())["tasks"] if entry["name"] == task)
    if unknown := arrays.keys() - _arrays_of(entry):
        raise SetupError(f"{path}: the result has an array {min(unknown)!r}, which the job did not ask for; run again")
    if arrays and entry["do"] == LATENCY:
        latency_run(arrays, str(path))
    if arrays and entry["do"] == ANSWERS and (arrays.keys() != set(worker.ANSWERS) or arrays["outputs"].ndim != 2):
        raise SetupError(
            f"{path}: the result has {', '.join(arrays)}, expected outputs of [images, numbers]; run again"
        )
    return Result(arrays, about.machine, about.ran)


def _arrays_of(entry: Mapping[str, Any]) -> set[str]:
    """What the arrays of a task's result may be called."""
    if entry["do"] == TENSORS:
        return set(map(str, range(MAX_TENSORS)))
    if entry["do"] == PROFILE:
        return set(worker.PROFILE)
    if entry["do"] == COUNT:
        return {"counts", "counts_tool"}
    if entry["do"] != LATENCY:
        return set(worker.ANSWERS)
    return {*worker.PROCESS, *(f"{kind}.{name}" for kind in entry["order"] for name in worker.TIMES)}
