"""How latency is sampled: see docs/latency.md."""

from __future__ import annotations

from msgspec import structs

from harness.core.errors import SetupError
from harness.core.shapes import Shape


class LatencyPlan(Shape):
    """How latency is sampled: see docs/latency.md. Counts and seconds are of each variant in each process.

    alone: each variant in a process of its own, not interleaved, without a control.
    """

    processes: int = 5
    turns: int = 2
    block_s: float = 0.04
    warmup_s: float = 0.3
    min_samples: int = 0
    min_s: float = 0.0
    cooldown_s: float = 0.0
    threads: int = 1
    alone: bool = False

    def __post_init__(self) -> None:
        for name, value in structs.asdict(self).items():
            minimum = 1 if name in ("processes", "turns", "threads") else 0
            if value < minimum:
                raise SetupError(f"latency plan: {name} = {value}: expected at least {minimum}")


QUICK = LatencyPlan(processes=3, turns=1, block_s=0.02, warmup_s=0.1)


MLPERF = LatencyPlan(
    processes=1, turns=1, block_s=1.0, warmup_s=1.0, min_samples=1024, min_s=60.0, cooldown_s=300.0, alone=True
)
