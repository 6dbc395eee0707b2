"""A worker that is killed, hangs or cannot start: the other tasks' results survive."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.artifacts import manifest
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.run import execute, job
from harness.run.job import LATENCY, Job
from harness.run.latency_plan import LatencyPlan
from harness.run.worker import STATE
from tests.conftest import DIGITS

QUICK = LatencyPlan(processes=2, turns=1, block_s=0.002, warmup_s=0.01)
TIMED = {f"{LATENCY}-1", f"{LATENCY}-2"}


@pytest.fixture
def tiny_job(tiny_variants: Path, few_images: Path, tmp_path: Path) -> Job:
    """A job of three variants in a folder of its own."""
    contents = manifest.contents(tiny_variants, manifest.read(tiny_variants))
    return job.write(tmp_path, contents, dataset.load(few_images, DIGITS), QUICK, parallel=2)


def first(written: Job, statement: str, before: str) -> None:
    """Have the job's worker do something before a line of its own."""
    path = written.folder / "worker.py"
    (line,) = (line for line in path.read_text().splitlines() if line.lstrip().startswith(before))
    indent = line[: -len(line.lstrip())]
    path.write_text(path.read_text().replace(line, f"{indent}{statement}\n{line}"))


def signals_itself(written: Job, kind: str, number: signal.Signals) -> None:
    """Have the job's worker meet a signal before it answers with this variant."""
    meets = f'task["variants"].get("{kind}") and task["do"] == "answers" and os.kill(os.getpid(), {int(number)})'
    first(written, meets, "arrays = DO[")


def test_a_killed_worker_leaves_one_variant_inconclusive(tiny_job: Job) -> None:
    """Killed at int8, as by a machine out of memory: that one is INCONCLUSIVE, the rest is answered and timed."""
    signals_itself(tiny_job, "int8", signal.SIGKILL)
    outputs = execute.run(tiny_job, lambda *_: None)
    assert set(outputs.results) == {"float32", "dynamic_range", *TIMED}
    assert outputs.failures["int8"].outcome is Outcome.INCONCLUSIVE
    assert "exit code -9" in outputs.failures["int8"].reasons[0]
    for task in TIMED:
        arrays = outputs.results[task].arrays
        assert "int8.samples" not in arrays
        assert str(arrays["control"]) == "dynamic_range"
        assert len(arrays["float32.samples"]) == len(arrays["control.samples"]) == 6


def test_a_hanging_worker_is_stopped(tiny_job: Job) -> None:
    """Silent past the limit: INCONCLUSIVE, and the others go on."""
    signals_itself(tiny_job, "dynamic_range", signal.SIGSTOP)
    outputs = execute.run(tiny_job, lambda *_: None, silence_limit_s=15)
    assert outputs.failures["dynamic_range"].outcome is Outcome.INCONCLUSIVE
    assert "silent too long" in outputs.failures["dynamic_range"].reasons[0]
    assert {"float32", "int8"} <= set(outputs.results)


def test_every_process_that_measures_latency_is_a_fresh_one(tiny_job: Job) -> None:
    """Each its own result; another variant is the first to be loaded in each; the control is there twice over."""
    outputs = execute.run(tiny_job, lambda *_: None)
    assert set(outputs.results) == {"float32", "dynamic_range", "int8", *TIMED}
    first, second = (outputs.results[f"{LATENCY}-{number}"].arrays for number in (1, 2))
    assert first["kinds"].tolist() == ["dynamic_range", "float32", "int8", "control"]
    assert second["kinds"].tolist() == ["float32", "control", "int8", "dynamic_range"]
    assert first["order"].tolist()[:16] == [0, 1, 2, 3, 3, 2, 1, 0, 1, 2, 3, 0, 0, 3, 2, 1]
    assert first["state"].shape == (32, 3, len(STATE))


def test_a_variant_that_crashes_while_timed_is_left_out(tiny_job: Job) -> None:
    """Every variant's answers are there, and the other variants' latency, from every process."""
    crash = 'kind == "dynamic_range" and os.kill(os.getpid(), 11)'
    first(tiny_job, crash, 'model = load(content, task["threads"], accelerator)')
    outputs = execute.run(tiny_job, lambda *_: None)
    assert set(outputs.results) == {"float32", "dynamic_range", "int8", *TIMED}
    ((task, failure),) = outputs.failures.items()
    assert task == f"{LATENCY}-1 of dynamic_range"
    assert failure.outcome is Outcome.FAIL
    assert "dynamic_range: the worker ended with exit code -11" in failure.reasons[0]
    for name in TIMED:
        assert "int8" in outputs.results[name].arrays["kinds"]
        assert "dynamic_range" not in outputs.results[name].arrays["kinds"]


def test_a_worker_that_cannot_start_is_a_set_up_error(tiny_job: Job) -> None:
    """No verdict on a variant, but one line on what is wrong."""
    (tiny_job.folder / "worker.py").write_text("raise SystemExit('no interpreter: install ai-edge-litert')")
    with pytest.raises(SetupError, match="no interpreter"):
        execute.run(tiny_job, lambda *_: None)


def test_results_of_another_job_are_not_taken(tiny_job: Job) -> None:
    """A result whose nonce is not the job's, and one that is cut short, are INCONCLUSIVE, not data."""
    execute.run(tiny_job, lambda *_: None)
    path = tiny_job.result_path("int8")
    path.write_bytes(path.read_bytes()[:200])
    outputs = execute.run(tiny_job, lambda *_: None)
    assert outputs.failures["int8"].outcome is Outcome.INCONCLUSIVE
    assert "damaged" in outputs.failures["int8"].reasons[0]
    stranger = Job(tiny_job.folder, "another nonce", tiny_job.tasks)
    outputs = execute.run(stranger, lambda *_: None)
    assert not outputs.results
    assert "another job" in outputs.failures["float32"].reasons[0]
