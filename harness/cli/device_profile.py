"""`harness device profile`, or `harness profile`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.core.errors import Exit

if TYPE_CHECKING:
    from harness.run.devices.base import Device
    from harness.run.devices.benchmark_model import BenchmarkModel

EXAMPLE = "harness profile int8 --device ssh://pi@raspberrypi.local"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="VARIANT", help="a variant of the folder, or a .tflite file")
    flags.add(parser, "--device")
    flags.add_benchmark_model(parser, "whose profiler is used in place of the runtime's")
    flags.add(parser, "--layers", "--models", *flags.IMAGES, "--images")


def run(options: argparse.Namespace) -> int:
    from harness.run.devices import local, uri

    benchmark = flags.benchmark_model(options)
    for device in options.device or [local.URI]:
        show(options, uri.device(device), benchmark)
    return Exit.PASS


def show(options: argparse.Namespace, device: Device | None = None, benchmark: BenchmarkModel | None = None) -> int:
    """Profile a variant and print the table."""
    from harness.output import terminal
    from harness.run.devices import local
    from harness.tools import op_profile

    source = options.models, options.kind, options.data, options.images
    where = device.uri if device else local.URI
    with terminal.step(f"profiling {options.kind} on {where}"):
        profile = op_profile.variant(*source, device, benchmark, skip_bad=options.skip_bad)
    print(terminal.profile(profile, options.layers))
    return Exit.PASS
