"""One picture to choose by: each variant's loss of accuracy against its time, or its size if time was not measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from matplotlib import rcParams
from matplotlib.figure import Figure

from harness.core.outcome import Interval, Outcome
from harness.output.formats.recommend import recommend
from harness.output.formats.runs import Runs
from harness.output.report.style import OUTCOMES, bare
from harness.records.record import Record

ROOM = 0.35  # of the width, to the right of the last point, for its name
MARKERS = {Outcome.PASS: "o", Outcome.INCONCLUSIVE: "D", Outcome.FAIL: "X"}


@dataclass(frozen=True)
class Point:
    """A cell. cost: milliseconds or kilobytes. lost: points of accuracy, or of predictions without labels; at most
    `allowed`. dominated: another one that is no worse in verdict, cost and loss is better in one of these."""

    name: str
    outcome: Outcome
    cost: float
    lost: float
    interval: Interval
    allowed: float
    dominated: bool
    recommended: bool


@dataclass(frozen=True)
class Choice:
    """The cells of a record as points. cost, lost: names of the axes. limit: of cost; None if any is allowed."""

    points: tuple[Point, ...]
    cost: str
    lost: str
    limit: float | None

    @property
    def alt(self) -> str:
        shown = [
            f"{p.name} {p.outcome} at {p.cost:.3g}, {p.lost:.2f}, {p.interval.low:.2f} to {p.interval.high:.2f}"
            + " (dominated)" * p.dominated
            + " (recommended)" * p.recommended
            for p in self.points
        ]
        return f"{self.lost} against {self.cost}. {'; '.join(shown)}"


def choose(runs: Runs, device: str, record: Record) -> Choice | None:
    """None if fewer than two cells can be compared."""
    cells = [cell for cell in record.cells if cell.statistics]
    if len(cells) < 2:
        return None
    timed = all(cell.latency for cell in cells)
    labelled = all(cell.statistics and cell.statistics.drop_interval for cell in cells)
    rules = [rule for rule in record.policy.latency if rule.max_p90_s and any(rule.fits(cell.cell) for cell in cells)]
    by_p90 = timed and bool(rules) and all(cell.latency and cell.latency.p90 for cell in cells)
    shipped = {(best.accelerator, best.variant) for best in recommend(runs) if best.device == device}
    points: list[Point] = []
    for cell in cells:
        assert cell.statistics is not None
        proven, cost = cell.statistics, cell.size_bytes / 1000
        if timed and cell.latency:
            cost = 1000 * ((by_p90 and cell.latency.p90) or cell.latency.median)
        lost, interval, allowed = (
            proven.flip_share.low,
            proven.flip_share,
            record.policy.limits(cell.cell).max_flip_share,
        )
        if cell.parity:
            lost = cell.parity.flips / cell.parity.images
        if labelled and proven.drop is not None and proven.drop_interval:
            lost, interval, allowed = proven.drop, proven.drop_interval, proven.margin
        interval = Interval(100 * interval.low, 100 * interval.high)
        recommended = (cell.accelerator, cell.variant) in shipped
        points.append(
            Point(cell.name, cell.verdict.outcome, cost, 100 * lost, interval, 100 * allowed, False, recommended)
        )
    points = [replace(point, dominated=any(_better(other, point) for other in points)) for point in points]
    return Choice(
        tuple(points),
        ("90th percentile" if by_p90 else "median") + ", ms an inference" if timed else "size, KB",
        "points of accuracy below the reference" if labelled else "predictions that differ, %",
        1000 * min(rule.max_p90_s for rule in rules if rule.max_p90_s) if by_p90 else None,
    )


def _better(other: Point, point: Point) -> bool:
    severity = list(MARKERS)
    theirs, own = ((severity.index(p.outcome), p.cost, p.lost) for p in (other, point))
    return theirs != own and all(a <= b for a, b in zip(theirs, own, strict=True))


def draw(choice: Choice) -> Figure:
    """Points with intervals; what is allowed, in cost and loss; dominated ones grey, the recommended one bold."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    quiet, ink = rcParams["axes.labelcolor"], rcParams["text.color"]
    axes.axhline(0, color=quiet, linewidth=0.8)
    for allowed in sorted({point.allowed for point in choice.points}):
        label = "allowed" if allowed == min(point.allowed for point in choice.points) else None
        axes.axhline(allowed, color="C1", linewidth=1.5, linestyle="--", label=label)
    if choice.limit is not None:
        axes.axvline(choice.limit, color="C1", linewidth=1.5, linestyle=":", label="slowest allowed")
    below = False
    for point in sorted(choice.points, key=lambda point: (point.cost, point.lost)):
        colour = quiet if point.dominated else OUTCOMES[point.outcome]
        ends = [point.interval.low, point.interval.high]
        axes.plot([point.cost] * 2, ends, color=colour, linewidth=2, alpha=0.5 if point.dominated else 1)
        axes.plot(
            point.cost, point.lost, MARKERS[point.outcome], color=colour, markersize=9 if point.recommended else 6
        )
        axes.annotate(
            point.name + " \N{LEFTWARDS ARROW} ship" * point.recommended,
            (point.cost, point.lost),
            (8, -14 if below else 8),
            textcoords="offset points",
            color=quiet if point.dominated else ink,
            weight="bold" if point.recommended else "normal",
        )
        below = not below
    for outcome in dict.fromkeys(point.outcome for point in choice.points):
        axes.plot([], [], MARKERS[outcome], color=OUTCOMES[outcome], label=str(outcome))
    if any(point.dominated for point in choice.points):
        axes.plot([], [], "o", color=quiet, label="dominated")
    costs = [point.cost for point in choice.points] + ([] if choice.limit is None else [choice.limit])
    low, high = min(costs), max(costs)
    span = (high - low) or high
    axes.set_xlim(max(0, low - 0.08 * span), high + ROOM * span)
    axes.set(xlabel=choice.cost, ylabel=choice.lost)
    bare(axes, "y")
    figure.legend(loc="outside upper left", frameon=False, ncols=5, columnspacing=1, handletextpad=0.4)
    return figure
