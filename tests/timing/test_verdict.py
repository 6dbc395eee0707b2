"""From a run's arrays to latency figures and their verdict, and through the record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.outcome import Interval, Outcome, Verdict
from harness.judge.policy import LatencyRule
from harness.records import record
from harness.records.baseline import Baseline, load_baseline
from harness.run.job import Machine
from harness.run.latency_plan import LatencyPlan
from harness.run.latency_run import latency_run
from harness.run.worker import CONTROL, STATE
from harness.timing import limits, verdict
from harness.timing.figures import AAControl, DisturbedBlock, Latency, Memory, Ratio, Timing
from harness.timing.limits import Exact
from tests.conftest import refusal
from tests.records.sample import a_run

KINDS = ("float32", "int8", CONTROL)
ROUNDS, COUNT = 6, 20


def process(
    number: int, *, speed: float = 1.0, control: float = 1.0, busy: float = 0.0, blocks: int = 2 * ROUNDS
) -> dict[str, Any]:
    """What a worker writes: float32 at 4 ms and int8 at 2 ms / speed, noise of 1 %, each in 12 blocks of 20."""
    rng = np.random.default_rng(number)
    first = number % 2
    kinds = [*KINDS[first:], *KINDS[:first]]
    times = {"float32": 4e-3, "int8": 2e-3, CONTROL: 2e-3 * control}
    arrays: dict[str, Any] = {"kinds": np.array(kinds), "control": np.array("int8"), "cores": np.array([1])}
    arrays |= {"governor": np.array("unavailable"), "memory": np.array([3e6, 2e6])}
    for kind, seconds in times.items():
        noise = np.exp(rng.normal(0, 0.01, (blocks, COUNT)) + rng.normal(0, 0.005, (blocks, 1)))
        arrays[f"{kind}.samples"] = seconds / speed * noise
        arrays |= {f"{kind}.load": np.array(0.01 * (1 + kinds.index(kind))), f"{kind}.first": np.array(0.02)}
        arrays |= {f"{kind}.warmup": np.ones(10), f"{kind}.settled": np.array(True)}
    total = blocks * len(kinds)
    arrays["order"] = np.tile([0, 1, 2, 2, 1, 0], total // 6)
    state = np.full((total, 3, len(STATE)), np.nan)
    clock = np.arange(3 * total).reshape(total, 3) * 0.04
    state[:, :, STATE.index("clock_s")] = state[:, :, STATE.index("cpu_s")] = clock
    state[:, :, STATE.index("others_s")] = busy * clock
    return arrays | {"state": state}


def judged(
    runs: Sequence[dict[str, Any]], rules: Sequence[LatencyRule] = (), **more: Any
) -> tuple[dict[str, Latency], Timing]:
    measured = [latency_run(arrays, "a test") for arrays in runs]
    figures = verdict.by_mode(measured)
    return figures.get("steady", {}), verdict.judge(measured, figures, 1, rules, **more)


def test_figures_of_five_processes() -> None:
    """Medians with intervals, the percentiles that 1,200 samples bear, starts from where a variant was loaded first."""
    figures, timing = judged([process(number) for number in range(5)])
    assert list(figures) == ["float32", "int8"]
    int8 = figures["int8"]
    assert int8.median == pytest.approx(2e-3, rel=0.01)
    assert int8.median_interval is not None
    assert int8.median_interval.low < 2e-3 < int8.median_interval.high
    assert int8.p99 is not None
    assert (int8.samples, int8.processes, int8.load) == (1200, 5, 0.01)
    assert int8.memory == Memory(3_000_000, 2_000_000)
    (ratio,) = timing.ratios
    assert (ratio.cell, ratio.base) == ("int8", "float32")
    assert ratio.ratio == pytest.approx(0.5, rel=0.01)
    assert timing.control is not None
    assert timing.control.passes
    assert timing.verdict.outcome is Outcome.PASS
    assert not timing.gated
    assert timing.machine["frequency_hz"] == "unavailable"


@pytest.mark.parametrize(
    ("blocks", "given"), [(2, (False, False, False)), (4, (True, False, False)), (8, (True, True, False))]
)
def test_percentiles_need_samples(blocks: int, given: tuple[bool, ...]) -> None:
    """64 for p90, 130 for p95, 662 for p99: here are 40, 80 and 160."""
    figures, _ = judged([process(0, blocks=blocks)])
    int8 = figures["int8"]
    assert tuple(value is not None for value in (int8.p90, int8.p95, int8.p99)) == given


def test_an_uneven_control_is_inconclusive_and_says_why() -> None:
    """The same file 5 % slower the second time: no figure of this run can be trusted, whatever the limits say."""
    rules = [LatencyRule(max_p90_s=1.0)]
    _, timing = judged([process(number, control=1.05) for number in range(5)], rules)
    assert timing.verdict.outcome is Outcome.INCONCLUSIVE
    assert "the A/A control does not pass: int8's file twice: ratio 1.05" in timing.verdict.reasons[0]
    assert timing.gated


def test_a_busy_machine_is_marked_and_inconclusive() -> None:
    """Others keep a core busy in two of five processes: their blocks are marked, and that is too many."""
    _, timing = judged([process(number, busy=0.9 * (number > 2)) for number in range(5)])
    assert {block.process for block in timing.disturbed} == {4, 5}
    assert timing.disturbed[0].disturbances == ("other programs kept 90% of its cores busy",)
    assert timing.verdict.outcome is Outcome.INCONCLUSIVE
    assert "72 of 180 blocks" in timing.verdict.reasons[0]


def test_throttling_and_lost_frequency_are_marked() -> None:
    """A block at 1.8 of 2.4 GHz, one with a bit of the Raspberry Pi's set, one that was mostly waiting."""
    run = process(0)
    run["state"][:, :, STATE.index("frequency_hz")] = 2.4e9
    run["state"][4, 1, STATE.index("frequency_hz")] = 1.8e9
    run["state"][:, :, STATE.index("throttled")] = 0
    run["state"][5, 2, STATE.index("throttled")] = 4
    run["state"][6, 2, STATE.index("cpu_s")] -= 0.04
    _, timing = judged([run])
    assert [(block.block, block.disturbances) for block in timing.disturbed] == [
        (4, ("frequency fell to 1.80 of 2.40 GHz",)),
        (5, ("throttled: 0x4",)),
        (6, ("had a core 50% of the time",)),
    ]
    assert timing.machine["frequency_hz"] == {"lowest": 1.8e9, "median": 2.4e9, "highest": 2.4e9}


