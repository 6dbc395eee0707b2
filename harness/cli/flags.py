"""Flags that several verbs share, and their defaults."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.lab.cluster import Keys

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
        help="images named <class>_<n>.<ext> or <class>/<name> (default: %(default)s)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be used, and count them")


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
    from harness.lab.cluster import Keys

    return Keys(options.tls_ca, options.tls_cert, options.tls_key)


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
