"""One check from beginning to end: reference, job, device, answers, latency, verdict, record."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import keras_model
from harness.artifacts import manifest, reference
from harness.artifacts.manifest import Variant
from harness.artifacts.reference import Reference
from harness.check.shard_task import state_after
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress, Step
from harness.images import dataset, spec
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec
from harness.judge import agreement, policy
from harness.judge.policy import Policy
from harness.records import evidence
from harness.records.baseline import Baseline
from harness.records.evidence import Judged
from harness.records.record import Record, VariantRecord
from harness.run import execute, job, worker
from harness.run.devices import benchmark_model, local
from harness.run.devices.base import Device, described
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.execute import Outputs
from harness.run.latency_plan import LatencyPlan
from harness.timing import limits as latency_gate
from harness.timing import timing_verdict
from harness.timing.figures import UNMEASURED, Ratio


@dataclass(frozen=True)
class Execution:
    """How a job went: what came of it, on which device, when it began, and what its times are judged by."""

    outputs: Outputs
    device: Mapping[str, Any]  # the record's
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
    policy.check_kinds(limits, (*manifest.KNOWN_KINDS, *variants), "policy")
    takes = spec_of(variants, models, reference_model)
    data = dataset.load(data_folder, takes, skip_bad=skip_bad, progress=partial(progress, f"reading {data_folder}"))
    expected = reference.obtain(reference_model, data, models, step)
    return Subject(variants, models, data, expected, str(reference_model), str(data_folder))


def spec_of(variants: Mapping[str, Variant], models: Path, reference_model: Path) -> ModelSpec:
    """What the variants take and give. Raises SetupError: damaged, stale, or made for other class names or pixels."""
    source_sha256 = keras_model.sha256(reference_model)
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
            baseline.check(worker.machine(), timed.threads)
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
    notes += [agreement.sentence(v.kind, v.host, probed.name) for v in record.variants if v.host]
    medians = {variant.kind: variant.latency.median for variant in record.variants if variant.latency}
    notes += benchmark_model.notes(beside or {}, medians)
    return CheckedRun(replace(record, notes=tuple(notes)), outputs.interrupted)


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
    arrays: dict[str, npt.NDArray[Any]] = {
        "names": np.array(data.names),
        "labels": data.labels,
        "reference": expected.outputs,
        **evidence.inputs(data, variants),
    }
    if expected.folded is not None:
        arrays["folded"] = expected.folded
    for kind in variants:
        if answered := done.outputs.results.get(kind):
            arrays |= {f"{kind}.{name}": array for name, array in answered.arrays.items()}
            if kind in subject.host and done.device["uri"] != local.URI:
                arrays[f"{kind}.{evidence.HOST_OUTPUTS}"] = subject.host[kind]
    predictions = evidence.predictions(arrays)
    changed = evidence.flipped(predictions)
    arrays |= {"flipped.index": changed, "flipped.images": data.images[changed]}
    judged = {
        kind: (
            evidence.judge(kind, predictions, done.limits)
            if kind in predictions.variants
            else _missing(kind, done.outputs)
        )
        for kind in variants
    }
    about = {
        "folder": subject.data_folder,
        "sha256": data.sha256,
        "reference_sha256": expected.data_sha256,
        "images": len(data),
        "skipped": list(data.skipped),
    }
    model = {"file": subject.reference_model, "sha256": expected.model_sha256, "spec": asdict(data.spec)}
    made = assemble(variants, judged, arrays, about, model, done)
    return replace(made, notes=(*data.notes, *made.notes))


def assemble(
    variants: Mapping[str, Variant],
    judged: Mapping[str, Judged],
    arrays: Mapping[str, npt.NDArray[Any]],
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    done: Execution,
) -> Record:
    """The record of variants that have been judged, and of what was timed."""
    outputs, device, plan, limits = done.outputs, done.device, done.plan, done.limits
    arrays = dict(arrays)
    for task, result in outputs.results.items():
        if job.is_latency(task):
            arrays |= {f"{task.replace('-', '.')}.{name}": array for name, array in result.arrays.items()}
    found = timing_verdict.runs(arrays)
    times = timing_verdict.figures(found)
    records = []
    for kind, variant in variants.items():
        timed = times.get(kind)
        records.append(VariantRecord(kind, variant.sha256, variant.size_bytes, latency=timed, **vars(judged[kind])))
    machine = next((result.machine for result in outputs.results.values()), {})
    failures = [failure for task, failure in outputs.failures.items() if job.is_latency(task)]
    rules = latency_gate.fitting(limits.latency, latency_gate.names(machine, device["uri"]))
    threads = plan.threads if plan else 1
    changes: tuple[Ratio, ...] = ()
    if done.baseline and times:
        try:
            done.baseline.check(machine, threads)
            changes = done.baseline.changes(times)
        except SetupError as error:
            failures.append(Verdict(Outcome.INCONCLUSIVE, (str(error),)))
    timing = None
    if times or failures or rules:
        timing = timing_verdict.timing(found, times, threads, rules, failures, changes, device)
    notes = [f"{UNMEASURED}{reason}" for failure in failures for reason in failure.reasons]
    if known := next((one.parity for one in judged.values() if one.parity), None):
        notes += reference.doubts(known.reference_accuracy, max(one.images for one in known.classes) / known.images)
    if device.get("emulated"):
        notes.append(
            f"{device['name']} is emulated: it answers as its processor would, and nothing of its speed is measured"
        )
    return Record(
        outcome=timing_verdict.overall([record.verdict for record in records], timing),
        variants=tuple(records),
        model=model,
        data=data,
        policy=limits.to_json(),
        machine=machine,
        plan=asdict(plan) if plan else {"threads": 1, "processes": 0},
        started=done.started,
        notes=tuple(notes),
        arrays=arrays,
        timing=timing,
        device=device,
    )


def _missing(kind: str, outputs: Outputs) -> Judged:
    """Of a variant that gave no outputs."""
    if kind in outputs.failures:
        return Judged(outputs.failures[kind])
    why = "interrupted before it was run" if outputs.interrupted else "the worker ended before it was run"
    return Judged(Verdict(Outcome.INCONCLUSIVE, (why,)))
