"""From evidence to the record: shards are counted one after the other, then the totals are judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import reference
from harness.check.evidence import Answered
from harness.check.subject import Subject
from harness.core import shapes
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.npz import Array
from harness.core.outcome import Outcome, Verdict
from harness.images import dataset
from harness.images.labels import Labels
from harness.images.shards import Source
from harness.images.slices import Slices
from harness.judge import agreement, diagnosis, predictions
from harness.judge.predictions import Counted, Judged
from harness.records.arrays import RecordArrays, label_arrays, slice_arrays
from harness.records.record import CellRecord, Data, Failure, Model, Record
from harness.records.rejudge import judge_latency, latency_of
from harness.records.sharded_arrays import DIGESTS, GREY, HASHES, SKIPPED, SOURCE
from harness.run.devices import benchmark_model
from harness.run.job import Ran
from harness.timing import verdict
from harness.timing.counts import Counts, counts
from harness.timing.figures import Latency, Ratio


class Total:
    """All shards' evidence added up, in order. answered: the devices that answered, alike ones once."""

    def __init__(self, subject: Subject, slices: Slices | None = None, labels: Labels | None = None) -> None:
        self.subject, self.slices, self.labels = subject, slices, labels
        self.images = 0
        self.answered: list[Answered] = []
        self._counted: dict[Cell, Counted] = {}
        self._wrong: dict[Cell, str] = {}
        self._digest = hashlib.sha256()
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._grey = 0
        self._skipped: list[str] = []
        self._sliced: list[npt.NDArray[np.str_]] = []
        self._truths: list[npt.NDArray[np.int64]] = []

    def add(self, part: Mapping[str, Array]) -> int:
        """One shard's evidence. The number of its images."""
        self._skipped += part[SKIPPED].tolist()
        self._digest.update(part[DIGESTS].tobytes())
        self._hashes.append(part[HASHES])
        self._grey += int(part[GREY])
        if SOURCE not in part:  # no image of it can be used
            return 0
        answered = shapes.decode(str(part[SOURCE]), Answered, "a shard's evidence")
        if answered.make not in [known.make for known in self.answered]:
            self.answered.append(answered)
        answers = RecordArrays(part).predictions()
        if self.slices:
            self._sliced.append(self.slices.of_names(part["names"].tolist()))
            answers = replace(answers, slices=self._sliced[-1])
        if output := answers.labels_output:
            truths = self.labels.of_names(part["names"].tolist()) if self.labels else output.truths
            self._truths.append(truths)
            named = replace(output, names=self.subject.spec.label_names, truths=truths)
            answers = replace(answers, labels_output=named)
        for cell in answers.cells:
            try:
                counted = predictions.count(cell, answers, self.subject.limits, self.images)
                self._counted[cell] = self._counted[cell] + counted if cell in self._counted else counted
            except ValueError as error:
                self._wrong.setdefault(cell, str(error))
        self.images += len(answers.labels)
        return len(answers.labels)

    @property
    def arrays(self) -> dict[str, Array]:
        """Of the record: the images' slices and labels, where there are any."""
        sliced = slice_arrays(np.concatenate(self._sliced)) if self._sliced else {}
        if not self._truths:
            return sliced
        return sliced | label_arrays(self.subject.spec.label_names, np.concatenate(self._truths))

    def judge(
        self, arrays: RecordArrays, source: Source, started: str, failures: Sequence[Failure], incomplete: str
    ) -> Record:
        """Judge the totals. incomplete: why some images were not answered."""
        if len(self.answered) > 1:
            makes = "; ".join(answered.make for answered in self.answered)
            incomplete = incomplete or f"answered by devices that are not alike: {makes}"
        subject, first = self.subject, self.answered[0]
        plan = None if first.device.emulated else subject.plan
        runs = arrays.latency_runs()
        times = verdict.by_mode(runs)
        cells = tuple(
            self._cell(cell, latency_of(cell, times), self._counts(cell, arrays), failures, incomplete)
            for cell in subject.cells
        )
        failures, changes = self._changes(times.get("steady", {}), failures)
        timing = judge_latency(runs, times, subject.limits, first.machine, first.device, plan, failures, changes, cells)
        digest = self._digest.hexdigest()  # the reference of each shard is keyed by the shard's own
        return Record(
            outcome=verdict.overall([cell.verdict for cell in cells], timing),
            cells=cells,
            model=Model(subject.model, subject.model_sha256, subject.spec),
            data=Data(
                str(source.path),
                digest,
                digest,
                self.images,
                (*source.bad, *self._skipped),
                incomplete,
                self.slices.by if self.slices else "",
            ),
            policy=subject.limits,
            machine=first.machine,
            plan=plan,
            started=started,
            notes=tuple(self._notes(cells, failures, source)),
            failures=tuple(failures),
            arrays=arrays,
            timing=timing,
            device=first.device,
        )

    def _cell(
        self,
        cell: Cell,
        latency: Mapping[str, Any],
        counted: Counts | None,
        failures: Iterable[Failure],
        incomplete: str,
    ) -> CellRecord:
        """A cell whose worker crashed FAILs; one that did not answer every image is INCONCLUSIVE at best."""
        failed = next((failure.verdict for failure in failures if failure.task == str(cell)), None)
        if failed:
            judged = Judged(failed)
        elif cell in self._wrong:
            judged = Judged(Verdict(Outcome.FAIL, (self._wrong[cell],)))
        else:
            judged = predictions.conclude(cell, self._counted[cell], self.subject.limits, self.subject.spec.class_names)
            judged = predictions.not_passed(judged, incomplete)
            judged = predictions.accelerated(judged, self._ran(cell), self.subject.limits.limits(cell))
        variant = self.subject.variants[cell.variant]
        return CellRecord(
            variant=cell.variant,
            accelerator=cell.accelerator,
            sha256=variant.sha256,
            size_bytes=variant.size_bytes,
            **latency,
            counts=counted,
            ran=self._ran(cell),
            **vars(judged),
        )

    def _counts(self, cell: Cell, arrays: RecordArrays) -> Counts | None:
        counted, baseline = arrays.counts(cell), self.subject.baseline
        return counts(counted, baseline.counts(str(cell)) if baseline else None, str(cell)) if counted else None

    def _ran(self, cell: Cell) -> Ran | None:
        return self.answered[0].ran.get(str(cell))

    def _changes(
        self, times: Mapping[str, Latency], failures: Sequence[Failure]
    ) -> tuple[Sequence[Failure], tuple[Ratio, ...]]:
        """Times beside the baseline's, and where they cannot be compared, one failure more."""
        subject = self.subject
        if not (subject.baseline and subject.plan and times):
            return failures, ()
        try:
            subject.baseline.check(self.answered[0].machine, subject.plan.threads)
        except SetupError as error:
            return (*failures, Failure("latency", "baseline", Outcome.INCONCLUSIVE, (str(error),))), ()
        return failures, subject.baseline.changes(times)

    def _notes(self, cells: Iterable[CellRecord], failures: Iterable[Failure], source: Source) -> Iterator[str]:
        yield from dataset.notes(np.concatenate(self._hashes), self._grey, source.left_out)
        yield from self.slices.notes if self.slices else ()
        for failure in failures:
            if failure.kind == "latency":
                yield from (f"latency was not measured: {reason}" for reason in failure.reasons)
        parity = next((cell.parity for cell in cells if cell.parity), None)
        if parity and parity.reference_accuracy is not None:
            most_frequent = max(part.images for part in parity.classes) / parity.images
            answers = next(counted.answers for counted in self._counted.values() if counted.answers)
            order = diagnosis.reordered(answers.reference_confusion, self.subject.spec.class_names)
            yield from [order] if order else reference.doubts(parity.reference_accuracy, most_frequent)
        device = self.answered[0].device
        if device.emulated:
            yield f"{device.name} is emulated: it answers as its processor would, and nothing of its speed is measured"
        software = {cell.accelerator: cell.ran for cell in cells if cell.ran and cell.ran.software}
        for accelerator, ran in software.items():
            yield f"{accelerator} is in software, {ran.adapter}: its predictions count, its speed is not measured"
        yield from (agreement.sentence(cell.name, cell.host, device.name) for cell in cells if cell.host)
        medians = {cell.name: cell.latency.median for cell in cells if cell.latency}
        yield from benchmark_model.notes(device.benchmark_model or {}, medians)
