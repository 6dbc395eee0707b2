"""One check from beginning to end: reference, job, device, answers, latency, verdict, record."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
from msgspec import structs

from harness.artifacts import manifest, reference
from harness.artifacts.manifest import Variant
from harness.artifacts.reference import Reference
from harness.check import references
from harness.check.shard_task import state_after
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress, Step
from harness.images import dataset, spec
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec
from harness.judge import agreement, policy, predictions
from harness.judge.policy import Policy
from harness.judge.predictions import Judged
from harness.records import arrays
from harness.records.arrays import RecordArrays
from harness.records.baseline import Baseline
from harness.records.record import CellRecord, Data, Failure, Model, Record
from harness.records.rejudge import judge_latency
from harness.run import execute, job, worker
from harness.run.devices import benchmark_model, local
from harness.run.devices.base import Device, DeviceRecord, described
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.execute import Outputs
from harness.run.job import Machine
from harness.run.latency_plan import LatencyPlan
from harness.timing import verdict
from harness.timing.figures import Ratio


@dataclass(frozen=True)
class Execution:
    """How a job went: what came of it, on which device, when it began, and what its times are judged by."""

    outputs: Outputs
    device: DeviceRecord
    started: str
    plan: LatencyPlan | None
    limits: Policy
    baseline: Baseline | None


@dataclass(frozen=True)
class Subject:
    """What is checked, whatever the device: variants and their folder, images, what the reference answers to them.

    reference_model, data_folder: as they were named. host: this machine's outputs by kind, for other devices.
    """

    variants: Mapping[str, Variant]
    models: Path
    data: Dataset
    expected: Reference
    reference_model: str
    data_folder: str
    host: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def contents(self) -> dict[str, bytes]:
        """Of the variants' files, by kind."""
        return manifest.contents(self.models, self.variants)


def prepare(
    models: Path,
    reference_model: Path,
    data_folder: Path,
    step: Step,
    progress: Progress,
    *,
    kinds: tuple[str, ...] | None = None,
    limits: Policy,
    skip_bad: bool = False,
) -> Subject:
    """A folder's variants, the images, and the reference. Raises SetupError."""
    variants = select(manifest.read(models), kinds, models)
    policy.check_variants(limits, (*manifest.KNOWN_KINDS, *variants), "policy")
    takes = spec_of(variants, models, reference_model)
    data = dataset.load(data_folder, takes, skip_bad=skip_bad, progress=partial(progress, f"reading {data_folder}"))
    expected = references.obtain(reference_model, data, models, step)
    return Subject(variants, models, data, expected, str(reference_model), str(data_folder))


def spec_of(variants: Mapping[str, Variant], models: Path, reference_model: Path) -> ModelSpec:
    """What the variants take and give. Raises SetupError: damaged, stale, or made for other class names or pixels."""
    source_sha256 = reference.model_sha256(reference_model)
    for variant in variants.values():
        manifest.verify(models, variant, source_sha256)
    takes = manifest.spec_of(variants, models)
    spec.check_stands(takes, reference_model)
    return takes


def with_host(subject: Subject, progress: Progress) -> Subject:
    """The same with this machine's outputs, which those of a device are compared with."""
    with tempfile.TemporaryDirectory(prefix="harness-host-") as folder:
        written = job.write(Path(folder), subject.contents, subject.data, None, job.ALL_CORES)
        here = execute.run(written, lambda task, done, total: progress(f"{task} on this machine", done, total))
    return replace(subject, host={kind: result.arrays["outputs"] for kind, result in here.results.items()})


