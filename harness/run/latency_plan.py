"""How latency is sampled: see docs/latency.md."""

from __future__ import annotations

from typing import Literal

from msgspec import structs

from harness.core.errors import SetupError
from harness.core.shapes import Shape

# steady: short blocks of all variants in turn; sustained: one for minutes without a pause; paced: a pause before each
# inference, as in an app; cold: load and first inference in a fresh process, its file dropped from memory.
# energy: as steady, in blocks that are long enough for the device's meter.
Mode = Literal["steady", "sustained", "paced", "cold", "energy"]

MINUTE_S, MAX_BUCKETS = 60.0, 10  # a sustained run is shown by the minute; one of less than ten minutes by its tenths
PACED_PROCESSES, PACED_TURNS, PACED_BLOCK = 4, 2, 4  # two blocks a turn: 64 inferences, which a p90 needs


class LatencyPlan(Shape):
    """How latency is sampled: see docs/latency.md. Counts and seconds are of each variant in each process.

    alone: each variant in a process of its own, not interleaved, without a control. min_starts: of each variant, the
    processes in which it is the first to be loaded. sustain_s, pace_s (the pause), cold_starts (fresh processes),
    energy_block_s: what the other modes do, each after the steady one; 0: not at all.
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
    min_starts: int = 0
    sustain_s: float = 0.0
    pace_s: float = 0.0
    cold_starts: int = 0
    energy_block_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in structs.asdict(self).items():
            minimum = 1 if name in ("processes", "turns", "threads") else 0
            if value < minimum:
                raise SetupError(f"latency plan: {name} = {value}: expected at least {minimum}")

    @property
    def bucket_s(self) -> float:
        """Seconds that a point of the sustained curve stands for: a minute, or a tenth of a short run."""
        return min(MINUTE_S, self.sustain_s / MAX_BUCKETS)

    def modes(self) -> dict[Mode, LatencyPlan]:
        """The plan of each mode that is asked for, the steady one first."""
        alone = structs.replace(self, turns=1, warmup_s=0.0, min_samples=0, min_s=0.0, cooldown_s=0.0, alone=True)
        plans: dict[Mode, LatencyPlan] = {"steady": self}
        if self.sustain_s:
            block_s = min(0.2, self.bucket_s / 10)
            plans["sustained"] = structs.replace(
                alone, processes=1, block_s=block_s, min_s=self.sustain_s, cooldown_s=self.cooldown_s
            )
        if self.pace_s:
            plans["paced"] = structs.replace(alone, processes=PACED_PROCESSES, turns=PACED_TURNS)
        if self.cold_starts:
            plans["cold"] = structs.replace(alone, processes=self.cold_starts)
        if self.energy_block_s:
            plans["energy"] = structs.replace(alone, processes=1, block_s=self.energy_block_s, alone=False)
        return plans


QUICK = LatencyPlan(processes=3, turns=1, block_s=0.02, warmup_s=0.1)


MLPERF = LatencyPlan(
    processes=1, turns=1, block_s=1.0, warmup_s=1.0, min_samples=1024, min_s=60.0, cooldown_s=300.0, alone=True
)
