"""Google's benchmark_model beside the harness: the user's own binary, run on the device with the user's own flags.

Both tools of that name are understood: TensorFlow Lite's, and LiteRT's, which prints other lines. If the tool can write
its figures to a file (--result_file_path), they come from there: what it prints is rounded.
"""

from __future__ import annotations

import io
import json
import math
import re
import shlex
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from harness.core.errors import SetupError
from harness.run.devices import shell
from harness.run.devices.base import RESULT, BenchmarkFigures, Device
from harness.run.job import FILES, Job

TIMEOUT_S = 600.0
DEFAULT_FLAGS = ("--use_xnnpack=true", "--num_runs=300", "--warmup_min_secs=0.5")
RESULT_FLAG = "--result_file_path"

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_TFLITE = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}"
)
_LITERT = {
    "init_s": re.compile(rf"Model initialization: +{_NUMBER} ms"),
    "first_s": re.compile(rf"Warmup \(first\): +{_NUMBER} ms"),
    "warmup_s": re.compile(rf"Warmup \(avg\): +{_NUMBER} ms"),
    "inference_s": re.compile(rf"Inference \(avg\): +{_NUMBER} ms \(\d+ runs\)"),
    "min_s": re.compile(rf"Inference \(min\): +{_NUMBER} ms"),
    "max_s": re.compile(rf"Inference \(max\): +{_NUMBER} ms"),
}
PROFILE_FLAG = "--enable_op_profiling=true"
# Type, start (of older versions), first, average, share, sum of shares, memory, times called, name.
_STEP = re.compile(r"\s*(\S.*?)(?:\s+[\d.]+){1,2}\s+([\d.]+)(?:\s+[\d.]+%){2}\s+-?[\d.]+\s+(\d+)\s+(\S.*)")
_RUNS = re.compile(r"Inference \(avg\): .*\((\d+) runs\)")
# Field numbers in tflite/tools/benchmark/proto/benchmark_result.proto.
_LATENCY, _MISC, _NUM_RUNS = 2, 4, 2
_LATENCY_MS = {1: "inference_s", 2: "min_s", 3: "max_s", 5: "median_s", 6: "p5_s", 7: "p95_s", 8: "init_s",
               9: "first_s", 10: "warmup_s"}  # fmt: skip


@dataclass(frozen=True)
class BenchmarkModel:
    """A binary for the device's processor, and flags for it such as --use_gpu=true."""

    binary: Path
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.binary.is_file():
            raise SetupError(f"{self.binary}: expected the benchmark_model binary for the device; there is none")


def run(
    device: Device, wanted: BenchmarkModel, job: Job, kinds: Sequence[str], threads: int
) -> dict[str, BenchmarkFigures]:
    """By kind, with our flags unless the user set them. Raises UnreachableError."""
    digests = {
        kind: digest
        for task in json.loads(job.plan.read_text())["tasks"]
        for kind, (_, digest) in task["variants"].items()
    }
    named = {flag.partition("=")[0] for flag in wanted.flags}
    defaults = [f"--num_threads={threads}", *DEFAULT_FLAGS]
    flags = [*(flag for flag in defaults if flag.partition("=")[0] not in named), *wanted.flags]
    if _on(wanted.flags, "require_full_delegation") and "--use_cpu" not in named:
        flags.append("--use_cpu=false")  # its default is true, with which the tool aborts
    to_file = [] if RESULT_FLAG in named else [f"{RESULT_FLAG}={RESULT}"]
    results = {}
    for kind in kinds:
        if kind in digests:
            graph = f"--graph={{{FILES}}}/{digests[kind]}"
            done = device.program(wanted.binary, [graph, *to_file, *flags], job, TIMEOUT_S)
            results[kind] = figures(done.code, done.out + done.error, done.result, shlex.join(flags))
    return results


def _on(flags: Sequence[str], name: str) -> bool:
    return any(flag in (f"--{name}", f"--{name}=true", f"--{name}=1") for flag in flags)


