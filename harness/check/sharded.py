"""A check in shards: the images go to one or several like devices, and are counted as their answers come in.

Only a few shards are in memory at any time. What is finished is on disk, beside the record, and not done again.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs

from converters.keras_process import KerasProcess
from harness.artifacts import manifest, reference
from harness.artifacts.manifest import Variant
from harness.artifacts.reference import Reference
from harness.check import pipeline, references, shard_task
from harness.check.engine import Dispatcher, Engine, Lost
from harness.check.pipeline import CheckedRun
from harness.check.shard_task import RefusedError, ShardAnswer, ShardJob
from harness.core import shapes
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress, Step
from harness.core.shapes import Shape
from harness.images import dataset, shards
from harness.images.shards import Shard, Source
from harness.images.spec import ModelSpec
from harness.judge import policy, predictions
from harness.judge.policy import Policy
from harness.judge.predictions import Counted, Judged, Predictions
from harness.records import arrays as names
from harness.records import sharded_arrays
from harness.records.arrays import RecordArrays
from harness.records.baseline import Baseline
from harness.records.record import Data, Model, Record
from harness.records.sharded_arrays import DIGESTS, MACHINE, SKIPPED, ShardedArrays, ShardFile
from harness.run import job
from harness.run.devices.base import DeviceRecord
from harness.run.execute import Outputs
from harness.run.job import UNAVAILABLE, Machine, Ran, Result
from harness.run.latency_plan import LatencyPlan

TIMES = "latency.npz"  # of the first shard, in the shards' folder


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    models: Path
    variants: Mapping[str, Variant]
    reference_model: Path
    model_sha256: str
    limits: Policy
    plan: LatencyPlan | None
    baseline: Baseline | None = None

    @property
    def spec(self) -> ModelSpec:
        """What all the variants take and give."""
        return next(iter(self.variants.values())).spec


def subject(
    models: Path,
    reference_model: Path,
    kinds: tuple[str, ...] | None,
    limits: Policy,
    plan: LatencyPlan | None,
    baseline: Baseline | None = None,
) -> Subject:
    """Raises SetupError: no such variants, stale or damaged ones, limits of an unknown kind."""
    variants = pipeline.select(manifest.read(models), kinds, models)
    policy.check_variants(limits, (*manifest.KNOWN_KINDS, *variants), "policy")
    pipeline.spec_of(variants, models, reference_model)
    return Subject(models, variants, reference_model, reference.model_sha256(reference_model), limits, plan, baseline)


def run(
    what: Subject,
    source: Source,
    size: int,
    engine: Engine,
    devices: Sequence[str],
    record: Path,
    step: Step,
    progress: Progress,
    *,
    skip_bad: bool = False,
    parallel: int = 0,
    stopped: threading.Event | None = None,
) -> CheckedRun:
    """Check the images of a source on like devices; the record, its evidence written, and whether Ctrl-C ended it.

    record: where it will be written; the shards' evidence goes beside it. size: images in a shard. parallel: threads of
    each device, 0 for all its cores. stopped: ends it as Ctrl-C does.
    Raises SetupError: bad images (unless skip_bad), hosts of another version.
    """
    if source.bad and not skip_bad:
        raise SetupError(shards.cannot_be_used(source.path, source.bad))
    with ExitStack() as stack:
        run = _Run(what, source, devices, record, _References(what, step, stack), skip_bad)
        interrupted = False
        try:
            for job, answer in Dispatcher(engine, devices, run.jobs(size, parallel)):
                run.take(job.shard, answer)
                progress(f"{source.path}", run.images_done, source.images)
                if stopped and stopped.is_set():
                    interrupted = True
                    break
        except RefusedError as error:
            raise SetupError(str(error)) from error
        except KeyboardInterrupt:
            interrupted = True
        return CheckedRun(run.record(interrupted), interrupted)


class _References:
    """The Keras model's outputs on each shard, stored ones or computed in one process that stays open."""

    _one_at_a_time = threading.Lock()  # devices of a fleet want the same ones

    def __init__(self, what: Subject, step: Step, stack: ExitStack) -> None:
        self._what = what
        self._step: Callable[[str], AbstractContextManager[None]] = step
        self._stack = stack
        self._keras: KerasProcess | None = None

    def of(self, shard: Shard, data_sha256: str, images: int) -> Reference:
        with self._one_at_a_time:
            return self._of(shard, data_sha256, images)

    def _of(self, shard: Shard, data_sha256: str, images: int) -> Reference:
        what = self._what
        if found := reference.stored(what.models, what.model_sha256, data_sha256, images, what.spec):
            return found
        data = dataset.decode(shard, what.spec)
        if data.sha256 != data_sha256:
            raise SetupError(
                f"shard {shard.number}: the device's host reads other pixels from its images than this one; install "
                "the same Pillow on both"
            )
        if self._keras is None:
            self._keras = self._stack.enter_context(KerasProcess())
        with self._step(f"reference: {what.reference_model.name} on {len(data)} images"):
            return references.compute(what.reference_model, what.model_sha256, data, what.models, self._keras)


