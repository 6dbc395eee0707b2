"""Runs as JSON: the records in their published shape, and the verdict of all."""

from __future__ import annotations

import json
from typing import Any

from harness.output.formats.runs import Runs

SCHEMA = "harness-report/1"


def render(runs: Runs) -> str:
    """The JSON; its schema: `harness.output.formats.schema`."""
    return json.dumps(to_json(runs), indent=2, allow_nan=False) + "\n"


def to_json(runs: Runs) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdict": runs.outcome,
        "devices": list(runs.devices),
        "records": [record.to_json() for record in runs.records],
    }