@pytest.mark.parametrize(
    ("p90_s", "outcome"), [(2.2e-3, Outcome.PASS), (1.9e-3, Outcome.FAIL), (None, Outcome.INCONCLUSIVE)]
)
def test_the_budget_gates(p90_s: float | None, outcome: Outcome) -> None:
    """Kept or broken where the whole interval is; a budget within the interval is not decided."""
    runs = [process(number) for number in range(5)]
    budget = p90_s or judged(runs)[0]["int8"].p90
    assert budget is not None
    _, timing = judged(runs, [LatencyRule(variant="int8", max_p90_s=budget)])
    assert (timing.verdict.outcome, timing.gated) == (outcome, True)
    assert "int8: p90 2" in timing.verdict.reasons[0]
    assert verdict.overall([Verdict(Outcome.PASS, ())], timing) is outcome


def test_a_figure_without_an_interval_decides_nothing() -> None:
    """One block of 100 inferences, or a baseline that had one: within the limit or beyond it, INCONCLUSIVE."""
    one_block, measured = figures_of_one_block(2e-3), Interval(0.9, 1.1)
    for limit in (1e-3, 3e-3):
        (judged_rule,) = limits.judge([LatencyRule(max_p90_s=limit)], {"steady": {"int8": one_block}}, [])
        assert judged_rule.outcome is Outcome.INCONCLUSIVE
        assert "no interval; measure for longer" in judged_rule.reasons[0]
    for ratio in (0.5, 2.0):
        change = Ratio("int8", "baseline.json", ratio, None)
        (judged_rule,) = limits.judge([LatencyRule(max_ratio=1.05)], {"steady": {"int8": one_block}}, [change])
        assert judged_rule.outcome is Outcome.INCONCLUSIVE
        assert "no interval; measure for longer" in judged_rule.reasons[0]
    (judged_rule,) = limits.judge(
        [LatencyRule(max_ratio=1.2)], {"steady": {"int8": one_block}}, [Ratio("int8", "baseline.json", 1.0, measured)]
    )
    assert judged_rule.outcome is Outcome.PASS


