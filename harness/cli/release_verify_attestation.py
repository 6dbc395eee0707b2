"""`harness release verify-attestation`, in short `harness verify-attestation`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = (
    "harness verify-attestation check.intoto.json --key key.pub.pem --require PASS --variant int8 "
    "models/tflite/int8.tflite"
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("attestation", type=Path, metavar="ATTESTATION", help="what harness attest --key wrote")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="the files that are released")
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="PEM of the signer's public key or certificate"
    )
    parser.add_argument(
        "--require",
        choices=("PASS", "INCONCLUSIVE"),
        default="PASS",
        help="the worst verdict that is accepted (default: PASS)",
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="KIND", help="its verdict counts; may be repeated"
    )
    parser.add_argument(
        "--accelerator",
        type=flags.accelerators,
        default=(),
        metavar="NAMES",
        help="their verdicts count (default: all)",
    )
    parser.add_argument("--record", type=Path, metavar="RUN", help="the record too: its verdict is derived again")


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import Outcome
    from harness.records import attestation

    problems = list(
        attestation.problems(
            options.attestation,
            options.files,
            options.key,
            Outcome(options.require),
            options.variant,
            options.accelerator,
            options.record,
        )
    )
    for problem in problems:
        print(f"harness verify-attestation: {options.attestation}: {problem}", file=sys.stderr)
    if problems:
        return Exit.FAIL
    print(f"{options.attestation}: holds for {', '.join(map(str, options.files))}")
    return Exit.PASS
