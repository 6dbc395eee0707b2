"""`harness check`."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from harness.cli import flags
from harness.core.cell import ACCELERATORS, BROWSERS, Accelerator
from harness.core.errors import Exit, SetupError

if TYPE_CHECKING:
    from harness.check.engine import Engine
    from harness.check.pipeline import Check
    from harness.check.references import References
    from harness.check.subject import Subject
    from harness.images.shards import Source
    from harness.judge.policy import Policy
    from harness.output import terminal
    from harness.run.latency_plan import LatencyPlan

WORST_FIRST = (Exit.INTERRUPTED, Exit.FAIL, Exit.SETUP, Exit.INCONCLUSIVE, Exit.PASS)  # of several devices

EXAMPLE = "harness check --device ssh://pi@raspberrypi.local --json runs/check.json --html runs/check.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, *flags.SUBJECT)
    what = f"what runs each variant, comma-separated: {', '.join(ACCELERATORS)} (default: cpu; a browser: wasm,webgpu)"
    flags.add(parser, "--accelerator", help=what)
    parser.add_argument(
        "--runtime",
        metavar="RUNTIME",
        help="run the variants by another runtime: tflite-runtime, tflite-runtime==VERSION (installed once), or the "
        "path of a Python that has one",
    )
    flags.add(
        parser,
        "--device",
        help="local, ssh://[user@]host[:port], adb://[serial] or web://[address][:port] for a browser; may be repeated "
        "(default: local; with --scheduler: "
        "all of the lab's, if they are alike)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the job on the device, to examine it")
    flags.add_benchmark_model(parser, "to run beside")
    parser.add_argument(
        "--run-model",
        type=Path,
        metavar="FILE",
        help="LiteRT's run_model for the device (experimental): it answers instead of the harness's worker, from the "
        "device's own drivers; no times",
    )
    parser.add_argument(
        "--run-flag", action="append", default=[], metavar="FLAG", help="passed to run_model; may be repeated"
    )
    parser.add_argument(
        "--run-file",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a library that run_model needs beside it, such as libLiteRt.so; may be repeated",
    )
    parser.add_argument(
        "--subset", type=flags.count(), metavar="N", help="judge N of the images, at even distances (default: all)"
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
        "--slice-by",
        metavar="COLUMN",
        help="judge each part of the images on its own: by a column of their table or Parquet, or by a pattern on "
        "their names with a named group, such as '(?P<phone>pixel|moto)_'",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet table that has the column, or the labels of a model that gives several, and a column "
        "file_name (default: metadata.csv beside the images, or their only CSV file)",
    )
    parser.add_argument(
        "--shards",
        type=flags.count(),
        metavar="N",
        help="read the images in N shards, never all at once (default: as many as a large set needs)",
    )
    flags.add(parser, "--scheduler", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.check import pipeline
    from harness.core.files import check_writable, write_atomic
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.output import terminal
    from harness.output.formats import runs
    from harness.records import record

    if options.json.suffix != ".json":
        raise SetupError(f"--json {options.json}: expected a name ending in .json; the arrays go beside it as .npz")
    check_writable(options.json.parent)
    if options.html:
        from harness.output.report import check as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    with terminal.Bars() as bars, ExitStack() as stack:
        subject, source, references = _inputs(options, stack)
        engine = stack.enter_context(_engine(options, bars))
        checks = _checks(options, subject, source, engine)
        results = pipeline.run_all(checks, engine, references, bars)
    if len(results) == 1 and isinstance(results[0], SetupError):
        raise results[0]
    codes, records = [], []
    for check, result in zip(checks, results, strict=True):
        if result is None:
            codes.append(int(Exit.INTERRUPTED))
            continue
        if isinstance(result, SetupError):
            print(f"harness check: {result}", file=sys.stderr)
            codes.append(int(Exit.SETUP))
            continue
        try:
            arrays = record.write(result.record, check.record)
        finally:  # what was measured is shown also where it cannot be stored
            print(terminal.table(result.record))
        print(f"record: {check.record}, raw samples and outputs: {arrays}")
        codes.append(Exit.INTERRUPTED if result.interrupted else OUTCOME_CODES[result.record.outcome])
        records.append(result.record)
    if options.html and records:
        write_atomic(options.html, page.render(runs.side_by_side(records)).encode())
        print(f"report: {options.html}")
    return min(codes, key=WORST_FIRST.index)


def _inputs(options: argparse.Namespace, stack: ExitStack) -> tuple[Subject, Source, References]:
    """What is checked, its images and their reference: of the packed check, or of the flags."""
    from harness.check.pack import Pack
    from harness.check.references import KerasReferences
    from harness.images import shards
    from harness.judge import policy
    from harness.output import terminal
    from harness.records.baseline import load_baseline

    if options.packed:
        if options.subset:
            raise SetupError("--subset: a packed check has its images; leave it out")
        if options.shards:
            raise SetupError("--shards: a packed check is divided already; leave it out")
        packed = Pack(options.packed, options.variants)
        limits = policy.load(options.policy) if options.policy else packed.subject.limits
        baseline = load_baseline(options.baseline, limits.latency)
        plan = _plan(options, limits)
        return replace(packed.subject, limits=limits, plan=plan, baseline=baseline), packed, packed
    limits = policy.load(options.policy)
    plan = _plan(options, limits)
    baseline = load_baseline(options.baseline, limits.latency)
    subject = flags.subject(options, limits, plan, baseline)
    references = stack.enter_context(KerasReferences(options.reference, options.models, terminal.step))
    source = shards.open_source(options.data, subject.spec, labelled=not options.unlabelled)
    return subject, shards.Subset(source, options.subset) if options.subset else source, references


def _plan(options: argparse.Namespace, limits: Policy) -> LatencyPlan | None:
    """None if latency is not measured: run_model gives answers only."""
    return None if options.run_model else flags.latency_plan(options, limits)


def _engine(options: argparse.Namespace, bars: terminal.Bars) -> Engine:
    from harness.check.engine import LocalEngine
    from harness.cluster.client import Cluster
    from harness.run import runtimes
    from harness.run.devices import local
    from harness.run.devices.local import Local

    if options.scheduler:
        for flag in ("keep", "benchmark_model", "run_model"):
            if getattr(options, flag):
                raise SetupError(
                    f"--{flag.replace('_', '-')}: not in a lab, whose workers run jobs alone; run harness check on its "
                    "host"
                )
        return Cluster(options.scheduler, flags.tls(options))
    devices = options.device or [local.URI]
    if options.run_model:
        words = urlencode(
            {
                "run_model": options.run_model,
                "run_flags": shlex.join(options.run_flag),
                "run_files": shlex.join(map(str, options.run_file)),
            }
        )
        devices = [f"{device}{'&' if '?' in device else '?'}{words}" for device in devices]
    if options.runtime:
        if local.URI not in devices:
            raise SetupError(
                f"--runtime {options.runtime}: runs this machine's worker; add --device local, or name a "
                "device's Python in its address: ssh://HOST?python=PATH"
            )
        here = Local(runtimes.python(options.runtime)).uri
        devices = [here if device == local.URI else device for device in devices]
    return LocalEngine(devices, bars, keep=options.keep, benchmark=flags.benchmark_model(options))


def _usual(devices: tuple[str, ...]) -> tuple[Accelerator, ...]:
    """The accelerators that are meant where none are named."""
    return BROWSERS if devices[0].startswith("web:") else ("cpu",)


def _checks(options: argparse.Namespace, subject: Subject, source: Source, engine: Engine) -> list[Check]:
    """One for each device; of a lab, one for all of its devices."""
    from harness.check.pipeline import Check
    from harness.cluster import client
    from harness.core.files import slug
    from harness.images import labels, slices

    groups: list[tuple[str, ...]] = [(device,) for device in engine.devices()]
    if options.scheduler:
        groups = [tuple(client.choose(engine.devices(), options.device or (), options.scheduler))]
    names = subject.spec.label_names
    if options.table and not (options.slice_by or names):
        raise SetupError(f"--table {options.table}: names the table of --slice-by, which is missing")
    known = labels.read(source, names, options.table) if names and not options.unlabelled else None
    divided = slices.divide(source, options.slice_by, options.table) if options.slice_by else None
    size = -(-source.images // options.shards) if options.shards else None
    skip_bad = options.skip_bad or bool(options.packed)  # a pack says what was left out of it
    return [
        Check(
            replace(subject, accelerators=options.accelerator or _usual(devices), count=options.count),
            source,
            devices,
            options.json if len(groups) == 1 else options.json.with_suffix(f".{slug(devices[0])}.json"),
            size,
            skip_bad,
            slices=divided,
            labels=known,
        )
        for devices in groups
    ]