def figures_of_one_block(seconds: float) -> Latency:
    return Latency(seconds, None, seconds, None, None, None, 0.2, 0.3, 100, 1)


def test_a_limit_for_a_cell_that_was_not_measured_is_inconclusive() -> None:
    """As of an accelerator that the processor imitates; a cell that the rule does not name needs no figure."""
    measured = [process(number) for number in range(5)]
    rules = [LatencyRule(accelerator="gpu", max_p90_s=1)]
    cells = dict.fromkeys(["float32", "int8", "int8@gpu"], Exact(1000))
    _, timing = judged(measured, rules, cells=cells)
    assert timing.verdict.outcome is Outcome.INCONCLUSIVE
    assert timing.verdict.reasons == ("int8@gpu: latency was not measured",)
    _, timing = judged(measured, [LatencyRule(accelerator="cpu", max_p90_s=1)], cells=cells)
    assert timing.verdict.outcome is Outcome.PASS


def test_rules_are_for_the_cells_that_they_name() -> None:
    """By variant and by accelerator, with *."""
    measured = dict.fromkeys(("int8", "int8@gpu", "float32"), figures_of_one_block(1))
    for rule, names in (
        (LatencyRule(max_p90_s=1), ["int8", "int8@gpu", "float32"]),
        (LatencyRule(variant="int8", max_p90_s=1), ["int8", "int8@gpu"]),
        (LatencyRule(accelerator="cpu", max_p90_s=1), ["int8", "float32"]),
        (LatencyRule(variant="int*", accelerator="gpu*", max_p90_s=1), ["int8@gpu"]),
    ):
        assert [text.reasons[0].split(":")[0] for text in limits.judge([rule], {"steady": measured}, [])] == names


def test_rules_are_for_the_devices_that_they_name() -> None:
    """By address, host name or processor, with *."""
    rules = [
        LatencyRule(device="adb://*", max_p90_s=1),
        LatencyRule(device="*Cortex-A76*", max_p90_s=1),
        LatencyRule(max_p90_s=1),
    ]
    names = limits.device_names(Machine(host="pi", processor="Raspberry Pi 5, Cortex-A76"), "local")
    assert limits.rules_for(rules, names) == rules[1:]


def test_without_a_gate_latency_does_not_touch_the_outcome() -> None:
    """Noise is a note; a crash is not."""
    passed = [Verdict(Outcome.PASS, ())]
    _, noisy = judged([process(number, control=1.05) for number in range(5)])
    assert verdict.overall(passed, noisy) is Outcome.PASS
    _, crashed = judged([process(0)], failures=[Verdict(Outcome.FAIL, ("int8: exit code -11",))])
    assert verdict.overall(passed, crashed) is Outcome.FAIL
    assert crashed.verdict.reasons == ("int8: exit code -11",)


HERE = Machine(host="here", processor="P", machine="m", cores=2)


def timed_record(folder: Path, runs: Sequence[dict[str, Any]]) -> Path:
    """A stored record with these runs' latency."""
    base = a_run({f"latency.{n}.{k}": v for n, run in enumerate(runs, start=1) for k, v in run.items()})
    figures, timing = judged(runs)
    cells = tuple(replace(cell, latency=figures.get(cell.name)) for cell in base.cells)
    path = folder / "baseline.json"
    record.write(replace(base, cells=cells, timing=timing, machine=HERE, plan=LatencyPlan()), path)
    return path


