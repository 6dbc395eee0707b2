"""An accelerator that leaves operations to the CPU: FAIL by default, with the operations named."""

from __future__ import annotations

from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict
from harness.judge import policy
from harness.judge.predictions import Judged, accelerated
from harness.run.job import Ran

LEFT = Ran("gpu", "ai-edge-litert 2.3.0", operations=13, taken=5, not_taken=("ARG_MAX: INT64",), fell_back=True)
LIMITS = policy.load().limits(Cell("float32", "gpu"))
PASSED = Judged(Verdict(Outcome.PASS, ()))


def test_operations_that_are_left_to_the_cpu_fail() -> None:
    """However well the predictions agree."""
    judged = accelerated(PASSED, LEFT, LIMITS)
    assert judged.verdict.outcome is Outcome.FAIL
    assert [check.rule for check in judged.checks] == ["require_full_acceleration"]
    assert judged.verdict.reasons[0] == "gpu took 5 of 13 operations, the CPU ran the others: ARG_MAX: INT64"


def test_full_acceleration_and_the_cpu_change_nothing() -> None:
    """All taken; no accelerator; a record that does not say what ran."""
    for ran in (Ran("gpu", "", operations=13, taken=13), Ran("cpu", ""), None):
        assert accelerated(PASSED, ran, LIMITS) is PASSED


def test_a_policy_may_allow_it() -> None:
    """require_full_acceleration = false."""
    allowed = policy.Limits(
        **{name: getattr(LIMITS, name) for name in LIMITS.__struct_fields__} | {"require_full_acceleration": False}
    )
    assert accelerated(PASSED, LEFT, allowed) is PASSED
