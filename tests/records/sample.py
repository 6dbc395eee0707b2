"""A record to judge again, to compare and to show, made without running anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.core.cell import Cell
from harness.core.npz import Array
from harness.core.outcome import Outcome, Verdict, overall
from harness.judge import policy, predictions
from harness.records import record
from harness.records.arrays import RecordArrays
from harness.records.record import CellRecord, Data, Model, Record
from harness.run.devices.base import DeviceRecord
from harness.run.job import Machine

IMAGES, CLASSES = 2200, 11
INT8 = Cell("int8")


def a_run(changes: dict[str, Any] | None = None, *, broken: int = 1) -> Record:
    """A run of a float32 and an int8 variant that breaks some answers, judged as a check judges it."""
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    reference = np.full((IMAGES, CLASSES), 0.02, np.float32)
    reference[np.arange(IMAGES), labels] = 0.42
    reference[np.arange(IMAGES), (labels + 1) % CLASSES] = 0.40
    stored = np.round(reference * 256).astype(int) - 128
    flipped = rng.permutation(IMAGES)[:broken]
    stored[flipped, labels[flipped]] -= 10
    stored[flipped, (labels[flipped] + 1) % CLASSES] += 5
    arrays: dict[str, Any] = {
        "names": np.array([f"{label}_{i}.jpg" for i, label in enumerate(labels)]),
        "labels": labels,
        "reference": reference,
        "folded": reference,
        "float32.outputs": reference,
        "float32.scale": np.float64(0),
        "float32.zero_point": np.int64(0),
        "int8.outputs": stored.astype(np.int8),
        "int8.scale": np.float64(1 / 256),
        "int8.zero_point": np.int64(-128),
    } | (changes or {})
    answered = RecordArrays(arrays).predictions()
    changed = predictions.flipped(answered)
    arrays |= {"flipped.index": changed, "flipped.images": np.full((len(changed), 28, 28, 1), 200, np.uint8)}
    limits = policy.load()
    cells = []
    for cell in answered.cells:
        judged = predictions.judge(cell, answered, limits)
        cells.append(
            CellRecord(variant=cell.variant, accelerator=cell.accelerator, sha256="aa", size_bytes=1000, **vars(judged))
        )
    return Record(
        outcome=overall(cell.verdict for cell in cells),
        cells=tuple(cells),
        model=Model("a.keras", "model" * 4),
        data=Data("d", "data", "data", IMAGES),
        policy=limits,
        machine=Machine("a runtime", machine="a machine"),
        device=DeviceRecord("local", "a device", "a machine", "a system"),
        started="2026-01-01T00:00:00+00:00",
        arrays=RecordArrays(arrays),
    )


def with_arrays(run: Record, changes: dict[str, Array]) -> Record:
    return replace(run, arrays=RecordArrays({**run.arrays.stored, **changes}))


def silent(
    variant: str = "dynamic_range", why: str = "the worker ended with exit code -11", outcome: Outcome = Outcome.FAIL
) -> CellRecord:
    """A cell that never answered."""
    return CellRecord(variant=variant, sha256="bb", size_bytes=1, verdict=Verdict(outcome, (why,)))


def stored(folder: Path, name: str = "check.json", changes: dict[str, Any] | None = None, *, broken: int = 1) -> Path:
    path = folder / name
    record.write(a_run(changes, broken=broken), path)
    return path


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