def test_a_baseline_of_this_host_gates_the_change(tmp_path: Path) -> None:
    """7 % slower than before breaks a limit of 1.02 and keeps one of 1.2."""
    path = timed_record(tmp_path, [process(number) for number in range(5)])
    rules = [LatencyRule(variant="int8", max_ratio=1.02)]
    baseline = load_baseline(path, rules)
    assert baseline is not None
    baseline.check(HERE, threads=1)
    runs = [process(number, speed=1 / 1.07) for number in range(5)]
    changes = baseline.changes(judged(runs)[0])
    assert {change.cell for change in changes} == {"float32", "int8"}
    _, slower = judged(runs, rules, changes=changes)
    assert slower.verdict.outcome is Outcome.FAIL
    assert "int8: 1.07" in slower.verdict.reasons[0]
    _, allowed = judged(runs, [LatencyRule(variant="int8", max_ratio=1.2)], changes=changes)
    assert allowed.verdict.outcome is Outcome.PASS


def test_other_hosts_threads_and_damaged_baselines_are_refused(tmp_path: Path) -> None:
    """Each in one line that says what to do."""
    path = timed_record(tmp_path, [process(0)])
    baseline = Baseline(path, record.read(path))
    with pytest.raises(SetupError, match="host is 'here', here it is 'there'"):
        baseline.check(replace(HERE, host="there"), threads=1)
    with pytest.raises(SetupError, match="measured with 1 threads"):
        baseline.check(HERE, threads=2)
    with pytest.raises(SetupError, match=r"needs a baseline: expected --baseline RECORD\.json"):
        load_baseline(None, [LatencyRule(max_ratio=1.05)])
    record.write(a_run(), tmp_path / "untimed.json")
    with pytest.raises(SetupError, match="holds no latency"):
        load_baseline(tmp_path / "untimed.json", [])
    path.write_text(path.read_text().replace("harness-record/4", "harness-record/9"))
    with pytest.raises(SetupError, match="schema 'harness-record/9'"):
        load_baseline(path, [])
    path.write_text("{")
    with pytest.raises(SetupError, match="not valid JSON"):
        load_baseline(path, [])


def test_a_stored_run_gives_the_same_latency_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived from the arrays, not read; another policy's budget is applied to it."""
    path = timed_record(tmp_path, [process(number) for number in range(5)])
    assert main(["verdict", str(path)]) == 0
    gate = tmp_path / "gate.toml"
    gate.write_text("[[latency]]\nmax_p90_s = 0.003")
    assert main(["verdict", str(path), "--policy", str(gate)]) == 1
    assert "float32: p90 4" in capsys.readouterr().out


def test_figures_survive_the_record() -> None:
    """What is written as JSON is read back as it was."""
    figures = Latency(1.5, Interval(1.4, 1.6), 1.9, None, 1.95, None, 0.2, 0.3, 700, 5, Memory(3000, 2000), ("drifts",))
    timing = Timing(
        verdict=Verdict(Outcome.INCONCLUSIVE, ("uneven",)),
        gated=False,
        control=AAControl("int8", 1.1, Interval(1.05, 1.15), passes=False),
        ratios=(Ratio("int8", "float32", 0.5, Interval(0.4, 0.6)), Ratio("dynamic_range", "float32", 0.7, None)),
        processes=2,
        blocks=48,
        disturbed=(DisturbedBlock(1, 3, "int8", ("frequency fell",)),),
        machine={"frequency_hz": "unavailable", "temperature_c": {"lowest": 40.0, "median": 41.0, "highest": 50.0}},
        changes=(Ratio("int8", "baseline.json", 1.02, Interval(1.0, 1.04)),),
    )
    assert shapes.decode(shapes.encode(figures), Latency, "a record") == figures
    assert shapes.decode(shapes.encode(timing), Timing, "a record") == timing


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--processes", "0"], "--processes 0: expected a whole number, at least 1"),
        (["--cooldown", "-1"], "--cooldown -1: expected seconds, at least 0"),
        (["--threads", "0"], "--threads 0: expected a whole number, at least 1"),
    ],
)
def test_impossible_plans_are_refused(asked: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero runs, zero threads."""
    assert said in refusal(capsys, main(["check", *asked]))