def check(
    device: Device,
    subject: Subject,
    progress: Progress,
    *,
    plan: LatencyPlan | None,
    limits: Policy,
    baseline: Baseline | None = None,
    benchmark: BenchmarkModel | None = None,
) -> CheckedRun:
    """Run a subject on a device, and judge it.

    What was finished before a crash, a hang, a cut connection or Ctrl-C is in the record; the rest is INCONCLUSIVE or
    FAIL in it. On an emulated device latency is not measured. Raises SetupError before anything is measured.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with device, tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        probed = device.probe()
        timed = None if probed.emulated else plan
        if timed and probed.cores and timed.threads > probed.cores:
            raise SetupError(f"--threads {timed.threads}: {device.uri} has {probed.cores} cores; expected no more")
        if timed and baseline and device.uri == local.URI:
            baseline.check(Machine(**worker.machine()), timed.threads)
        written = job.write(Path(folder), subject.contents, subject.data, timed, job.ALL_CORES)
        outputs = execute.run(written, progress, device)
        after = state_after(device) if timed else {}
        beside = None
        if benchmark and not probed.emulated and not outputs.interrupted:
            beside = benchmark_model.run(
                device, benchmark, written, list(subject.variants), plan.threads if plan else 1
            )
    about = described(probed, device.traffic, after, beside)
    record = _record(subject, Execution(outputs, about, started, timed, limits, baseline))
    notes = [*record.notes]
    notes += [agreement.sentence(cell.name, cell.host, probed.name) for cell in record.cells if cell.host]
    medians = {cell.name: cell.latency.median for cell in record.cells if cell.latency}
    notes += benchmark_model.notes(beside or {}, medians)
    return CheckedRun(structs.replace(record, notes=tuple(notes)), outputs.interrupted)


@dataclass(frozen=True)
class CheckedRun:
    """A record, and whether Ctrl-C cut it short."""

    record: Record
    interrupted: bool


def select(known: dict[str, Variant], kinds: tuple[str, ...] | None, models: Path) -> dict[str, Variant]:
    for kind in kinds or ():
        manifest.find(known, kind, models)
    chosen = {kind: known[kind] for kind in manifest.KNOWN_KINDS if kind in known and (not kinds or kind in kinds)}
    if not chosen:
        raise SetupError(f"{models}: its manifest names no variants; convert again")
    return chosen


def _record(subject: Subject, done: Execution) -> Record:
    variants, data, expected = subject.variants, subject.data, subject.expected
    stored = (
        arrays.image_arrays(data.names, data.labels, data.input_means())
        | arrays.class_arrays(data.spec.class_names)
        | arrays.reference_arrays(expected.outputs, expected.folded)
    )
    for kind, variant in variants.items():
        if answered := done.outputs.results.get(kind):
            host = None if done.device.uri == local.URI else subject.host.get(kind)
            stored |= arrays.answer_arrays(Cell(kind), answered.arrays, variant.input, host)
    answers = RecordArrays(stored).predictions()
    changed = predictions.flipped(answers)
    stored |= arrays.flipped_arrays(changed, data.images[changed])
    judged = {
        kind: (
            predictions.judge(Cell(kind), answers, done.limits)
            if Cell(kind) in answers.cells
            else _missing(kind, done.outputs)
        )
        for kind in variants
    }
    about = Data(subject.data_folder, data.sha256, expected.data_sha256, len(data), tuple(data.skipped))
    model = Model(subject.reference_model, expected.model_sha256, data.spec)
    record = assemble(variants, judged, stored, about, model, done)
    return structs.replace(record, notes=(*data.notes, *record.notes))


def assemble(
    variants: Mapping[str, Variant],
    judged: Mapping[str, Judged],
    stored: Mapping[str, npt.NDArray[Any]],
    data: Data,
    model: Model,
    done: Execution,
) -> Record:
    """The record of variants that have been judged, and of what was timed."""
    outputs, device, plan, limits = done.outputs, done.device, done.plan, done.limits
    stored = dict(stored)
    for task, result in outputs.results.items():
        if job.is_latency(task):
            stored |= arrays.latency_arrays(job.process_number(task), result.arrays)
    runs = RecordArrays(stored).latency_runs()
    times = verdict.figures(runs)
    cells = tuple(
        CellRecord(
            variant=kind,
            sha256=variant.sha256,
            size_bytes=variant.size_bytes,
            latency=times.get(kind),
            **vars(judged[kind]),
        )
        for kind, variant in variants.items()
    )
    machine = next((result.machine for result in outputs.results.values()), Machine())
    failures = [
        Failure("latency" if job.is_latency(task) else "answers", task, failure.outcome, failure.reasons)
        for task, failure in outputs.failures.items()
    ]
    changes: tuple[Ratio, ...] = ()
    if done.baseline and times:
        try:
            done.baseline.check(machine, plan.threads if plan else 1)
            changes = done.baseline.changes(times)
        except SetupError as error:
            failures.append(Failure("latency", "baseline", Outcome.INCONCLUSIVE, (str(error),)))
    timing = judge_latency(runs, times, limits, machine, device, plan, failures, changes, [cell.name for cell in cells])
    notes = [
        f"latency was not measured: {reason}"
        for failure in failures
        if failure.kind == "latency"
        for reason in failure.reasons
    ]
    if known := next((one.parity for one in judged.values() if one.parity), None):
        notes += reference.doubts(known.reference_accuracy, max(one.images for one in known.classes) / known.images)
    if device.emulated:
        notes.append(
            f"{device.name} is emulated: it answers as its processor would, and nothing of its speed is measured"
        )
    return Record(
        outcome=verdict.overall([cell.verdict for cell in cells], timing),
        cells=cells,
        model=model,
        data=data,
        policy=limits,
        machine=machine,
        plan=plan,
        started=done.started,
        notes=tuple(notes),
        failures=tuple(failures),
        arrays=RecordArrays(stored),
        timing=timing,
        device=device,
    )


def _missing(kind: str, outputs: Outputs) -> Judged:
    """Of a variant that gave no outputs."""
    if kind in outputs.failures:
        return Judged(outputs.failures[kind])
    why = "interrupted before it was run" if outputs.interrupted else "the worker ended before it was run"
    return Judged(Verdict(Outcome.INCONCLUSIVE, (why,)))
