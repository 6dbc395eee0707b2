"""`harness check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.errors import Exit, SetupError

DOES = "judge variants against the Keras reference on this machine"
EXAMPLE = "harness check --json runs/check.json --html runs/check.html"


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
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with verdict, figures and pictures")
    flags.add_latency(parser)
    flags.add_policy(parser)
    flags.add_data(parser)


def run(options: argparse.Namespace) -> int:
    from harness import check, latency_gate, policy, record, terminal
    from harness.files import check_writable, write_atomic
    from harness.formats import runs
    from harness.verdict import EXIT_CODES as OUTCOME_CODES

    plan = flags.latency_plan(options)
    if options.json.suffix != ".json":
        raise SetupError(f"--json {options.json}: expected a name ending in .json; the arrays go beside it as .npz")
    limits = policy.load(options.policy)
    baseline = latency_gate.load(options.baseline, limits.latency)
    check_writable(options.json.parent)
    if options.html:
        from harness.report import check as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    with terminal.Bars() as bars:
        result, interrupted = check.check(
            options.models,
            options.reference,
            options.data,
            terminal.step,
            bars,
            kinds=options.variants,
            plan=plan,
            baseline=baseline,
            limits=limits,
            skip_bad=options.skip_bad,
        )
    try:
        arrays = record.write(result, options.json)
    finally:  # what was measured is shown also where it cannot be stored
        print(terminal.table(result))
    print(f"record: {options.json}, raw samples and outputs: {arrays}")
    if options.html:
        write_atomic(options.html, page.page(runs.of([result])).encode())
        print(f"report: {options.html}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[result.outcome]
