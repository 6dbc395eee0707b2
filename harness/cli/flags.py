"""Flags that several verbs share, and their defaults."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import SetupError

if TYPE_CHECKING:
    from harness.check.pipeline import Subject
    from harness.cluster.security import Keys
    from harness.core.progress import Progress
    from harness.judge.policy import Policy
    from harness.run.latency_plan import LatencyPlan

MODEL = Path("models/resnet164.keras")
MODELS = Path("models/tflite")
DATA = Path("data/test")
CALIBRATION = Path("data/calibration")
RECORD = Path("runs/check.json")


def add_models(parser: argparse.ArgumentParser, what: str = "folder of variants") -> None:
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help=f"{what} (default: %(default)s)")


def add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference", type=Path, default=MODEL, metavar="MODEL", help="the Keras model (default: %(default)s)"
    )


def add_variants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variants", type=names, metavar="KINDS", help="comma-separated (default: all in the manifest)"
    )


def add_runtime(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="PYTHON",
        help=f"another Python, with an older runtime such as tflite-runtime, to {what}; may be repeated",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="images named <class>_<n>.<ext> or <class>/<name>, a class by name or number (default: %(default)s)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be used, and count them")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-config",
        type=Path,
        metavar="FILE",
        help="the model's class names and pixels (default: MODEL's name ending in .toml, where it is there)",
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module that registers layers of the model's own; runs its code; may be repeated",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="limits of your own (default: what harness policy prints)"
    )


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="have the devices of a lab's workers do it (harness lab); default: this machine",
    )
    add_tls(parser)


def add_tls(parser: argparse.ArgumentParser) -> None:
    for name, what in (("ca", "the lab's authority"), ("cert", "this host's certificate"), ("key", "its key")):
        parser.add_argument(
            f"--tls-{name}", type=Path, metavar="FILE", help=f"PEM file of {what}, for tls:// addresses"
        )


def tls(options: argparse.Namespace) -> Keys:
    from harness.cluster.security import Keys

    return Keys(options.tls_ca, options.tls_cert, options.tls_key)


def add_latency(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a short look at latency: wide intervals, few percentiles")
    how.add_argument(
        "--mlperf",
        action="store_true",
        help="latency as MLPerf's single stream: each variant alone, 1,024 inferences and 60 s, after 300 s of rest",
    )
    how.add_argument("--no-latency", action="store_true", help="judge the answers only")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="interpreter threads for latency (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="fresh processes that measure latency one after the other (default: 5)",
    )
    parser.add_argument("--cooldown", type=float, metavar="S", help="seconds of rest before each of them (default: 0)")
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="RECORD",
        help="record of an earlier check of this host, to compare latency with",
    )


def subject(options: argparse.Namespace, limits: Policy, progress: Progress) -> Subject:
    """What is checked, by the flags of `add_models`, `add_reference`, `add_variants` and `add_data`."""
    from harness.check import pipeline
    from harness.output import terminal

    return pipeline.prepare(
        options.models,
        options.reference,
        options.data,
        terminal.step,
        progress,
        kinds=options.variants,
        limits=limits,
        skip_bad=options.skip_bad,
    )


def check_threads(threads: int) -> int:
    """The number, where this machine has as many cores. Raises SetupError."""
    from harness.run import worker

    cores = worker.cores()
    if not 1 <= threads <= cores:
        raise SetupError(f"--threads {threads}: expected 1 to {cores}, the cores that this process may use")
    return threads


def latency_plan(options: argparse.Namespace) -> LatencyPlan | None:
    """The plan that the flags of `add_latency` ask for. Raises SetupError: zero runs, more threads than cores."""
    from harness.run.latency_plan import MLPERF, QUICK, LatencyPlan

    if options.threads < 1:
        raise SetupError(f"--threads {options.threads}: expected at least 1")
    if options.no_latency:
        return None
    own = {name: value for name in ("processes", "cooldown") if (value := getattr(options, name)) is not None}
    for name, value in own.items():
        if value < (least := 1 if name == "processes" else 0):
            raise SetupError(f"--{name} {value:g}: expected at least {least}; --no-latency measures none")
    plan = MLPERF if options.mlperf else QUICK if options.quick else LatencyPlan()
    return replace(
        plan,
        threads=options.threads,
        processes=own.get("processes", plan.processes),
        cooldown_s=own.get("cooldown", plan.cooldown_s),
    )


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
