"""Google's benchmark_model beside the harness: the user's own binary, run on the device with the user's own flags."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import SetupError
from harness.run.devices.base import Device
from harness.run.job import FILES, Job

TIMEOUT_S = 600.0
_TIMES = re.compile(
    r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+), Warmup \(avg\): ([\d.e+]+), "
    r"Inference \(avg\): ([\d.e+]+)"
)


@dataclass(frozen=True)
class BenchmarkModel:
    """A binary for the device's processor, and flags for it such as --use_gpu=true or --use_nnapi=true."""

    binary: Path
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.binary.is_file():
            raise SetupError(f"{self.binary}: expected the benchmark_model binary for the device; there is none")


def run(device: Device, wanted: BenchmarkModel, job: Job, kinds: Sequence[str], threads: int) -> dict[str, Any]:
    """By kind: the flags, ours unless the user set them, and seconds to initialise, of the first, the warm-up's and the
    average inference, as the binary says; where it says none, why. Raises UnreachableError."""
    digests = {
        kind: digest
        for task in json.loads(job.plan.read_text())["tasks"]
        for kind, (_, digest) in task["variants"].items()
    }
    own = (f"--num_threads={threads}", "--use_xnnpack=true", "--num_runs=300", "--warmup_min_secs=0.5")
    named = {flag.partition("=")[0] for flag in wanted.flags}
    flags = (*(flag for flag in own if flag.partition("=")[0] not in named), *wanted.flags)
    found: dict[str, Any] = {}
    for kind in kinds:
        if kind not in digests:
            continue
        done = device.program(wanted.binary, [f"--graph={{{FILES}}}/{digests[kind]}", *flags], job, TIMEOUT_S)
        said = done.out + done.error
        figures: dict[str, Any] = {"flags": shlex.join(flags)}
        if done.code == 0 and (times := _TIMES.search(said)):
            names = ("init_s", "first_s", "warmup_s", "inference_s")
            figures |= {name: float(value) / 1e6 for name, value in zip(names, times.groups(), strict=True)}
        else:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            figures["problem"] = f"exit code {done.code}: {last}"
        found[kind] = figures
    return found


def notes(found: dict[str, Any], ours: Mapping[str, float]) -> tuple[str, ...]:
    """The same for a person, a line each. ours: median seconds by kind."""
    lines = []
    for kind, figures in found.items():
        name = f"benchmark_model {figures['flags']}".strip()
        if "problem" in figures:
            lines.append(f"{kind}: {name} gave no times: {figures['problem']}")
        else:
            milliseconds = figures["inference_s"] * 1e3
            beside = f"; ours: {ours[kind] * 1e3:.2f} ms, median" if kind in ours else ""
            lines.append(f"{kind}: {name} says {milliseconds:.2f} ms on average, of random input{beside}")
    return tuple(lines)
