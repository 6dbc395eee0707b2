"""The record of a check: what was run, measured and judged. JSON, with raw samples and outputs beside it as .npz."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.core.outcome import Outcome, Verdict
from harness.judge import stages
from harness.judge.agreement import Agreement
from harness.judge.parity import Parity
from harness.judge.rules import Check, Statistics
from harness.judge.stages import Hop
from harness.records.sharded_arrays import ShardedArrays, ShardFile
from harness.timing.figures import Latency, Timing, latency_from_json, timing_from_json

SCHEMA = "harness-record/3"
FILE = "check.json"


@dataclass(frozen=True)
class VariantRecord:
    """One variant: none for what was not measured."""

    kind: str
    sha256: str
    size_bytes: int
    verdict: Verdict
    parity: Parity | None
    statistics: Statistics | None
    hops: tuple[Hop, ...]  # from the Keras model to this variant
    latency: Latency | None
    checks: tuple[Check, ...] = ()  # by group of rules; none for outputs that could not be compared
    host: Agreement | None = None  # none where the device was this machine


@dataclass(frozen=True)
class Record:
    """A check. arrays: name -> raw array, for the .npz."""

    outcome: Outcome
    variants: tuple[VariantRecord, ...]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    policy: Mapping[str, Any]
    machine: Mapping[str, Any]
    plan: Mapping[str, Any]
    started: str  # UTC, ISO 8601
    notes: tuple[str, ...]  # what could not be measured, and why
    arrays: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    timing: Timing | None = None  # none: latency was not measured
    device: Mapping[str, Any] = field(default_factory=dict)  # Probe.to_json, and the bytes moved

    def to_json(self) -> dict[str, Any]:
        """The published shape: seconds, bytes, shares of 1."""
        return {
            "schema": SCHEMA,
            "verdict": self.outcome,
            "started": self.started,
            "model": dict(self.model),
            "data": dict(self.data),
            "policy": dict(self.policy),
            "device": dict(self.device),
            "machine": dict(self.machine),
            "latency_plan": dict(self.plan),
            "latency": self.timing.to_json() if self.timing else None,
            "notes": list(self.notes),
            "variants": [_variant(variant) for variant in self.variants],
        }


def write(record: Record, path: Path) -> Path:
    """Write the JSON and, beside it, the arrays, but for those of shards; the arrays' path. Raises SetupError."""
    arrays_path = path.with_suffix(".npz")
    buffer = io.BytesIO()
    sharded = record.arrays if isinstance(record.arrays, ShardedArrays) else None
    np.savez_compressed(buffer, allow_pickle=False, **(sharded.own if sharded else record.arrays))
    write_atomic(arrays_path, buffer.getvalue())
    content = record.to_json() | {"arrays": arrays_path.name, "arrays_sha256": sha256(buffer.getvalue())}
    if sharded:
        content |= {"shards": [asdict(one) for one in sharded.files]}
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return arrays_path


def read(path: Path) -> Record:
    """A stored record and its arrays; figures are not read but derived again (`evidence.again`).

    path: the record, or the run's folder with the record under its usual name.
    Raises SetupError: missing, damaged, of another schema, arrays that are not this record's or do not pair.
    """
    if path.is_dir():
        path = path / FILE
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise SetupError(f"{path}: expected a record of harness check ({error.strerror})") from error
    except ValueError as error:
        raise SetupError(f"{path}: not valid JSON ({error}); run harness check again") from error
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != SCHEMA:
        raise SetupError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; run harness check again")
    try:
        arrays: Mapping[str, npt.NDArray[Any]] = _arrays(path.with_name(stored["arrays"]), stored["arrays_sha256"])
        if "shards" in stored:
            arrays = ShardedArrays(arrays, path.parent, tuple(ShardFile(**one) for one in stored["shards"]))
            arrays.verify()
        record = _parse(stored, arrays)
        _check(record, path)
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f"{path}: damaged ({error!r}); run harness check again") from error
    return record


def _arrays(path: Path, expected: str) -> dict[str, npt.NDArray[Any]]:
    try:
        content = path.read_bytes()
        if sha256(content) != expected:
            raise SetupError(f"{path}: not the arrays that the record was written with; run harness check again")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, BadZipFile) as error:
        raise SetupError(f"{path}: expected the record's arrays ({error}); run harness check again") from error


def _parse(stored: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Record:
    return Record(
        outcome=Outcome(stored["verdict"]),
        variants=tuple(
            VariantRecord(
                kind=entry["kind"],
                sha256=entry["sha256"],
                size_bytes=entry["size_bytes"],
                verdict=Verdict(Outcome(entry["verdict"]), tuple(entry["reasons"])),
                parity=None,
                statistics=None,
                hops=(),
                latency=latency_from_json(entry["latency_s"]) if entry["latency_s"] else None,
            )
            for entry in stored["variants"]
        ),
        model=stored["model"],
        data=stored["data"],
        policy=stored["policy"],
        device=stored["device"],
        machine=stored["machine"],
        plan=stored["latency_plan"],
        started=stored["started"],
        notes=tuple(stored["notes"]),
        arrays=arrays,
        timing=timing_from_json(stored["latency"]) if stored["latency"] else None,
    )


def _check(record: Record, path: Path) -> None:
    """Raise SetupError unless names, labels and the reference's outputs are those of the data, image by image."""
    names, images = record.arrays["names"], record.data["images"]
    if repeated := len(names) - len(np.unique(names)):
        raise SetupError(f"{path}: {repeated} of {len(names)} images stand in it twice; run harness check again")
    for name in ("names", "labels", "reference"):
        if len(record.arrays[name]) != images:
            raise SetupError(f"{path}: {len(record.arrays[name])} {name} for {images} images; run harness check again")
    computed_on = record.data["reference_sha256"]
    if computed_on != record.data["sha256"]:
        raise SetupError(
            f"{path}: the reference was computed on data {computed_on[:12]}, the variants on "
            f"{record.data['sha256'][:12]}; run harness check again"
        )


def _variant(variant: VariantRecord) -> dict[str, Any]:
    parity = asdict(variant.parity) if variant.parity else dict.fromkeys(Parity.__dataclass_fields__)
    worst = stages.lost_most(variant.hops)
    return {
        "kind": variant.kind,
        "verdict": variant.verdict.outcome,
        "reasons": list(variant.verdict.reasons),
        "checks": [asdict(check) for check in variant.checks],
        "sha256": variant.sha256,
        "size_bytes": variant.size_bytes,
        **parity,
        "statistics": asdict(variant.statistics) if variant.statistics else None,
        "hops": [asdict(hop) for hop in variant.hops],
        "lost_most": f"{worst.source} -> {worst.target}" if worst else None,
        "host": asdict(variant.host) if variant.host else None,
        "latency_s": asdict(variant.latency) if variant.latency else None,
    }