def figures(code: int, printed: str, result: bytes, flags: str) -> BenchmarkFigures:
    """What the tool measured, from all that it printed and the result file that it wrote, if any."""
    values: dict[str, float] = {}
    if times := _TFLITE.search(printed):
        names = ("init_s", "first_s", "warmup_s", "inference_s")
        values = {name: float(value) / 1e6 for name, value in zip(names, times.groups(), strict=True)}
    values |= {name: float(match[1]) / 1e3 for name, pattern in _LITERT.items() if (match := pattern.search(printed))}
    runs = int(match[1]) if (match := _RUNS.search(printed)) else None
    try:
        message = _message(result)
        latency, misc = (_message(message.get(number, b"")) for number in (_LATENCY, _MISC))
        stored = {name: latency[number] for number, name in _LATENCY_MS.items() if number in latency}
        values |= {name: struct.unpack("<f", value)[0] / 1e3 for name, value in stored.items()}
        runs = int.from_bytes(misc[_NUM_RUNS], "little") if _NUM_RUNS in misc else runs
    except (ValueError, LookupError, struct.error):
        pass  # not such a file: what was printed counts
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    if code or "inference_s" not in values:
        return BenchmarkFigures(flags, problem=f"exit code {code}: {shell.plain(printed) or 'it printed nothing'}")
    return structs.replace(BenchmarkFigures(flags, runs=runs), **values)


@dataclass(frozen=True)
class ProfiledStep:
    """A kernel that a profiler timed, in the order of execution."""

    kernel: str
    delegated: bool
    seconds: float


def operations(device: Device, wanted: BenchmarkModel, job: Job, name: str) -> list[ProfiledStep]:
    """Where the time of one of a job's files goes, by the tool's own profiler. Raises SetupError, UnreachableError."""
    (digest,) = (task["variants"][name][1] for task in json.loads(job.plan.read_text())["tasks"])
    flags = [f"--graph={{{FILES}}}/{digest}", "--num_threads=1", *DEFAULT_FLAGS, *wanted.flags, PROFILE_FLAG]
    done = device.program(wanted.binary, flags, job, TIMEOUT_S)
    if steps := profiled_steps(done.out + done.error):
        return steps
    reason = shell.plain(done.error or done.out) or "it printed nothing"
    raise SetupError(
        f"{wanted.binary}: printed no table of operations (exit code {done.code}: {reason}); expected TensorFlow "
        f"Lite's benchmark_model, which takes {PROFILE_FLAG}"
    )


def profiled_steps(printed: str) -> list[ProfiledStep]:
    """The rows of the last table "Run Order", which is that of the inferences; the first is that of the start.

    A delegate's kernels stand in rows of their own, named Delegate/..., or it is one row of type ...Delegate.
    """
    _, _, table = printed.rpartition(" Run Order ==")
    steps = []
    for line in table.partition("Top by Computation Time")[0].splitlines():
        if row := _STEP.match(line):
            kernel, average_ms, times, name = row.groups()
            delegated = name.startswith("Delegate/") or kernel.endswith("Delegate")
            steps.append(ProfiledStep(kernel, delegated, float(average_ms) * int(times) / 1e3))
    return steps


def _message(content: bytes) -> dict[int, bytes]:
    """The last value of each field of a protocol-buffer message, little-endian. Raises ValueError, LookupError."""
    stream = io.BytesIO(content)

    def take(size: int) -> bytes:
        if len(value := stream.read(size)) < size:
            raise ValueError("cut short")
        return value

    def varint() -> int:
        number = 0
        for shift in range(0, 64, 7):
            (byte,) = take(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        return number

    fields = {}
    while stream.tell() < len(content):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            fields[number] = varint().to_bytes(10, "little")
        else:
            fields[number] = take(varint() if kind == 2 else {1: 8, 5: 4}[kind])
    return fields


def notes(results: Mapping[str, BenchmarkFigures], ours: Mapping[str, float]) -> tuple[str, ...]:
    """The same for a person, a line each. ours: median seconds by kind."""
    lines = []
    for kind, tool in results.items():
        name = f"benchmark_model {tool.flags}".strip()
        if tool.inference_s is None:
            lines.append(f"{kind}: {name} gave no times: {tool.problem}")
        else:
            beside = f"; ours: {ours[kind] * 1e3:.2f} ms, median" if kind in ours else ""
            lines.append(f"{kind}: {name} measured {tool.inference_s * 1e3:.2f} ms on average, of random input{beside}")
    return tuple(lines)