@dataclass
class _Run:
    """What is known so far. paths: of the evidence of every shard that was read, in order; done: those written."""

    what: Subject
    source: Source
    devices: Sequence[str]
    where: Path
    references: _References
    skip_bad: bool
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    keys: list[str] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    lost: dict[int, str] = field(default_factory=dict)
    failures: defaultdict[str, dict[int, Verdict]] = field(default_factory=lambda: defaultdict(dict))
    images_done: int = 0

    @property
    def folder(self) -> Path:
        return sharded_arrays.folder_of(self.where)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"

    def jobs(self, size: int, parallel: int) -> Iterator[ShardJob]:
        """The shards whose evidence is not there yet."""
        what = self.what
        contents = manifest.contents(what.models, what.variants)
        for shard in shards.shards(self.source, size):
            plan = what.plan if shard.number == 0 else None
            key = self._key(shard, plan)
            self.keys.append(key)
            files = [self.path(shard.number), *([self.folder / TIMES] if plan else [])]
            if all(sharded_arrays.matches(file, key) for file in files):
                self.done.add(shard.number)
                self.images_done += len(shard)
                continue
            yield ShardJob(shard, what.spec, contents, plan, parallel)

    def _key(self, shard: Shard, plan: LatencyPlan | None) -> str:
        """All that a shard's evidence depends on, but for the device."""
        variants = {kind: variant.sha256 for kind, variant in self.what.variants.items()}
        parts = (
            shard_task.worker_sha256(),
            self.what.model_sha256,
            self.what.spec,
            variants,
            shard.sha256,
            plan,
            self.skip_bad,
        )
        return sha256(repr(parts).encode())

    def take(self, shard: Shard, answer: ShardAnswer | Lost) -> None:
        """Write a shard's evidence."""
        if isinstance(answer, Lost):
            self.lost[shard.number] = answer.why
            return
        if answer.skipped and not self.skip_bad:
            raise SetupError(shards.cannot_be_used(self.source.path, list(answer.skipped)))
        key = self.keys[shard.number]
        for task, failure in answer.outputs.failures.items():
            self.failures[task][shard.number] = failure
        if timed := {task: result for task, result in answer.outputs.results.items() if job.is_latency(task)}:
            arrays = {MACHINE: _about(next(iter(timed.values())).machine, answer), DIGESTS: answer.digests}
            for task, result in timed.items():
                arrays |= names.latency_arrays(job.process_number(task), result.arrays)
            sharded_arrays.write(self.folder / TIMES, key, arrays)
        complete = not any(kind in self.failures and shard.number in self.failures[kind] for kind in self.what.variants)
        arrays = self._arrays(shard, answer)
        sharded_arrays.write(self.path(shard.number), key if complete else "incomplete", arrays)
        self.done.add(shard.number)
        self.images_done += len(shard)

    def _arrays(self, shard: Shard, answer: ShardAnswer) -> dict[str, npt.NDArray[Any]]:
        kept = answer.kept.tolist()
        about = {DIGESTS: answer.digests, SKIPPED: np.array(answer.skipped, np.str_)}
        arrays = names.image_arrays([shard.names[i] for i in kept], [shard.labels[i] for i in kept], answer.input_means)
        if not kept:
            return arrays | about
        expected = self.references.of(shard, sha256(answer.digests.tobytes()), len(kept))
        arrays |= names.reference_arrays(expected.outputs, expected.folded)
        for kind, variant in self.what.variants.items():
            if result := answer.outputs.results.get(kind):
                arrays |= names.answer_arrays(Cell(kind), result.arrays, variant.input)
                about[MACHINE] = _about(result.machine, answer)
        changed = predictions.flipped(RecordArrays(arrays).predictions())
        takes = self.what.spec
        images = [dataset.try_read(shard.contents[kept[i]], takes) for i in changed]
        empty = np.empty((0, *takes.shape), np.uint8)
        return arrays | about | names.flipped_arrays(changed, np.array(images, np.uint8) if images else empty)

    def record(self, interrupted: bool) -> Record:
        """Judge what is there, counting shard after shard."""
        total = _Total(self.what)
        for number in range(len(self.keys)):
            if number in self.done:
                total.add(self.path(number))
        missing = len(self.keys) - len(self.done)
        if not total.images and not missing and not interrupted:
            raise SetupError(f"{self.source.path}: none of its {self.source.images} images can be used")
        if interrupted:
            total.incomplete = f"interrupted after {self.images_done} of {self.source.images} images"
        elif missing:
            why = "; ".join(dict.fromkeys(self.lost.values()))
            total.incomplete = f"{missing} of {len(self.keys)} shards were not answered: {why}"
        elif len(total.machines) > 1:
            total.incomplete = f"answered by devices that are not alike: {'; '.join(total.machines)}"
        outputs = Outputs(self._times(), {}, interrupted)
        if not outputs.results:
            failed = {task: next(iter(of.values())) for task, of in self.failures.items() if job.is_latency(task)}
            outputs = replace(outputs, failures=failed)
        what = self.what
        found = pipeline.assemble(
            what.variants,
            {kind: total.judge(kind, self.failures.get(kind, {})) for kind in what.variants},
            names.class_arrays(what.spec.class_names),
            Data(
                str(self.source.path),
                sha256=total.digest.hexdigest(),
                reference_sha256=total.digest.hexdigest(),  # each shard's by its own hash
                images=total.images,
                skipped=(*self.source.bad, *total.skipped),
                incomplete=total.incomplete,
            ),
            Model(str(what.reference_model), what.model_sha256, what.spec),
            pipeline.Execution(
                outputs,
                total.device or _unknown(self.devices),
                self.started,
                None if total.device and total.device.emulated else what.plan,
                what.limits,
                what.baseline,
            ),
        )
        arrays = RecordArrays(ShardedArrays(found.arrays.stored, self.folder, tuple(total.files)))
        return structs.replace(found, arrays=arrays, machine=total.machine or found.machine)

    def _times(self) -> dict[str, Result]:
        """The first shard's latency tasks."""
        path = self.folder / TIMES
        if not self.keys or not sharded_arrays.matches(path, self.keys[0]):
            return {}
        times = sharded_arrays.read(path)
        machine = shapes.decode(str(times[MACHINE]), _About, str(path)).machine
        runs = RecordArrays(times).latency_by_process()
        return {
            f"{job.LATENCY}-{process}": Result(arrays, machine, Ran("cpu", machine.runtime))
            for process, arrays in runs.items()
        }


