"""Flags that several verbs share, and their defaults."""

from __future__ import annotations

import argparse
from pathlib import Path

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


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
