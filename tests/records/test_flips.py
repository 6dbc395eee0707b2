"""The images whose prediction changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.records import flips, record
from tests.records.sample import INT8, a_run


def test_the_flips_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its class, both predictions and confidences, in the terminal and on a page with its image."""
    run = a_run(broken=2)
    found = flips.flipped_images(run)
    assert [(flip.cell, flip.change, flip.expected, flip.image is not None) for flip in found] == [
        (INT8, flips.REGRESSION, flip.truth, True) for flip in found
    ]
    record.write(run, tmp_path / "check.json")
    page = tmp_path / "check.html"
    assert main(["report", "--flips", str(tmp_path / "check.json"), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    content = page.read_text()
    for flip in found:
        assert flip.name in shown
        assert flip.name in content
    assert content.count("data:image/png;base64,") == 2
    assert "<h4>2 regressions</h4>" in content
    assert "<h4>0 improvement" not in content
