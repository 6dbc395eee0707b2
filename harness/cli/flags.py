"""Flags that several verbs share, each described once, and what they stand for."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import cell
from harness.core.cell import Accelerator
from harness.core.errors import SetupError

if TYPE_CHECKING:
    from harness.check.subject import Subject
    from harness.cluster.security import Keys
    from harness.judge.policy import Policy
    from harness.records.baseline import Baseline
    from harness.run.devices.benchmark_model import BenchmarkModel
    from harness.run.latency_plan import LatencyPlan

MODEL = Path("models/resnet164.keras")
MODELS = Path("models/tflite")
DATA = Path("data/test")
CALIBRATION = Path("data/calibration")
MIN_STARTS = 3  # of each variant, where the policy limits its load, first inference or memory
RECORD = Path("runs/check.json")


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def count(minimum: int = 1) -> Callable[[str], int]:
    """A whole number, at least `minimum`."""

    def convert(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least {minimum}")
        return int(text)

    return convert


def seconds(text: str) -> float:
    """A time, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, at least 0")
    return value


def duration(text: str) -> float:
    """A time with its unit, such as 10m, 90s or 500ms, in seconds; above 0 and at most a day."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    value = float(number[1]) * {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "": 1}[number[2]] if number else math.nan
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: expected a time with its unit, such as 10m, 90s or 500ms")
    return value


def accelerators(text: str) -> tuple[Accelerator, ...]:
    """Comma-separated names of accelerators, at least one."""
    try:
        return cell.accelerators(names(text))
    except SetupError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def accelerator(text: str) -> Accelerator:
    """One of them."""
    (name, *others) = accelerators(text)
    if others:
        raise argparse.ArgumentTypeError(f"{text}: expected one of {', '.join(cell.ACCELERATORS)}")
    return name


class _PrintPolicy(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from harness.judge import policy

        print(policy.DEFAULTS.read_text(), end="")
        parser.exit()


def _file(text: str) -> dict[str, Any]:
    return {"type": Path, "metavar": "FILE", "help": text}


SHARED: dict[str, dict[str, Any]] = {
    "--models": {"type": Path, "default": MODELS, "metavar": "DIR", "help": "folder of variants and stored outputs"},
    "--reference": {"type": Path, "default": MODEL, "metavar": "MODEL", "help": "the Keras model"},
    "--variants": {"type": names, "metavar": "KINDS", "help": "comma-separated (default: all in the folder)"},
    "--data": {
        "type": Path,
        "default": DATA,
        "metavar": "DIR",
        "help": "images named <class>_<n>.<ext> or <class>/<name>, a class by name or number; or Parquet; or tensors, "
        "as .npz",
    },
    "--skip-bad": {"action": "store_true", "help": "leave out files that cannot be used, and count them"},
    "--unlabelled": {
        "action": "store_true",
        "help": "images whose class is not known, named anyhow: judged by the Keras model's answers alone",
    },
    "--images": {"type": count(), "default": 55, "metavar": "N", "help": "images used, classes in equal number"},
    "--layers": {"type": count(0), "default": 10, "metavar": "N", "help": "layers shown"},
    "--device": {
        "action": "append",
        "metavar": "URI",
        "help": "local, ssh://[user@]host[:port] or adb://[serial]; may be repeated",
    },
    "--threads": {"type": count(), "default": 1, "metavar": "N", "help": "interpreter threads for latency"},
    "--accelerator": {
        "type": accelerators,
        "default": (),
        "metavar": "NAMES",
        "help": f"comma-separated: {', '.join(cell.ACCELERATORS)}",
    },
    "--runtime": {
        "action": "append",
        "default": [],
        "metavar": "RUNTIME",
        "help": "another runtime to try the file in: tflite-runtime, tflite-runtime==VERSION (installed once), or the "
        "path of a Python that has one; may be repeated",
    },
    "--model-config": _file("the model's class names and pixels (default: MODEL's name ending in .toml, if it exists)"),
    "--import": {
        "dest": "imports",
        "action": "append",
        "default": [],
        "metavar": "MODULE",
        "help": "Python module that registers the model's own layers; its code is run; may be repeated",
    },
    "--policy": _file("limits of your own (default: those that --print-policy shows)"),
    "--print-policy": {
        "action": _PrintPolicy,
        "nargs": 0,
        "help": "print the default limits",
    },
    "--html": _file("a page with figures and images, all in one file"),
    "--json": _file("all figures; - for standard output"),
    "--scheduler": {"metavar": "tcp://HOST:PORT", "help": "use the devices of a lab's workers (see harness lab)"},
    "--tls-ca": _file("PEM file of the lab's authority, for tls:// addresses"),
    "--tls-cert": _file("PEM file of this host's certificate"),
    "--tls-key": _file("PEM file of its key"),
    "--host": {"metavar": "ADDRESS", "help": "address to listen on (default: 127.0.0.1, for this host alone)"},
    "--verbose": {"action": "store_true", "help": "print each step when piped, and where an error comes from"},
}
IMAGES = ("--data", "--skip-bad")
POLICY = ("--policy", "--print-policy")
LABELS = ("--unlabelled",)
TLS = ("--tls-ca", "--tls-cert", "--tls-key")
SUBJECT = ("--models", "--reference", "--variants", *IMAGES, *LABELS, *POLICY)  # what is checked, and by which limits


def add(parser: argparse._ActionsContainer, *flags: str, **changes: Any) -> None:
    """Add shared flags; a default is shown in each one's help."""
    for flag in flags:
        keywords = SHARED[flag] | changes
        if keywords.get("default"):
            keywords["help"] += " (default: %(default)s)"
        parser.add_argument(*(["-v"] if flag == "--verbose" else []), flag, **keywords)