def _unknown(devices: Sequence[str]) -> DeviceRecord:
    """What a record says of a device that was never reached."""
    return DeviceRecord(", ".join(devices), ", ".join(devices), UNAVAILABLE, UNAVAILABLE)


class _About(Shape):
    """What answered a shard."""

    machine: Machine
    device: DeviceRecord | None


def _about(machine: Machine, answer: ShardAnswer) -> npt.NDArray[Any]:
    return np.array(shapes.encode(_About(machine, answer.device)).decode())


class _Total:
    """All shards added up, in order."""

    def __init__(self, what: Subject) -> None:
        self._what = what
        self._counted: dict[str, Counted] = {}
        self._wrong: dict[str, str] = {}
        self.machines: dict[str, Machine] = {}
        self.device: DeviceRecord | None = None  # that answered the first shard
        self.files: list[ShardFile] = []
        self.digest = hashlib.sha256()
        self.images = 0
        self.skipped: list[str] = []
        self.incomplete = ""

    @property
    def machine(self) -> Machine | None:
        return next(iter(self.machines.values()), None)

    def add(self, path: Path) -> None:
        arrays = sharded_arrays.read(path)
        self.skipped += arrays.pop(SKIPPED).tolist()
        self.digest.update(arrays[DIGESTS].tobytes())
        images = len(arrays["labels"])
        if not images:
            return
        if MACHINE in arrays:
            about = shapes.decode(str(arrays[MACHINE]), _About, str(path))
            self.machines.setdefault(f"{about.machine.runtime}, {about.machine.machine}", about.machine)
            self.device = self.device or about.device
        answered = RecordArrays(arrays).predictions()
        for cell in answered.cells:
            self._count(cell, answered)
        self.images += images
        self.files.append(ShardFile(path.name, sha256(path.read_bytes()), images))

    def _count(self, cell: Cell, answered: Predictions) -> None:
        try:
            counted = predictions.count(cell, answered, self._what.limits, self.images)
        except ValueError as error:
            self._wrong.setdefault(str(cell), str(error))
            return
        self._counted[str(cell)] = self._counted[str(cell)] + counted if str(cell) in self._counted else counted

    def judge(self, kind: str, failures: Mapping[int, Verdict]) -> Judged:
        """A variant whose worker crashed FAILs; one that did not answer every image is INCONCLUSIVE at best."""
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
            if reasons := [f"shard {n}: {one.reasons[0]}" for n, one in failures.items() if one.outcome is outcome]:
                return Judged(Verdict(outcome, tuple(reasons[:3])))
        if kind in self._wrong:
            return Judged(Verdict(Outcome.FAIL, (self._wrong[kind],)))
        if kind not in self._counted:
            return Judged(Verdict(Outcome.INCONCLUSIVE, (self.incomplete or "no answers",)))
        judged = predictions.conclude(Cell(kind), self._counted[kind], self._what.limits, self._what.spec.class_names)
        return predictions.not_passed(judged, self.incomplete)
