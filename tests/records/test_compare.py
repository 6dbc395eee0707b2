"""Two stored runs compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.records import compare, record
from harness.records.arrays import RecordArrays
from tests.records.sample import INT8, a_run, edit_json, stored


def test_a_run_is_compared_with_its_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same predictions: PASS; sixty regressions since: FAIL; a variant that is no longer there: FAIL."""
    before = stored(tmp_path, "before.json")
    assert main(["compare", str(before), str(before)]) == 0
    after = stored(tmp_path, "after.json", broken=60)
    assert main(["compare", str(before), str(after)]) == 1
    assert "verdict: FAIL" in capsys.readouterr().out
    fewer = a_run()
    arrays = {name: array for name, array in fewer.arrays.stored.items() if not name.startswith("int8.")}
    fewer = replace(fewer, cells=fewer.cells[:1], arrays=RecordArrays(arrays))
    record.write(fewer, tmp_path / "fewer.json")
    found = compare.compare(before, tmp_path / "fewer.json")
    assert found.cells[INT8].verdict.reasons == ("only the earlier run has predictions",)
    assert found.outcome is Outcome.FAIL


def test_unlike_runs_are_not_compared_silently(tmp_path: Path) -> None:
    """Different images never; a different model or policy only if asked to, and then it is reported."""
    before, after = stored(tmp_path, "before.json"), stored(tmp_path, "after.json")
    edit_json(after, lambda content: content["model"].update(sha256="another"))
    with pytest.raises(SetupError, match="different models"):
        compare.compare(before, after)
    assert compare.compare(before, after, anyway=True).differences == ("models modelmodelmo and another",)
    edit_json(after, lambda content: content["policy"].update(alpha=0.05))
    with pytest.raises(SetupError, match="different policies"):
        compare.compare(before, after)
    edit_json(after, lambda content: content["data"].update(sha256="images", reference_sha256="images"))
    with pytest.raises(SetupError, match="expected the same images"):
        compare.compare(before, after, anyway=True)
