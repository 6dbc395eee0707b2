"""One check from beginning to end: reference, job, answers, latency, verdict, record."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import keras_model, manifest
from converters.manifest import Variant
from harness import dataset, evidence, job, latency, policy, reference, spec, verdict
from harness.dataset import Dataset
from harness.devices import local
from harness.errors import SetupError
from harness.evidence import Judged
from harness.job import LATENCY, Job, LatencyPlan, Result
from harness.latency import Latency
from harness.policy import Policy
from harness.record import Record, VariantRecord
from harness.reference import Reference
from harness.verdict import Outcome, Verdict

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Outputs:
    """What became of a job: results by task, for tasks without one the verdict why, whether Ctrl-C ended it."""

    results: Mapping[str, Result]
    failures: Mapping[str, Verdict]
    interrupted: bool


def check(
    models: Path,
    reference_model: Path,
    data_folder: Path,
    step: Step,
    progress: local.Progress,
    *,
    kinds: tuple[str, ...] | None = None,
    plan: LatencyPlan,
    limits: Policy,
    skip_bad: bool = False,
) -> tuple[Record, bool]:
    """Run a folder's variants on this machine against the reference; the record, and whether Ctrl-C cut it short.

    What was finished before a crash, a hang or Ctrl-C is in the record; the rest is INCONCLUSIVE or FAIL in it.
    Raises SetupError before anything is measured.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    variants = _select(manifest.read(models), kinds, models)
    policy.check_kinds(limits, (*manifest.KNOWN_KINDS, *variants), "policy")
    source_sha256 = keras_model.sha256(reference_model)
    for variant in variants.values():
        manifest.verify(models, variant, source_sha256)
    takes = manifest.spec_of(variants, models)
    spec.check_stands(takes, reference_model)
    data = dataset.load(data_folder, takes, skip_bad=skip_bad, progress=partial(progress, f"reading {data_folder}"))
    expected = reference.obtain(reference_model, data, models, step)
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        written = job.write(Path(folder), models, variants, data, plan, parallel=os.cpu_count() or 1)
        outputs = run(written, progress)
    record = _record(variants, data, expected, outputs, plan, limits, started, reference_model, data_folder)
    return record, outputs.interrupted


def run(written: Job, progress: local.Progress, **options: Any) -> Outputs:
    """Run a job; a task that crashes or hangs the worker is left out, and the others go on.

    Raises SetupError where no worker can be started at all.
    """
    failures: dict[str, Verdict] = {}
    interrupted = False
    while True:
        try:
            ended = local.run(written, progress, **options)
        except KeyboardInterrupt:
            interrupted = True
            break
        if all(written.result_path(task).exists() for task in written.tasks):
            break
        what = "was silent too long and was stopped" if ended.code is None else f"ended with exit code {ended.code}"
        reason = f"the worker {what}" + (f": {ended.tail}" if ended.tail else "")
        if ended.task is None:
            raise SetupError(reason)
        from_outside = ended.code in (None, -signal.SIGKILL, -signal.SIGTERM)  # not the variant's own doing
        outcome = Outcome.INCONCLUSIVE if from_outside else Outcome.FAIL
        failures[ended.task] = Verdict(outcome, (reason,))
        written = job.without(written, ended.task)
    results = {}
    for task in written.tasks:
        try:
            if result := job.read_result(written, task):
                results[task] = result
        except SetupError as error:  # the other tasks' results are sound
            failures[task] = Verdict(Outcome.INCONCLUSIVE, (str(error),))
    return Outputs(results, failures, interrupted)


def _select(known: dict[str, Variant], kinds: tuple[str, ...] | None, models: Path) -> dict[str, Variant]:
    for kind in kinds or ():
        if kind not in known:
            raise SetupError(f"{models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
    chosen = {kind: known[kind] for kind in manifest.KNOWN_KINDS if kind in known and (not kinds or kind in kinds)}
    if not chosen:
        raise SetupError(f"{models}: its manifest names no variants; convert again")
    return chosen


def _record(
    variants: Mapping[str, Variant],
    data: Dataset,
    expected: Reference,
    outputs: Outputs,
    plan: LatencyPlan,
    limits: Policy,
    started: str,
    reference_model: Path,
    data_folder: Path,
) -> Record:
    arrays: dict[str, npt.NDArray[Any]] = {
        "names": np.array(data.names),
        "labels": data.labels,
        "reference": expected.outputs,
        **evidence.inputs(data, variants),
    }
    if expected.folded is not None:
        arrays["folded"] = expected.folded
    for kind in variants:
        if answered := outputs.results.get(kind):
            arrays |= {f"{kind}.{name}": array for name, array in answered.arrays.items()}
    predictions = evidence.predictions(arrays)
    changed = evidence.flipped(predictions)
    arrays |= {"flipped.index": changed, "flipped.images": data.images[changed]}
    timed = outputs.results.get(LATENCY)
    records = []
    for kind, variant in variants.items():
        judged = evidence.judge(kind, predictions, limits) if kind in predictions.variants else _missing(kind, outputs)
        times = None
        if timed and f"{kind}.samples" in timed.arrays:
            arrays |= {f"latency.{n}": a for n, a in timed.arrays.items() if n.startswith(f"{kind}.")}
            times = _latency(timed, kind)
        records.append(VariantRecord(kind, variant.sha256, variant.size_bytes, latency=times, **vars(judged)))
    notes = outputs.failures[LATENCY].reasons if LATENCY in outputs.failures else ()
    machine = next((result.machine for result in outputs.results.values()), {})
    return Record(
        outcome=verdict.overall(record.verdict for record in records),
        variants=tuple(records),
        model={"file": str(reference_model), "sha256": expected.model_sha256, "spec": asdict(data.spec)},
        data={
            "folder": str(data_folder),
            "sha256": data.sha256,
            "reference_sha256": expected.data_sha256,
            "images": len(data),
            "skipped": list(data.skipped),
        },
        policy=limits.to_json(),
        machine=machine,
        plan=asdict(plan),
        started=started,
        notes=(*reference.notes(expected, data), *(f"latency was not measured: {reason}" for reason in notes)),
        arrays=arrays,
    )


def _missing(kind: str, outputs: Outputs) -> Judged:
    """Of a variant that gave no outputs."""
    if kind in outputs.failures:
        return Judged(outputs.failures[kind])
    why = "interrupted before it was run" if outputs.interrupted else "the worker ended before it was run"
    return Judged(Verdict(Outcome.INCONCLUSIVE, (why,)))


def _latency(timed: Result, kind: str) -> Latency:
    arrays = timed.arrays
    return latency.summarise(arrays[f"{kind}.samples"], float(arrays[f"{kind}.load"]), float(arrays[f"{kind}.first"]))
