"""A result comes from a device, or from whoever answers for it: it holds what the job asked for, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core import npz
from harness.core.errors import SetupError
from harness.images import dataset
from harness.run import job, worker
from harness.run.job import Job
from harness.run.latency_plan import QUICK
from harness.run.latency_run import latency_run
from models.config import DIGITS

ANSWERS = {
    "outputs": np.zeros((2, 11), np.int8),
    "scale": np.float64(1 / 256),
    "zero_point": np.int64(-128),
    "input_means": np.zeros(2),
}


TIMED = {
    "kinds": np.array(["int8", "control"]),
    "control": np.array("int8"),
    "order": np.array([0, 1]),
    "state": np.zeros((2, 3, len(worker.STATE))),
    "memory": np.array([3e6, 2e6]),
    "cores": np.array([0]),
    "governor": np.array("unavailable"),
    **{f"{kind}.samples": np.ones((1, 3)) for kind in ("int8", "control")},
    **{f"{kind}.warmup": np.ones(3) for kind in ("int8", "control")},
    **{f"{kind}.{name}": np.float64(1) for kind in ("int8", "control") for name in ("load", "first")},
    **{f"{kind}.settled": np.array(True) for kind in ("int8", "control")},
}


@pytest.fixture
def written(tmp_path: Path) -> Job:
    """A job of one variant's answers and latency."""
    data = dataset.build(np.zeros((2, 28, 28, 1), np.uint8), [0, 1], ["a", "b"], DIGITS)
    return job.write(tmp_path, {"int8": b"a model"}, data, QUICK, job.ALL_CORES)


def answer(written: Job, task: str, /, arrays: dict[str, Any], **about: Any) -> None:
    ran = {"accelerator": "cpu", "runtime": "a runtime"}
    said = {"nonce": written.nonce, "task": task, "machine": worker.machine(), "ran": ran, **about}
    written.result_path(task).parent.mkdir(exist_ok=True)
    written.result_path(task).write_bytes(npz.encode({"about": np.array(json.dumps(said)), **arrays}))


def test_what_was_asked_for_is_taken(written: Job) -> None:
    """Answers, and latency of a variant and of its control."""
    assert job.read_result(written, "int8") is None
    answer(written, "int8", ANSWERS)
    result = job.read_result(written, "int8")
    assert result is not None
    assert set(result.arrays) == set(ANSWERS)
    assert result.machine.numpy == np.__version__
    answer(written, "latency-1", TIMED)
    result = job.read_result(written, "latency-1")
    assert result is not None
    run = latency_run(result.arrays, "latency-1")
    assert (run.cells, run.control, run.first_loaded, run.order) == (("int8",), "int8", "int8", ("int8", "control"))


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ("int8", {"outputs": np.zeros(2)}, "expected outputs of"),
        ("int8", {"zero_point": None}, "has outputs, scale, input_means, expected"),
        ("latency-1", {"order": np.array([0, 7])}, "damaged latency"),
        ("latency-1", {"order": np.array([0, 0])}, "int8: 1 blocks of samples for 2"),
        ("latency-1", {"state": np.zeros((2, 3, 4))}, "states of shape"),
        ("latency-1", {"int8.samples": np.zeros((1, 3))}, "int8: 1 blocks"),
        ("latency-1", {"int8.samples": np.full((1, 3), np.nan)}, "int8: 1 blocks"),
        ("latency-1", {"int8.samples": np.array(["x"])}, "int8.samples: <U1"),
        ("latency-1", {"memory": None}, "damaged latency"),
        ("latency-1", {"int8.load": np.zeros(2)}, "damaged latency"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    task: str, changes: dict[str, Any], says: str, written: Job
) -> None:
    arrays = (TIMED if job.is_latency(task) else ANSWERS) | changes
    answer(written, task, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(SetupError, match=says) as caught:
        job.read_result(written, task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["input_scale", "input_zero_point", "host_outputs", "labels", "reference", "samples"])
def test_an_array_that_was_not_asked_for_is_refused(name: str, written: Job) -> None:
    """None replaces what this machine knows: the manifest's quantization, the labels, its own outputs."""
    answer(written, "int8", ANSWERS | {name: np.float64(1)})
    with pytest.raises(SetupError, match=f"an array '{name}', which the job did not ask for; run again"):
        job.read_result(written, "int8")
    answer(written, "latency-1", {f"float32.{name}": np.float64(1)})
    with pytest.raises(SetupError, match=f"an array 'float32.{name}', which the job did not ask for"):
        job.read_result(written, "latency-1")


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"nonce": "another"}, "of another job"),
        ({"task": "float32"}, "of another job"),
        ({"machine": {"cores": "two"}}, "machine.cores = 'two': expected int"),
        ({"machine": {"shell": "rm"}}, "machine: unknown key 'shell'"),
        ({"ran": {"accelerator": "tpu", "runtime": "x"}}, "ran.accelerator = 'tpu': expected 'cpu' or"),
        ({"config": "/etc/passwd"}, "unknown key 'config'"),
    ],
)
def test_a_result_that_says_something_else_of_itself_is_refused(about: dict[str, Any], says: str, written: Job) -> None:
    answer(written, "int8", ANSWERS, **about)
    with pytest.raises(SetupError, match=says) as caught:
        job.read_result(written, "int8")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + bytes(30), npz.encode({"about": np.array("{")})], ids=range(3))
def test_a_damaged_result_is_refused(content: bytes, written: Job) -> None:
    answer(written, "int8", {})
    written.result_path("int8").write_bytes(content)
    with pytest.raises(SetupError, match=r"int8\.npz: "):
        job.read_result(written, "int8")
