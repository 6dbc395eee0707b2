"""`harness check`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.core.errors import Exit, SetupError

if TYPE_CHECKING:
    from harness.check.on_devices import OnDevice
    from harness.check.pipeline import Subject
    from harness.core.progress import Progress
    from harness.judge.policy import Policy
    from harness.output import terminal
    from harness.records.baseline import Baseline
    from harness.run.latency_plan import LatencyPlan

WORST_FIRST = (Exit.INTERRUPTED, Exit.FAIL, Exit.SETUP, Exit.INCONCLUSIVE, Exit.PASS)  # of several devices

EXAMPLE = "harness check --device ssh://pi@raspberrypi.local --json runs/check.json --html runs/check.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, *flags.SUBJECT)
    flags.add(
        parser,
        "--device",
        help="local, ssh://[user@]host[:port] or adb://[serial]; may be repeated (default: local; with --scheduler: "
        "all of the lab's, if they are alike)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the job on the device, to examine it")
    parser.add_argument(
        "--benchmark-model", type=Path, metavar="FILE", help="Google's benchmark_model for the device, to run beside"
    )
    parser.add_argument(
        "--benchmark-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="passed to it, as in --benchmark-flag=--use_gpu=true; may be repeated",
    )
    parser.add_argument(
        "--packed", type=Path, metavar="FILE", help="a check that harness device pack put into one file"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=flags.RECORD,
        metavar="FILE",
        help="the record; raw samples and outputs go beside it as .npz (default: %(default)s)",
    )
    flags.add(parser, "--html")
    flags.add_latency(parser)
    parser.add_argument(
        "--shards",
        type=flags.count(),
        metavar="N",
        help="read the images in N shards, never all at once (default: as many as a large set needs)",
    )
    flags.add(parser, "--scheduler", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.check import on_devices
    from harness.core.files import check_writable, write_atomic
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.judge import policy
    from harness.output import terminal
    from harness.output.formats import runs
    from harness.records import record
    from harness.records.baseline import load_baseline
    from harness.run.devices.benchmark_model import BenchmarkModel
    from harness.run.devices.local import URI

    plan = flags.latency_plan(options)
    if options.json.suffix != ".json":
        raise SetupError(f"--json {options.json}: expected a name ending in .json; the arrays go beside it as .npz")
    benchmark = None
    if options.benchmark_model:
        benchmark = BenchmarkModel(options.benchmark_model, tuple(options.benchmark_flag))
    limits = policy.load(options.policy)
    baseline = load_baseline(options.baseline, limits.latency)
    check_writable(options.json.parent)
    if options.html:
        from harness.output.report import check as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    with terminal.Bars() as bars, tempfile.TemporaryDirectory(prefix="harness-packed-") as unpacked:
        if _in_shards(options):
            done = _sharded(options, limits, plan, baseline, bars)
        else:
            devices = on_devices.open_all(options.device or [URI], keep=options.keep)
            subject, limits = _subject(options, limits, bars, Path(unpacked))
            done = on_devices.run(
                devices, subject, bars, plan=plan, limits=limits, baseline=baseline, benchmark=benchmark
            )
    if len(done) == 1 and done[0].problem:
        raise done[0].problem
    codes = []
    for one in done:
        if one.run is None:
            print(f"harness check: {one.problem}", file=sys.stderr)
            codes.append(int(Exit.SETUP))
            continue
        path = _path(options, one.uri, len(done))
        try:
            arrays = record.write(one.run.record, path)
        finally:  # what was measured is shown also where it cannot be stored
            print(terminal.table(one.run.record))
        print(f"record: {path}, raw samples and outputs: {arrays}")
        codes.append(Exit.INTERRUPTED if one.run.interrupted else OUTCOME_CODES[one.run.record.outcome])
    if options.html and (records := [one.run.record for one in done if one.run]):
        write_atomic(options.html, page.render(runs.of(records)).encode())
        print(f"report: {options.html}")
    return min(codes, key=WORST_FIRST.index)


def _subject(options: argparse.Namespace, limits: Policy, progress: Progress, unpacked: Path) -> tuple[Subject, Policy]:
    """What is checked and by which limits: those of the packed check, or of the flags."""
    from harness.check import pack
    from harness.judge import policy

    if options.packed:
        subject, packed_limits = pack.read(options.packed, unpacked)
        return subject, policy.load(options.policy) if options.policy else packed_limits
    return flags.subject(options, limits, progress), limits


def _path(options: argparse.Namespace, uri: str, devices: int) -> Path:
    """Where a device's record is written."""
    from harness.check.on_devices import slug

    named: Path = options.json
    return named if devices == 1 else named.with_suffix(f".{slug(uri)}.json")


def _in_shards(options: argparse.Namespace) -> bool:
    """Whether the images are to be read in shards: on a lab, where that is asked for, and where they are many."""
    from harness.artifacts import manifest
    from harness.images import parquet, shards

    if options.packed:
        return False
    if options.scheduler or options.shards:
        return True
    takes = manifest.spec_of(manifest.read(options.models), options.models)
    source = shards.open_source(options.data, takes)
    return bool(parquet.files(options.data)) or source.images > shards.usual_size(takes)


def _sharded(
    options: argparse.Namespace,
    limits: Policy,
    plan: LatencyPlan | None,
    baseline: Baseline | None,
    progress: terminal.Bars,
) -> list[OnDevice]:
    """Each named device on its own; of a lab, like devices together."""
    from harness.check import sharded
    from harness.check.engine import Engine, LocalEngine
    from harness.check.on_devices import OnDevice
    from harness.cluster import client
    from harness.images import shards
    from harness.output import terminal
    from harness.run.devices.local import URI

    what = sharded.subject(options.models, options.reference, options.variants, limits, plan, baseline)
    named = options.device or ([] if options.scheduler else [URI])
    lab = client.Cluster(options.scheduler, flags.tls(options)) if options.scheduler else None
    engine: Engine = lab or LocalEngine(named, progress)
    done = []
    with engine:
        groups = [[uri] for uri in named]
        if lab:
            groups = [client.choose(lab.devices(), named, options.scheduler)]
        for group in groups:
            source = shards.open_source(options.data, what.spec)
            size = -(-source.images // options.shards) if options.shards else shards.usual_size(what.spec)
            path = _path(options, group[0], len(groups))
            run = sharded.run(
                what, source, size, engine, group, path, terminal.step, progress, skip_bad=options.skip_bad
            )
            done.append(OnDevice(", ".join(group), run))
            if run.interrupted:
                break
    return done
