"""A check from beginning to end: images in shards, reference outputs, jobs on devices, evidence, record.

A small set is one shard, held in memory. Of a large one few shards are in memory at any time; what is finished is on
disk beside the record, and is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.artifacts.reference import Reference
from harness.check import evidence
from harness.check.engine import MAX_ATTEMPTS, Dispatcher, Engine, Lost, until_stopped
from harness.check.evidence import LATENCY, Evidence
from harness.check.host import HostOutputs
from harness.check.references import References
from harness.check.shard_task import ShardAnswer, ShardJob
from harness.check.subject import Subject
from harness.check.verdict import Total
from harness.core.errors import AbsentError, SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome, Verdict, overall
from harness.core.progress import Bars
from harness.images import dataset, shards
from harness.images.labels import Labels
from harness.images.shards import Source
from harness.images.slices import Slices
from harness.records import arrays, sharded_arrays
from harness.records.record import Failure, Record
from harness.run import execute, job, worker
from harness.run.devices import local
from harness.run.job import Machine

MAX_REASONS = 3  # of shards in which the same task failed


@dataclass(frozen=True)
class Check:
    """devices: they share the images, and are alike. record: where it will be written, and evidence beside it.

    shard_size: images in a shard; None: as usual. keep_evidence: of a single shard, too, so that a second run does
    only what is missing. parallel: threads of each device, 0 for all cores. slices: judged each on its own.
    labels: of a model that gives several.
    """

    subject: Subject
    source: Source
    devices: tuple[str, ...]
    record: Path
    shard_size: int | None = None
    skip_bad: bool = False
    keep_evidence: bool = False
    parallel: int = job.ALL_CORES
    slices: Slices | None = None
    labels: Labels | None = None

    @property
    def size(self) -> int:
        return self.shard_size or shards.usual_size(self.subject.spec)

    @property
    def shards(self) -> int:
        return -(-self.source.images // self.size)


@dataclass(frozen=True)
class CheckedRun:
    """A record, and whether Ctrl-C cut it short."""

    record: Record
    interrupted: bool


def run_all(
    checks: Sequence[Check], engine: Engine, references: References, bars: Bars
) -> list[CheckedRun | SetupError | None]:
    """The record of each check, or why there is none; None if Ctrl-C came first. This machine's check comes first, as
    the others need its cores; then all at once. Raises KeyboardInterrupt if nothing was answered before Ctrl-C."""
    results: dict[int, CheckedRun | SetupError | None] = {}
    here = [number for number, check in enumerate(checks) if check.devices == (local.URI,)]
    elsewhere = [number for number in range(len(checks)) if number not in here]
    with HostOutputs(until_stopped(engine, bars.for_device("this machine"))) as host:
        for group in filter(None, (here, elsewhere)):
            with ThreadPoolExecutor(len(group)) as pool:
                running = {
                    number: pool.submit(_run, checks[number], engine, references, host, bars) for number in group
                }
                try:
                    wait(running.values())
                except KeyboardInterrupt:
                    engine.stop()
                    references.stop()
            results |= {number: future.result() for number, future in running.items()}
    if engine.stopped.is_set() and not any(results.values()):
        raise KeyboardInterrupt
    return [results.get(number) for number in range(len(checks))]


def _run(
    check: Check, engine: Engine, references: References, host: HostOutputs, bars: Bars
) -> CheckedRun | SetupError | None:
    """None if Ctrl-C came before any answer."""
    run = _Run(check, references, host)
    several = check.shards > 1 or len(check.devices) > 1
    attempts = MAX_ATTEMPTS if several else 1  # a single job's failure is shown, not tried again
    progress = bars.for_device(f"{', '.join(check.devices)}: {check.source.path}") if several else None
    try:
        try:
            for asked, answer in Dispatcher(engine, check.devices, run.jobs(), attempts):
                run.take(asked, answer)
                if progress:
                    progress("images", run.images, check.source.images)
        except SetupError:
            if not engine.stopped.is_set():  # else Ctrl-C ended the Keras process
                raise
        interrupted = engine.stopped.is_set()
        return CheckedRun(run.record(interrupted), interrupted) if run.images or not interrupted else None
    except SetupError as error:
        return error


class _Run:
    """The state of one check. images: number of images in finished shards."""

    def __init__(self, check: Check, references: References, host: HostOutputs) -> None:
        self._check, self._references, self._host = check, references, host
        in_memory = check.shards == 1 and not check.keep_evidence
        self._evidence = Evidence(None if in_memory else sharded_arrays.folder_of(check.record))
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._keys: dict[int, str] = {}
        self._expected: dict[int, Reference] = {}  # of the shards that devices have
        self._failures: dict[int, Mapping[str, Verdict]] = {}
        self._lost: dict[int, Lost] = {}
        self._done: set[int] = set()
        self._first: int | None = None  # the first shard that has images: latency is measured on them
        self.images = 0

    def jobs(self) -> Iterator[ShardJob]:
        """The shards that are not finished. A device is given one when its reference is known, which may be refused."""
        check, subject = self._check, self._check.subject
        self._refuse(check.source.bad)
        for device in check.devices:
            execute.check_accelerators(device, subject.accelerators)
        if subject.plan and subject.baseline and check.devices == (local.URI,):
            subject.baseline.check(Machine(**worker.machine()), subject.plan.threads)
        for number, data in enumerate(dataset.in_shards(check.source, check.size, subject.spec)):
            self._refuse(data.skipped)
            if len(data) and self._first is None:
                self._first = number
            first = number == self._first
            plan = subject.plan if first else None
            asked = ShardJob(
                number,
                check.shards,
                first,
                data,
                subject.contents,
                subject.accelerators,
                plan,
                check.parallel,
                subject.count and first,
            )
            key = self._keys[number] = self._key(asked)
            measured = plan or asked.count
            has_part = self._evidence.has(evidence.part_name(number), key)
            if has_part and (not measured or self._evidence.has(LATENCY, key)):
                self._finish(asked)
            elif len(data):
                self._expected[number] = self._references.obtain(data)
                yield asked
            else:
                self._evidence.write(evidence.part_name(number), key, evidence.of_images(data))
                self._finish(asked)

    def take(self, asked: ShardJob, answer: ShardAnswer | Lost) -> None:
        """Write a shard's evidence; if a task failed, marked incomplete, so that the next run repeats it."""
        expected = self._expected.pop(asked.number)
        if isinstance(answer, Lost):
            self._lost[asked.number] = answer
            return
        subject, outputs = self._check.subject, answer.outputs
        why = f"{'interrupted' if outputs.interrupted else 'the worker ended'} before it was run"
        missing = {str(cell) for cell in subject.cells} - outputs.results.keys()
        failures = {cell: Verdict(Outcome.INCONCLUSIVE, (why,)) for cell in sorted(missing)} | dict(outputs.failures)
        self._failures[asked.number] = failures
        key = "incomplete" if failures else self._keys[asked.number]
        host = {} if outputs.interrupted else self._host.beside(answer, asked)
        if asked.plan or asked.count:
            times = {task: result for task, result in outputs.results.items() if job.is_latency(task)}
            parts = [arrays.latency_arrays(job.process_number(task), result.arrays) for task, result in times.items()]
            for task, result in outputs.results.items():
                if cell := job.counted_cell(task):
                    parts.append(arrays.count_arrays(cell, result.arrays))
            self._evidence.write(LATENCY, key, {name: array for part in parts for name, array in part.items()})
        part = evidence.of_answer(subject, asked.data, expected, answer, host)
        self._evidence.write(evidence.part_name(asked.number), key, part)
        self._finish(asked)

    def record(self, interrupted: bool) -> Record:
        """Judge the evidence. Raises SetupError if no image was answered."""
        check, total = self._check, Total(self._check.subject, self._check.slices, self._check.labels)
        names = [evidence.part_name(number) for number in sorted(self._done)]
        images = {name: count for name in names if (count := total.add(self._evidence.read(name)))}
        why = "; ".join(dict.fromkeys(lost.why for lost in self._lost.values()))
        if not images:
            absent = bool(self._lost) and all(lost.absent for lost in self._lost.values())
            error = AbsentError if absent else SetupError
            raise error(why or f"{check.source.path}: none of its {check.source.images} images can be used")
        incomplete = ""
        if missing := check.shards - len(self._done):
            incomplete = f"{missing} of {check.shards} shards were not answered: {why}"
            if interrupted:
                incomplete = f"interrupted after {self.images} of {check.source.images} images"
        own = arrays.class_arrays(check.subject.spec.class_names) | total.arrays
        if (check.subject.plan or check.subject.count) and self._first in self._done:
            own |= self._evidence.read(LATENCY)
        together = self._evidence.together(own, images)
        return total.judge(together, check.source, self._started, self._merged_failures(), incomplete)

    def _finish(self, asked: ShardJob) -> None:
        self._done.add(asked.number)
        self.images += len(asked.data) + len(asked.data.skipped)

    def _refuse(self, bad: Sequence[str]) -> None:
        if bad and not self._check.skip_bad:
            raise SetupError(shards.cannot_be_used(self._check.source.path, list(bad)))

    def _key(self, asked: ShardJob) -> str:
        """Hash of everything that a shard's evidence depends on, except the device."""
        subject = self._check.subject
        variants = {kind: variant.sha256 for kind, variant in subject.variants.items()}
        made_by = asked.worker_sha256, asked.plan, asked.count, subject.accelerators, self._check.skip_bad
        return sha256(repr((*made_by, subject.model_sha256, subject.spec, variants, asked.data.sha256)).encode())

    def _merged_failures(self) -> list[Failure]:
        """One failure for each task that failed, over all shards."""
        by_task: dict[str, dict[int, Verdict]] = {}
        for number, failures in sorted(self._failures.items()):
            for task, verdict in failures.items():
                by_task.setdefault(task, {})[number] = verdict
        merged = []
        for task, verdicts in by_task.items():
            outcome = overall(verdicts.values())
            worst = {number: verdict.reasons for number, verdict in verdicts.items() if verdict.outcome is outcome}
            reasons = next(iter(worst.values()))
            if self._check.shards > 1:
                reasons = tuple(f"shard {number}: {reasons[0]}" for number, reasons in worst.items())[:MAX_REASONS]
            of_speed = job.is_latency(task) or job.counted_cell(task)
            merged.append(Failure("latency" if of_speed else "answers", task, outcome, reasons))
        return merged
