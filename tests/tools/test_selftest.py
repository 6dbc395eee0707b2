"""`harness selftest` with a gate that is broken: it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core.outcome import Outcome
from harness.tools import selftest
from harness.tools.selftest import NOT_RUN, Case

BLIND = """
[limits]
max_accuracy_drop = 1
min_accuracy_ratio = 0
max_flip_share = 1
max_class_drop = 1
max_far_share = 1
max_mean_probability_difference = 1
max_log_loss_rise = 1
"""


def test_a_gate_that_passes_broken_variants_fails_the_selftest(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By limits that allow nearly anything, 1.5 % of broken answers and another model's weights pass: exit code 1."""
    (tmp_path / "blind.toml").write_text(BLIND)
    arguments = ["--models", str(tiny_variants), "--reference", str(tiny_model), "--data", str(few_images)]
    assert main(["selftest", *arguments, "--policy", str(tmp_path / "blind.toml")]) == 1
    rows = capsys.readouterr().out.splitlines()
    for name in ("another model's weights, its manifest made to match", "1.5 % of answers broken"):
        (row,) = (row for row in rows if name in row)
        assert row.startswith("WRONG")
        assert "PASS" in row
    held = [row for row in rows if row.startswith("ok")]
    for name in ("wrong input scale", "a truncated file", "NaN on one image", "two images' outputs swapped"):
        assert any(name in row for row in held), name


def test_the_outcome_follows_from_the_cases() -> None:
    """One that was judged otherwise, or for another reason, fails; one that could not be run leaves it undecided."""
    held = Case("a", "FAIL", "swapped", "FAIL", "constant; swapped")
    other_verdict, other_reason = Case("b", "FAIL", "", "PASS", ""), Case("c", "FAIL", "swapped", "FAIL", "constant")
    not_run = Case("d", "FAIL", "", NOT_RUN, "")
    assert selftest.outcome([held]) is Outcome.PASS
    assert selftest.outcome([held, not_run]) is Outcome.INCONCLUSIVE
    assert selftest.outcome([held, other_verdict, not_run]) is Outcome.FAIL
    assert selftest.outcome([other_reason]) is Outcome.FAIL
