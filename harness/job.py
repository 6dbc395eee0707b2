"""The job: a folder that holds all a worker needs, and into which it writes its results."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from converters.manifest import Variant
from harness import worker
from harness.dataset import Dataset
from harness.errors import SetupError
from harness.files import sha256

SCHEMA = "harness-job/1"
LATENCY = "latency"
ANSWERS = "answers"


@dataclass(frozen=True)
class LatencyPlan:
    """How latency is sampled: `rounds` blocks of `block` inferences of each variant, after a warm-up."""

    rounds: int = 10
    block: int = 20
    warmup_s: float = 0.5
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """A job folder and the nonce its results must carry."""

    folder: Path
    nonce: str
    tasks: tuple[str, ...]

    def result_path(self, task: str) -> Path:
        return self.folder / "results" / f"{task}.npz"


def write(
    folder: Path, models: Path, variants: Mapping[str, Variant], data: Dataset, plan: LatencyPlan, parallel: int
) -> Job:
    """Fill an empty folder with worker, variants, inputs and plan: one task a variant's answers, one for latency."""
    files = {kind: (variant.file, variant.sha256) for kind, variant in variants.items()}
    for variant in variants.values():
        shutil.copyfile(variant.path(models), folder / variant.file)
    tasks = [_answers(kind, file, parallel) for kind, file in files.items()]
    tasks.append(
        {
            "name": LATENCY,
            "do": "latency",
            "variants": files,
            "rounds": plan.rounds,
            "block": plan.block,
            "warmup_s": plan.warmup_s,
            "threads": plan.threads,
        }
    )
    return _write(folder, data, tasks)


def write_answers(folder: Path, content: bytes, data: Dataset, parallel: int) -> Job:
    """Fill an empty folder with worker, inputs and one .tflite file: the one task is ANSWERS."""
    file = f"{ANSWERS}.tflite"
    (folder / file).write_bytes(content)
    return _write(folder, data, [_answers(ANSWERS, (file, sha256(content)), parallel)])


def _answers(name: str, file: tuple[str, str], parallel: int) -> dict[str, Any]:
    return {"name": name, "do": "answers", "variants": {name: file}, "parallel": parallel}


def _write(folder: Path, data: Dataset, tasks: list[dict[str, Any]]) -> Job:
    shutil.copyfile(Path(worker.__file__), folder / "worker.py")
    np.save(folder / "inputs.npy", data.inputs())
    nonce = secrets.token_hex(8)
    _write_plan(folder, nonce, tasks)
    return Job(folder, nonce, tuple(task["name"] for task in tasks))


def without(job: Job, task: str) -> Job:
    """The same job, rewritten to leave out a task, and with a variant's answers its latency."""
    plan = json.loads((job.folder / "job.json").read_text())
    kept = []
    for entry in plan["tasks"]:
        entry["variants"] = {kind: file for kind, file in entry["variants"].items() if kind != task}
        if entry["name"] != task and entry["variants"]:
            kept.append(entry)
    _write_plan(job.folder, job.nonce, kept)
    return Job(job.folder, job.nonce, tuple(entry["name"] for entry in kept))


def _write_plan(folder: Path, nonce: str, tasks: list[dict[str, Any]]) -> None:
    (folder / "job.json").write_text(json.dumps({"schema": SCHEMA, "nonce": nonce, "tasks": tasks}, indent=1))


@dataclass(frozen=True)
class Result:
    """One task's arrays, and what ran it."""

    arrays: dict[str, npt.NDArray[Any]]
    machine: dict[str, Any]


def read_result(job: Job, task: str) -> Result | None:
    """A task's result, or none where it has none. Raises SetupError for one that is damaged or of another job."""
    path = job.result_path(task)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise SetupError(f"{path}: the result is damaged ({error}); run again") from error
    if about.pop("nonce") != job.nonce or about.pop("task") != task:
        raise SetupError(f"{path}: the result is of another job; run again")
    return Result(arrays, about)
