"""Instructions of an inference: the same in every run, judged by limits of their own, and never required."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.judge.policy import LatencyRule
from harness.records import record
from harness.records.baseline import load_baseline
from harness.records.rejudge import rejudge
from harness.run import execute, job
from harness.timing.counts import Counts, counts
from harness.timing.limits import Exact, judge_exact
from tests.conftest import refusal
from tests.needs import needs
from tests.records.sample import a_run

TOOL = "valgrind-3.19.0, x86_64 with AVX2"
ROWS = np.array([[1000, 100, 50, 2, 1, 0, 0], [1002, 100, 50, 2, 1, 0, 0]])


def test_the_same_file_has_the_same_count(tiny_variants: Path, tmp_path: Path) -> None:
    """In two processes, whatever else runs: within 0.1 %, and both inferences of a process."""
    needs("valgrind")
    content = (tiny_variants / "int8.tflite").read_bytes()
    images = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    written = job.write(tmp_path, {"a": content, "b": content}, images, None, 1, count=True)
    outputs = execute.run(written, lambda *_: None)
    assert not outputs.failures
    results = [outputs.results[f"count-{kind}"].arrays for kind in "ab"]
    instructions = np.concatenate([arrays["counts"][:, 0] for arrays in results])
    assert instructions.min() > 1e6
    assert instructions.max() < 1.001 * instructions.min()
    assert str(results[0]["counts_tool"]).startswith("valgrind-3")


def test_without_valgrind_the_error_names_its_package(
    tiny_model: Path,
    tiny_variants: Path,
    few_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line; and without --count nothing needs it."""
    needs("valgrind")  # elsewhere the processor is named
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["check", "--models", str(tiny_variants), "--reference", str(tiny_model), "--data", str(few_images)]
    code = main([*command, "--no-latency", "--count", "--json", str(tmp_path / "check.json")])
    assert refusal(capsys, code).endswith(
        "--count: valgrind is not installed on this machine; apt-get install valgrind\n"
    )


def test_counts_are_of_one_inference() -> None:
    """The median of those that were counted; misses of the first cache are 64 bytes each."""
    assert counts((ROWS, TOOL), None, "a test") == Counts(1001, 150, 192, TOOL)
    before = Counts(1000, 1, 1, TOOL)
    assert counts((ROWS, TOOL), before, "a test").baseline_instructions == 1000
    other = replace(before, tool="valgrind-3.24.0, x86_64 with AVX2")
    assert counts((ROWS, TOOL), other, "a test").baseline_instructions is None
    with pytest.raises(SetupError, match="counts of shape"):
        counts((ROWS[:, :3], TOOL), None, "a test")


@pytest.mark.parametrize(
    ("rule", "outcome", "reason"),
    [
        (LatencyRule(max_instructions=1001), Outcome.PASS, "int8: 1,001 instructions, 1,001 allowed"),
        (LatencyRule(max_instructions=1000), Outcome.FAIL, "int8: 1,001 instructions"),
        (LatencyRule(max_instructions_ratio=1.01), Outcome.PASS, "int8: 1.0010 times the baseline's instructions"),
        (LatencyRule(max_instructions_ratio=1.0005), Outcome.FAIL, "int8: 1.0010 times"),
    ],
)
def test_counts_are_judged_exactly(rule: LatencyRule, outcome: Outcome, reason: str) -> None:
    """No interval: they do not vary."""
    (judged,) = judge_exact([rule], {"int8": Exact(1, Counts(1001, 1, 1, TOOL, baseline_instructions=1000))})
    assert judged.outcome is outcome
    assert judged.reasons[0].startswith(reason)


def test_what_was_not_counted_is_inconclusive() -> None:
    """Neither now, nor in the baseline, nor by the same tool."""
    ratio = LatencyRule(max_instructions_ratio=1.01)
    (judged,) = judge_exact([ratio], {"int8": Exact(1)})
    assert judged.reasons == ("int8: instructions were not counted; harness check --count",)
    (judged,) = judge_exact([ratio], {"int8": Exact(1, Counts(1001, 1, 1, TOOL))})
    assert judged.reasons == (f"int8: the baseline has no counts of it by {TOOL}",)
    assert judged.outcome is Outcome.INCONCLUSIVE
    with pytest.raises(SetupError, match="max_instructions_ratio needs a baseline"):
        load_baseline(None, [ratio])


def test_a_stored_count_is_judged_again(tmp_path: Path) -> None:
    """From the arrays; the baseline's is kept; and the record is a baseline for any other machine."""
    run = a_run({"int8.counts": ROWS, "int8.counts_tool": np.array(TOOL)})
    known = counts((ROWS, TOOL), Counts(1000, 1, 1, TOOL), "a test")
    cells = tuple(replace(cell, counts=known if cell.variant == "int8" else None) for cell in run.cells)
    path = tmp_path / "check.json"
    record.write(replace(run, cells=cells), path)
    (gate := tmp_path / "gate.toml").write_text("[[latency]]\nvariant = 'int8'\nmax_instructions_ratio = 1.0005")
    judged = rejudge(path, gate)
    assert judged.cells[1].counts == known
    assert judged.timing is not None
    assert judged.timing.verdict.outcome is Outcome.FAIL
    baseline = load_baseline(path, [])
    assert baseline is not None
    assert baseline.counts("int8") == known