def add_benchmark_model(parser: argparse.ArgumentParser, does: str) -> None:
    """Google's tool on the device."""
    help_text = f"Google's benchmark_model for the device, {does}"
    parser.add_argument("--benchmark-model", type=Path, metavar="FILE", help=help_text)
    parser.add_argument(
        "--benchmark-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="passed to it, as in --benchmark-flag=--use_gpu=true; may be repeated",
    )


def benchmark_model(options: argparse.Namespace) -> BenchmarkModel | None:
    """What the flags of `add_benchmark_model` name."""
    from harness.run.devices.benchmark_model import BenchmarkModel

    return BenchmarkModel(options.benchmark_model, tuple(options.benchmark_flag)) if options.benchmark_model else None


def add_latency(parser: argparse.ArgumentParser) -> None:
    """How latency is measured."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a short look at latency: wide intervals, few percentiles")
    how.add_argument(
        "--mlperf",
        action="store_true",
        help="latency as MLPerf's single stream: each variant alone, 1,024 inferences and 60 s, after 300 s of rest",
    )
    how.add_argument("--no-latency", action="store_true", help="judge the answers only")
    add(parser, "--threads")
    parser.add_argument(
        "--processes",
        type=count(),
        metavar="N",
        help="fresh processes that measure latency one after the other (default: 5)",
    )
    parser.add_argument("--cooldown", type=seconds, metavar="S", help="seconds of rest before each (default: 0)")
    parser.add_argument(
        "--sustain",
        type=duration,
        metavar="TIME",
        help="also each variant without a pause for so long, such as 10m: when it slows down, and to what",
    )
    parser.add_argument(
        "--pace", type=duration, metavar="TIME", help="also one inference after such a pause, as in an app: 500ms"
    )
    parser.add_argument(
        "--cold",
        type=count(2),
        nargs="?",
        const=10,
        metavar="N",
        help="also N cold starts (default: 10): a fresh process, its file dropped from memory where that is allowed",
    )
    parser.add_argument(
        "--energy",
        type=duration,
        nargs="?",
        const=2.0,
        metavar="TIME",
        help="also joules of an inference, in blocks of such a time (default: 2s), where the device has a meter",
    )
    parser.add_argument(
        "--count",
        action="store_true",
        help="also each variant's instructions and memory accesses, which no noise moves (by valgrind, x86-64)",
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="RECORD", help="earlier record of this host, to compare latency with"
    )


def tls(options: argparse.Namespace) -> Keys:
    """What the flags of TLS name."""
    from harness.cluster.security import Keys

    return Keys(options.tls_ca, options.tls_cert, options.tls_key)


def latency_plan(options: argparse.Namespace, limits: Policy) -> LatencyPlan | None:
    """The plan that the flags of `add_latency` ask for, with as many starts as the policy's limits need.

    None if latency is not measured."""
    from msgspec.structs import replace

    from harness.run.latency_plan import MLPERF, QUICK, LatencyPlan

    modes = {"sustain": options.sustain, "pace": options.pace, "cold": options.cold, "energy": options.energy}
    if options.no_latency:
        for flag, value in modes.items():
            if value:
                raise SetupError(f"--{flag}: measures latency, which --no-latency leaves out; name one of the two")
        return None
    plan = MLPERF if options.mlperf else QUICK if options.quick else LatencyPlan()
    changes = {
        "threads": options.threads,
        "processes": options.processes,
        "cooldown_s": options.cooldown,
        "sustain_s": options.sustain,
        "pace_s": options.pace,
        "cold_starts": options.cold,
        "energy_block_s": options.energy,
        "min_starts": MIN_STARTS if any(rule.of_starts for rule in limits.latency) else None,
    }
    return replace(plan, **{name: value for name, value in changes.items() if value is not None})


def subject(
    options: argparse.Namespace, limits: Policy, plan: LatencyPlan | None = None, baseline: Baseline | None = None
) -> Subject:
    """What the flags of SUBJECT name."""
    from harness.check import subject

    return subject.load(options.models, options.reference, limits, options.variants, plan, baseline)
