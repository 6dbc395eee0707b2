"""`harness check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.errors import Exit, SetupError

if TYPE_CHECKING:
    from harness.job import LatencyPlan
    from harness.policy import Policy
    from harness.record import Record
    from harness.terminal import Bars

DOES = "judge variants against the Keras reference on this machine"
EXAMPLE = "harness check --json runs/check.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_models(parser)
    flags.add_reference(parser)
    parser.add_argument(
        "--variants", type=flags.names, metavar="KINDS", help="comma-separated (default: all in the manifest)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=flags.RECORD,
        metavar="FILE",
        help="the record; raw samples and outputs go beside it as .npz (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="interpreter threads for latency (default: %(default)s)"
    )
    flags.add_policy(parser)
    flags.add_data(parser)
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="read the images in N shards, never all at once (default: as many as a large set needs)",
    )
    flags.add_scheduler(parser)
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="URI",
        help="one of the lab's devices; may be repeated where they are alike (default: all, if they are alike)",
    )


def run(options: argparse.Namespace) -> int:
    from harness import check, policy, record, terminal
    from harness.files import check_writable
    from harness.job import LatencyPlan
    from harness.verdict import EXIT_CODES as OUTCOME_CODES

    if options.threads < 1:
        raise SetupError(f"--threads {options.threads}: expected at least 1")
    if options.json.suffix != ".json":
        raise SetupError(f"--json {options.json}: expected a name ending in .json; the arrays go beside it as .npz")
    limits = policy.load(options.policy)
    check_writable(options.json.parent)
    if options.shards is not None and options.shards < 1:
        raise SetupError(f"--shards {options.shards}: expected at least 1")
    plan = LatencyPlan(threads=options.threads)
    with terminal.Bars() as bars:
        result, interrupted = _in_shards(options, limits, plan, bars) or check.check(
            options.models,
            options.reference,
            options.data,
            terminal.step,
            bars,
            kinds=options.variants,
            plan=plan,
            limits=limits,
            skip_bad=options.skip_bad,
        )
    try:
        arrays = record.write(result, options.json)
    finally:  # what was measured is shown also where it cannot be stored
        print(terminal.table(result))
    print(f"record: {options.json}, raw samples and outputs: {arrays}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[result.outcome]


def _in_shards(
    options: argparse.Namespace, limits: Policy, plan: LatencyPlan, bars: Bars
) -> tuple[Record, bool] | None:
    """The same for a large set, and on a lab; none where the images are few and this machine is meant."""
    from harness import shards, terminal

    source = shards.open_source(options.data)
    usual = shards.usual_size()
    if not (options.shards or options.scheduler or source.images > usual or isinstance(source, shards.Parquet)):
        return None
    from harness.lab import cluster, sharded
    from harness.lab.engine import LOCAL, Engine, LocalEngine

    what = sharded.subject(options.models, options.reference, options.variants, limits, plan)
    size = -(-source.images // options.shards) if options.shards else usual
    engine: Engine = LocalEngine(bars)
    if options.scheduler:
        engine = lab = cluster.Cluster(options.scheduler, flags.tls(options))
    with engine:
        devices = [LOCAL]
        if options.scheduler:
            lab.check_versions()
            devices = cluster.choose(lab.devices(), options.device, options.scheduler)
        return sharded.run(
            what, source, size, engine, devices, options.json, terminal.step, bars, skip_bad=options.skip_bad
        )
