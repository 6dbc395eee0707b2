"""`harness release attest`, in short `harness attest`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags

EXAMPLE = "harness attest runs/check.json --key key.pem --out runs/check.intoto.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RUN", help="a record of harness check, or its folder")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM of an Ed25519 private key (default: not signed)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the attestation (default: RUN's name ending in .intoto.json)"
    )
    parser.add_argument("--valid-days", type=flags.count(), metavar="N", help="it expires after N days")
    flags.add(parser, *flags.POLICY)


def run(options: argparse.Namespace) -> int:
    from harness.core.files import write_atomic
    from harness.core.outcome import EXIT_CODES
    from harness.records import attestation, record

    path = options.record / record.FILE if options.record.is_dir() else options.record
    statement = attestation.state(path, options.policy, options.valid_days)
    out = options.out or path.with_suffix(".intoto.json")
    write_atomic(out, attestation.encode(statement, options.key))
    signed = f"signed by {options.key}" if options.key else "not signed"
    print(f"{out}: {statement.predicate.verdict}, {len(statement.subject)} files, {signed}")
    return EXIT_CODES[statement.predicate.verdict]
