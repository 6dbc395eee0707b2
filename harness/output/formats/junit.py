"""A run as JUnit XML: a suite per device, a test case for each of a cell's checks.

FAIL is a failure. INCONCLUSIVE is an error, not a skipped test, because it must not look like a PASS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from harness.core.outcome import Outcome
from harness.judge.rules import Check
from harness.output.formats.runs import Runs
from harness.records.record import CellRecord, Record

TAGS = {Outcome.FAIL: "failure", Outcome.INCONCLUSIVE: "error"}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def render(runs: Runs) -> str:
    """The XML."""
    root = ElementTree.Element("testsuites", name="harness check")
    for device, record in runs.each():
        suite = ElementTree.SubElement(root, "testsuite", name=_text(device), timestamp=record.started[:19])
        for cell in record.cells:
            for check in checks(cell):
                _case(suite, f"{_class(device)}.{cell.name}", check)
        for check in _latency(record):
            _case(suite, _class(device), check)
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def checks(cell: CellRecord) -> tuple[Check, ...]:
    """Each check of a cell, and before them whether it gave predictions that could be judged."""
    answered = Check("answers", Outcome.PASS, ())
    if not cell.checks:
        answered = Check("answers", cell.verdict.outcome, cell.verdict.reasons)
    return (answered, *cell.checks)


def _latency(record: Record) -> Iterator[Check]:
    """A check only if the policy limits latency: what nobody asked for must not fail a build."""
    if record.timing and record.timing.gated:
        yield Check("latency", record.timing.verdict.outcome, record.timing.verdict.reasons)


def _case(suite: ElementTree.Element, class_name: str, check: Check) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_text(class_name), name=check.rule)
    reasons = _text("; ".join(check.reasons))
    if tag := TAGS.get(check.outcome):
        ElementTree.SubElement(case, tag, message=reasons, type=str(check.outcome)).text = reasons
    elif reasons:
        ElementTree.SubElement(case, "system-out").text = reasons


def _count(element: ElementTree.Element) -> None:
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        element.set(name, str(sum(1 for _ in element.iter(tag))))


def _class(device: str) -> str:
    """A device's name as one part of a class name, whose parts are separated by dots."""
    return device.replace(".", "_")


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
