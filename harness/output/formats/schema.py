"""JSON Schemas of the published files, made from the dataclasses that fill them.

python -m harness.output.formats.schema

writes them into harness/output/schemas/, which the package contains. docs/formats.md says what each key means.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.core.files import write_atomic
from harness.core.outcome import Outcome
from harness.judge.agreement import Agreement
from harness.judge.parity import Parity
from harness.judge.policy import Policy
from harness.judge.rules import Check, Statistics
from harness.judge.stages import Hop
from harness.output.formats import json_report
from harness.records import record
from harness.records.sharded_arrays import ShardFile
from harness.timing.figures import Latency, Timing
from harness.tools import evaluate

FOLDER = Path(__file__).parent.parent / "schemas"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNT: Schema = {"type": "integer", "minimum": 0}
SHA256: Schema = {"type": "string"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
OUTCOME: Schema = {"enum": [str(outcome) for outcome in Outcome]}
ANYTHING: Schema = {"type": "object"}


def all_schemas() -> dict[str, Schema]:
    """File name -> schema."""
    return {
        "record.json": _top(record.SCHEMA, "The record of harness check", _record()),
        "report.json": _top(
            json_report.SCHEMA,
            "Runs side by side, as harness report --format json gives them",
            {
                "verdict": OUTCOME,
                "devices": TEXTS,
                "records": {"type": "array", "minItems": 1, "items": {"$ref": "record.json"}},
            },
        ),
        "evaluation.json": _top(evaluate.SCHEMA, "The evaluation of harness evaluate --json", _evaluation()),
    }


def of(kind: Any) -> Schema:
    """The schema of a type: a dataclass, a container of types, or a plain one. Raises TypeError for others."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [of(part) for part in inner]}
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return {"type": "array", "items": of(inner[0])}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of(inner[1])}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(fields(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [str(value) for value in kind]}
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    if kind is Any:
        return {}
    if kind not in plain:
        raise TypeError(f"{kind!r} has no schema")
    return {"type": plain[kind]}


def fields(kind: type) -> dict[str, Schema]:
    """Those of a dataclass's fields."""
    return {name: of(hint) for name, hint in typing.get_type_hints(kind).items()}


def _record() -> dict[str, Schema]:
    timing = fields(Timing) | {"verdict": OUTCOME, "reasons": TEXTS}
    variant = {
        "kind": TEXT,
        "verdict": OUTCOME,
        "reasons": TEXTS,
        "checks": of(tuple[Check, ...]),
        "sha256": SHA256,
        "size_bytes": COUNT,
        **{name: _or_null(schema) for name, schema in fields(Parity).items()},
        "statistics": _or_null(of(Statistics)),
        "hops": of(tuple[Hop, ...]),
        "lost_most": _or_null(TEXT),
        "latency_s": _or_null(of(Latency)),
        "host": _or_null(of(Agreement)),
    }
    return {
        "verdict": OUTCOME,
        "started": TEXT,
        "model": ANYTHING | {"required": ["file", "sha256"]},
        "data": ANYTHING | {"required": ["folder", "sha256", "reference_sha256", "images", "skipped"]},
        "policy": of(Policy),
        "device": ANYTHING,
        "machine": ANYTHING,
        "latency_plan": ANYTHING,
        "latency": _or_null(_object(timing)),
        "notes": TEXTS,
        "variants": {"type": "array", "items": _object(variant)},
        "arrays": TEXT,
        "arrays_sha256": SHA256,
        "shards": {"type": "array", "items": of(ShardFile)},
    }


def _evaluation() -> dict[str, Schema]:
    shares = {name: _or_null(SHARE) for name in ("precision", "recall", "f1")}
    counts = {"images": COUNT, "answers": COUNT}
    miss = {"image": TEXT, "confidence": {"type": "number"}}
    return {
        "started": TEXT,
        "model": ANYTHING | {"required": ["file", "sha256", "size_bytes"]},
        "data": ANYTHING | {"required": ["folder", "sha256", "images", "skipped"]},
        "runtime": TEXT,
        "accuracy": SHARE,
        "ties": COUNT,
        "classes": {
            "type": "array",
            "items": ANYTHING | {"properties": counts | shares, "required": [*counts, *shares]},
        },
        "confusion": {"type": "array", "items": {"type": "array", "items": COUNT}},
        "misses": {
            "type": "array",
            "items": ANYTHING | {"properties": miss, "required": [*miss, "truth", "answer"]},
        },
    }


def _top(schema: str, title: str, properties: dict[str, Schema]) -> Schema:
    made = _object({"schema": {"const": schema}, **properties})
    made["required"] = [key for key in made["required"] if not key.startswith(("arrays", "shards"))]  # in the file
    return {"$schema": DRAFT, "$id": f"{schema.split('-')[1].split('/')[0]}.json", "title": title, **made}


def _object(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def encode(schema: Schema) -> bytes:
    return (json.dumps(schema, indent=1) + "\n").encode()


if __name__ == "__main__":
    for name, made in all_schemas().items():
        write_atomic(FOLDER / name, encode(made))
