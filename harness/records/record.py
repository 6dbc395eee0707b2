"""The record of a check: what was run, measured and judged. JSON, with raw samples and outputs beside it as .npz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import field, structs

from harness.core import npz, shapes
from harness.core.cell import Accelerator, Cell
from harness.core.errors import SetupError
from harness.core.files import file_sha256, sha256, write_atomic
from harness.core.outcome import Outcome, Verdict
from harness.core.shapes import Count, FileName, Shape
from harness.images.spec import ModelSpec
from harness.judge.agreement import Agreement
from harness.judge.parity import Parity, PartParity
from harness.judge.policy import Policy
from harness.judge.rules import Check, Statistics
from harness.judge.stages import StageDiff
from harness.judge.tensors import TensorParity
from harness.records.arrays import RecordArrays
from harness.records.sharded_arrays import ShardedArrays, ShardFile
from harness.run.devices.base import DeviceRecord
from harness.run.job import Machine, Ran
from harness.run.latency_plan import LatencyPlan, Mode
from harness.timing.counts import Counts
from harness.timing.figures import Latency, Timing

SCHEMA = "harness-record/4"
FILE = "check.json"


class Model(Shape):
    """The Keras model that the variants were made from, as it was named."""

    file: str
    sha256: str
    spec: ModelSpec | None = None


class Data(Shape):
    """The images. reference_sha256: of those that the reference answered. incomplete: why some were not answered."""

    folder: str
    sha256: str
    reference_sha256: str
    images: Count
    skipped: tuple[str, ...] = ()
    incomplete: str = ""
    slice_by: str = ""  # what the cells' slices are made by


class Failure(Shape):
    """What could not be done: the answers of a cell, or latency in a task."""

    kind: Literal["answers", "latency"]
    task: str
    outcome: Outcome
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.outcome, self.reasons)


class CellRecord(Shape, kw_only=True):
    """A variant on an accelerator. None for what was not measured."""

    variant: str
    accelerator: Accelerator = "cpu"
    sha256: str
    size_bytes: Count
    verdict: Verdict
    parity: Parity | None = None
    statistics: Statistics | None = None
    stages: tuple[StageDiff, ...] = ()  # from the Keras model to this cell
    tensors: tuple[TensorParity, ...] = ()  # of each output that is no classes
    slices: tuple[PartParity, ...] = ()  # the worst first; empty if the images are not divided
    labels: tuple[PartParity, ...] = ()  # of a model of several labels, the worst first
    checks: tuple[Check, ...] = ()  # by rule; empty for outputs that could not be compared
    host: Agreement | None = None  # None if the device was this machine
    latency: Latency | None = None  # in seconds; steady
    counts: Counts | None = None  # of instructions
    latency_modes: Mapping[Mode, Latency] = field(default_factory=dict)  # of the other modes
    ran: Ran | None = None

    @property
    def cell(self) -> Cell:
        return Cell(self.variant, self.accelerator)

    @property
    def name(self) -> str:
        """Of its row in a table, and of its arrays."""
        return str(self.cell)


class RecordBody(Shape, kw_only=True):
    """All of a record but its arrays: seconds, bytes, shares of 1."""

    outcome: Outcome = field(name="verdict")
    started: str  # UTC, ISO 8601
    model: Model
    data: Data
    policy: Policy
    device: DeviceRecord
    machine: Machine = Machine()  # unavailable if nothing was run
    plan: LatencyPlan | None = None  # None if latency was not measured
    timing: Timing | None = None
    notes: tuple[str, ...] = ()  # for a person
    failures: tuple[Failure, ...] = ()
    cells: tuple[CellRecord, ...]

    @property
    def body(self) -> RecordBody:
        """The record without what a subclass adds."""
        return RecordBody(**{name: getattr(self, name) for name in RecordBody.__struct_fields__})


class Record(RecordBody, kw_only=True):
    """A check and its arrays."""

    arrays: RecordArrays


class RecordFile(RecordBody, kw_only=True, tag_field="schema", tag=SCHEMA):
    """A record as it is stored. arrays: the .npz beside it. shards: those in the folder beside it, in order."""

    arrays: FileName
    arrays_sha256: str
    shards: tuple[ShardFile, ...] = ()


def write(record: Record, path: Path) -> Path:
    """Write the JSON and, beside it, the arrays, but for those of shards; the arrays' path. Raises SetupError."""
    arrays_path, stored = path.with_suffix(".npz"), record.arrays.stored
    shards = stored.files if isinstance(stored, ShardedArrays) else ()
    content = npz.encode(stored.own if isinstance(stored, ShardedArrays) else stored)
    write_atomic(arrays_path, content)
    body = structs.asdict(record.body)
    file = RecordFile(**body, arrays=arrays_path.name, arrays_sha256=sha256(content), shards=shards)
    write_atomic(path, shapes.encode(file))
    return arrays_path


def read(path: Path) -> Record:
    """A stored record and its arrays; `rejudge` derives its figures and verdicts again from the arrays.

    path: the record, or the run's folder with the record under its usual name.
    Raises SetupError: missing, damaged, of another schema, arrays that are not this record's or do not pair.
    """
    if path.is_dir():
        path = path / FILE
    file = shapes.read_json(path, RecordFile, "a record of harness check", "run harness check again")
    arrays_path = path.with_name(file.arrays)
    if file_sha256(arrays_path, "the record's arrays") != file.arrays_sha256:
        raise SetupError(f"{arrays_path}: not the arrays that the record was written with; run harness check again")
    with arrays_path.open("rb") as content:
        arrays: Any = npz.read(content, str(arrays_path))
    if file.shards:
        arrays = ShardedArrays(arrays, arrays_path.with_suffix(".shards"), file.shards)
        arrays.verify()
    record = Record(**structs.asdict(file.body), arrays=RecordArrays(arrays, str(arrays_path)))
    _check(record, path)
    return record


def _check(record: Record, path: Path) -> None:
    """Raise SetupError unless names, labels and the reference's outputs are those of the data, image by image."""
    names, data = record.arrays.names, record.data
    if repeated := len(names) - len(np.unique(names)):
        raise SetupError(f"{path}: {repeated} of {len(names)} images stand in it twice; run harness check again")
    for what, count in (("names", len(names)), ("labels", len(record.arrays.labels))):
        if count != data.images:
            raise SetupError(f"{path}: {count} {what} for {data.images} images; run harness check again")
    if record.arrays.slices is not None and (count := len(record.arrays.slices)) != data.images:
        raise SetupError(f"{path}: {count} images in slices of {data.images}; run harness check again")
    if (count := len(record.arrays.reference)) != data.images:
        raise SetupError(f"{path}: {count} answers of the reference for {data.images} images; run harness check again")
    if data.reference_sha256 != data.sha256:
        raise SetupError(
            f"{path}: the reference was computed on data {data.reference_sha256[:12]}, the variants on "
            f"{data.sha256[:12]}; run harness check again"
        )
