"""The `harness` command. Each verb calls one function; errors are one line and a documented exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.errors import Exit, SetupError

MODEL = Path("models/resnet164.keras")
MODELS = Path("models/tflite")
DATA = Path("data/test")
CALIBRATION = Path("data/calibration")
RECORD = Path("runs/check.json")

EXIT_CODES = "exit codes: 0 PASS, 1 FAIL, 2 usage or set-up error, 3 INCONCLUSIVE, 130 interrupted"


def parser() -> argparse.ArgumentParser:
    """All verbs and flags."""
    top = argparse.ArgumentParser(
        prog="harness",
        epilog=EXIT_CODES,
        description="Prove or refute that TFLite variants answer like the Keras model they were made from.",
    )
    top.add_argument("--version", action="version", version=f"harness {_version('tflite-harness')}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, does: str, example: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=f"example: {example}; {EXIT_CODES}"
        )

    convert = verb(
        "convert", "make TFLite variants of a Keras model", "harness convert models/resnet164.keras --out models/tflite"
    )
    convert.add_argument("model", type=Path, metavar="MODEL.keras")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for variants and manifest.json")
    convert.add_argument(
        "--variants",
        type=_names,
        metavar="KINDS",
        help="comma-separated (default: float32,dynamic_range,int8; also: float16, int8_float_io, int16x8, "
        "int16x8_float_io)",
    )
    convert.add_argument(
        "--max-flips",
        type=int,
        metavar="N",
        help="make int8_mixed_float_io, too: int8, but as few layers in float32 as keep the flips within N",
    )
    convert.add_argument(
        "--tuning",
        type=Path,
        metavar="DIR",
        help="images from the training side on which --max-flips counts (default: the calibration images)",
    )
    convert.add_argument(
        "--calibration",
        type=Path,
        default=CALIBRATION,
        metavar="DIR",
        help="images from the training side (default: %(default)s)",
    )
    convert.add_argument(
        "--calibration-size",
        type=int,
        default=220,
        metavar="N",
        help="images used, classes in equal number (default: %(default)s)",
    )
    convert.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"test images, which no calibration image may be one of (default: {DATA}, where it is there)",
    )
    convert.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="PYTHON",
        help="another Python, with an older runtime such as tflite-runtime, to try the variants in; may be repeated",
    )
    _add_import(convert)
    convert.set_defaults(run=_convert)

    inspect = verb("inspect", "say what is in a .tflite file", "harness inspect models/tflite/int8.tflite")
    inspect.add_argument("file", type=Path, metavar="FILE.tflite")
    inspect.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="PYTHON",
        help="another Python, with an older runtime such as tflite-runtime, to load the file in; may be repeated",
    )
    inspect.set_defaults(run=_inspect)

    reference = verb(
        "reference", "compute and store the Keras model's outputs", "harness reference models/resnet164.keras"
    )
    reference.add_argument("model", type=Path, metavar="MODEL.keras")
    reference.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="folder to store them in (default: %(default)s)"
    )
    _add_data(reference)
    _add_import(reference)
    reference.set_defaults(run=_reference)

    check = verb(
        "check", "judge variants against the Keras reference on this machine", "harness check --json runs/check.json"
    )
    check.add_argument(
        "--models", type=Path, default=MODELS, metavar="DIR", help="folder of variants (default: %(default)s)"
    )
    check.add_argument(
        "--reference", type=Path, default=MODEL, metavar="MODEL", help="the Keras model (default: %(default)s)"
    )
    check.add_argument(
        "--variants", type=_names, metavar="KINDS", help="comma-separated (default: all in the manifest)"
    )
    check.add_argument(
        "--json",
        type=Path,
        default=RECORD,
        metavar="FILE",
        help="the record; raw samples and outputs go beside it as .npz (default: %(default)s)",
    )
    check.add_argument(
        "--threads", type=int, default=1, metavar="N", help="interpreter threads for latency (default: %(default)s)"
    )
    _add_data(check)
    check.set_defaults(run=_check)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SetupError as error:
        print(f"harness {options.verb}: {error}", file=sys.stderr)
        return Exit.SETUP
    except BrokenPipeError:  # the reader of standard output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.SETUP
    except KeyboardInterrupt:
        print(f"\nharness {options.verb}: interrupted; nothing half-written is left", file=sys.stderr)
        return Exit.INTERRUPTED
    return code


def _convert(options: argparse.Namespace) -> int:
    from converters.convert import Images, convert
    from converters.manifest import KINDS
    from harness import terminal, variants_text

    made = convert(
        options.model,
        options.out,
        Images(
            options.calibration,
            tuning=options.tuning,
            test=options.data or (DATA if DATA.is_dir() else None),
            calibration_size=options.calibration_size,
        ),
        terminal.step,
        kinds=options.variants or KINDS,
        max_flips=options.max_flips,
        imports=options.imports,
        pythons=options.runtime,
    )
    print(variants_text.converted(made, options.out))
    return Exit.PASS


def _inspect(options: argparse.Namespace) -> int:
    from converters.inspection import inspect
    from harness import variants_text

    print(variants_text.inspected(inspect(options.file, options.runtime)))
    return Exit.PASS


def _reference(options: argparse.Namespace) -> int:
    from harness import dataset, reference, terminal
    from harness.files import check_writable

    check_writable(options.models)
    with terminal.Bars() as bars:
        data = dataset.load(options.data, skip_bad=options.skip_bad, progress=partial(bars, f"reading {options.data}"))
    made = reference.obtain(options.model, data, options.models, terminal.step, imports=options.imports)
    accuracy = float((made.outputs.argmax(axis=1) == data.labels).mean())
    print(f"{options.model}: accuracy {accuracy:.2%} on {len(data)} images of {options.data}")
    return Exit.PASS


def _check(options: argparse.Namespace) -> int:
    from harness import check, record, terminal
    from harness.files import check_writable
    from harness.job import LatencyPlan
    from harness.verdict import EXIT_CODES as OUTCOME_CODES

    if options.threads < 1:
        raise SetupError(f"--threads {options.threads}: expected at least 1")
    if options.json.suffix != ".json":
        raise SetupError(f"--json {options.json}: expected a name ending in .json; the arrays go beside it as .npz")
    check_writable(options.json.parent)
    with terminal.Bars() as bars:
        result, interrupted = check.check(
            options.models,
            options.reference,
            options.data,
            terminal.step,
            bars,
            kinds=options.variants,
            plan=LatencyPlan(threads=options.threads),
            skip_bad=options.skip_bad,
        )
    try:
        arrays = record.write(result, options.json)
    finally:  # what was measured is shown also where it cannot be stored
        print(terminal.table(result))
    print(f"record: {options.json}, raw samples and outputs: {arrays}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[result.outcome]


def _add_data(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="images named <class>_<n>.<ext> or <class>/<name> (default: %(default)s)",
    )
    verb.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be used, and count them")


def _add_import(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module that registers layers of the model's own; runs its code; may be repeated",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
