"""JSON Schemas of the published files, generated from the types that they are written from.

python -m harness.output.formats.schema

writes them into harness/output/schemas/, which the package contains. docs/formats.md says what each key means.
"""

from __future__ import annotations

from pathlib import Path

from harness.core import shapes
from harness.core.files import write_atomic
from harness.output.formats.json_report import Report
from harness.records.attestation import Statement
from harness.records.record import RecordFile
from harness.tools.app import AppReport
from harness.tools.app_dump import DumpLine
from harness.tools.evaluate import EvaluationFile
from harness.tools.golden import Golden

FOLDER = Path(__file__).parent.parent / "schemas"
PUBLISHED = {
    "record.json": (RecordFile, "The record of harness check"),
    "report.json": (Report, "Records side by side, as harness report --format json gives them"),
    "attestation.json": (Statement, "The in-toto statement of harness attest, and its predicate"),
    "evaluation.json": (EvaluationFile, "The evaluation of harness evaluate --json"),
    "golden.json": (Golden, "The index of a golden bundle, golden.json of harness golden"),
    "dump.json": (DumpLine, "One line of what an app writes of a golden bundle's images, for harness app"),
    "app.json": (AppReport, "What harness app --json says of a dump"),
}


def encoded() -> dict[str, bytes]:
    """File name -> content."""
    return {name: shapes.encode(shapes.json_schema(kind, title)) for name, (kind, title) in PUBLISHED.items()}


if __name__ == "__main__":
    for name, content in encoded().items():
        write_atomic(FOLDER / name, content)
