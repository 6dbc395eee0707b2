"""The record of a check: what was run, measured and judged. JSON, with raw samples and outputs beside it as .npz."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.files import write_atomic
from harness.latency import Latency
from harness.parity import Parity
from harness.verdict import Outcome, Verdict

SCHEMA = "harness-record/1"


@dataclass(frozen=True)
class VariantRecord:
    """One variant: none for what was not measured."""

    kind: str
    sha256: str
    size_bytes: int
    verdict: Verdict
    parity: Parity | None
    latency: Latency | None


@dataclass(frozen=True)
class Record:
    """A check. arrays: name -> raw array, for the .npz."""

    outcome: Outcome
    variants: tuple[VariantRecord, ...]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    machine: Mapping[str, Any]
    plan: Mapping[str, Any]
    started: str  # UTC, ISO 8601
    notes: tuple[str, ...]  # what could not be measured, and why
    arrays: Mapping[str, npt.NDArray[Any]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The published shape: seconds, bytes, shares of 1."""
        return {
            "schema": SCHEMA,
            "verdict": self.outcome,
            "started": self.started,
            "model": dict(self.model),
            "data": dict(self.data),
            "machine": dict(self.machine),
            "latency_plan": dict(self.plan),
            "notes": list(self.notes),
            "variants": [_variant(variant) for variant in self.variants],
        }


def write(record: Record, path: Path) -> Path:
    """Write the JSON and, beside it, the arrays; the arrays' path. Raises SetupError."""
    arrays_path = path.with_suffix(".npz")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **record.arrays)
    write_atomic(arrays_path, buffer.getvalue())
    content = record.to_json() | {"arrays": arrays_path.name}
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return arrays_path


def _variant(variant: VariantRecord) -> dict[str, Any]:
    parity = asdict(variant.parity) if variant.parity else dict.fromkeys(Parity.__dataclass_fields__)
    return {
        "kind": variant.kind,
        "verdict": variant.verdict.outcome,
        "reasons": list(variant.verdict.reasons),
        "sha256": variant.sha256,
        "size_bytes": variant.size_bytes,
        **parity,
        "latency_s": asdict(variant.latency) if variant.latency else None,
    }
