"""The benchmarks: which of them run when, and what the claims' document keeps. How fast anything is, is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.claims.conftest import HEADING, updated
from tests.conftest import ROOT


def collected(*options: str) -> tuple[int, str]:
    """Exit code and output of pytest's collection of the benchmarks."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", *options]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_claims_run_only_where_they_are_asked_for() -> None:
    """By default every variant on every accelerator; with -m claims, the claims alone."""
    code, shown = collected()
    assert code == 0, shown
    for name in ("test_load[float32-1]", "test_inference[int8@gpu-1]", "test_evaluation[dynamic_range@npu-1]"):
        assert f"benchmarks/test_models.py::{name}\n" in shown
    assert "benchmarks/claims/" not in shown
    code, shown = collected("-m", "claims")
    assert code == 0, shown
    assert "benchmarks/claims/test_conversion.py::test_cost\n" in shown
    assert "test_models.py" not in shown


def test_a_users_own_variants_are_benchmarked(tiny_variants: Path, tmp_path: Path) -> None:
    """Those of the folder named; one without a manifest is refused."""
    (tmp_path / "manifest.json").write_bytes((tiny_variants / "manifest.json").read_bytes())
    code, shown = collected("--models", str(tmp_path))
    assert code == 0, shown
    assert "test_load[dynamic_range-1]" in shown
    code, shown = collected("--models", str(tmp_path / "none"))
    assert code != 0
    assert "expected a manifest" in shown


def test_claims_are_kept_by_processor() -> None:
    """A run replaces its own claims in its own processor's table; the others stay."""
    first = updated(HEADING, "A, 2 cores", {"x": "| x | at most 1 | 2 | missed | day 1 |", "y": "| y | | 1 | met | |"})
    second = updated(first, "B, 4 cores", {"x": "| x | at most 1 | 1 | met | day 1 |"})
    third = updated(second, "A, 2 cores", {"x": "| x | at most 1 | 0.5 | met | day 2 |"})
    assert third.startswith(HEADING)
    assert third.index("## A, 2 cores") < third.index("| x | at most 1 | 0.5 | met | day 2 |") < third.index("## B")
    assert "| missed |" not in third
    assert "| y | | 1 | met | |" in third
    assert "| x | at most 1 | 1 | met | day 1 |" in third
    assert updated(third, "B, 4 cores", {}) == third
