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
    _add_runtime(convert, "try the variants in")
    _add_import(convert)
    convert.set_defaults(run=_convert)

    inspect = verb("inspect", "say what is in a .tflite file", "harness inspect models/tflite/int8.tflite")
    inspect.add_argument("file", type=Path, metavar="FILE.tflite")
    _add_runtime(inspect, "load the file in")
    inspect.set_defaults(run=_inspect)

    reference = verb(
        "reference", "compute and store the Keras model's outputs", "harness reference models/resnet164.keras"
    )
    reference.add_argument("model", type=Path, metavar="MODEL.keras")
    _add_models(reference, "folder to store them in")
    _add_data(reference)
    _add_import(reference)
    reference.set_defaults(run=_reference)

    check = verb(
        "check", "judge variants against the Keras reference on this machine", "harness check --json runs/check.json"
    )
    _add_models(check)
    _add_reference(check)
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
    _add_policy(check)
    _add_data(check)
    check.set_defaults(run=_check)

    again = verb(
        "verdict", "derive a stored run's verdict again, without models or images", "harness verdict runs/check.json"
    )
    again.add_argument("record", type=Path, metavar="RUN", help="what harness check --json wrote, or its folder")
    _add_policy(again)
    again.set_defaults(run=_verdict)

    selftest = verb(
        "selftest",
        "break a sound variant on the spot, in every way known, and require that none passes",
        "harness selftest",
    )
    _add_models(selftest)
    _add_reference(selftest)
    selftest.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="images (default: %(default)s)")
    selftest.set_defaults(run=_selftest)

    compare = verb(
        "compare",
        "judge a run against an earlier one of the same images, as CI does against its baseline",
        "harness compare baseline/check.json runs/check.json",
    )
    compare.add_argument("before", type=Path, metavar="EARLIER.json")
    compare.add_argument("after", type=Path, metavar="LATER.json")
    compare.add_argument("--anyway", action="store_true", help="also where model or policy differ")
    compare.set_defaults(run=_compare)

    flips = verb(
        "flips", "show the images whose answer changed", "harness flips runs/check.json --html runs/flips.html"
    )
    flips.add_argument("record", type=Path, metavar="RUN", help="what harness check --json wrote, or its folder")
    flips.add_argument("--html", type=Path, metavar="FILE", help="a page with the images, all in one file")
    flips.set_defaults(run=_flips)

    explain = verb("explain", "say where a quantized variant loses its answers, layer by layer", "harness explain int8")
    explain.add_argument("kind", metavar="KIND", help="a variant of the folder, beside its float32 one")
    _add_models(explain)
    explain.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="images (default: %(default)s)")
    explain.add_argument(
        "--images",
        type=int,
        default=55,
        metavar="N",
        help="images used, classes in equal number (default: %(default)s)",
    )
    explain.add_argument("--html", type=Path, metavar="FILE", help="a page with the profile, all in one file")
    explain.set_defaults(run=_explain)

    policy = verb("policy", "print the limits that variants are judged by", "harness policy > my-policy.toml")
    policy.set_defaults(run=_policy)
    evaluate = verb(
        "evaluate",
        "say how often a Keras or TFLite model is right, and show where not",
        "harness evaluate models/tflite/int8.tflite --html runs/int8.html",
    )
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="a .keras or .tflite file")
    evaluate.add_argument("--html", type=Path, metavar="FILE", help="a page with pictures, all in one file")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="all figures and every miss")
    _add_models(evaluate, "keeps a Keras model's outputs")
    evaluate.add_argument(
        "--classes", type=int, default=11, metavar="N", help="classes of model and images (default: %(default)s)"
    )
    evaluate.add_argument(
        "--image-size", type=int, default=28, metavar="N", help="the model's, in pixels (default: %(default)s)"
    )
    _add_data(evaluate)
    evaluate.set_defaults(run=_evaluate)
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
    with terminal.Bars() as bars:
        result, interrupted = check.check(
            options.models,
            options.reference,
            options.data,
            terminal.step,
            bars,
            kinds=options.variants,
            plan=LatencyPlan(threads=options.threads),
            limits=limits,
            skip_bad=options.skip_bad,
        )
    try:
        arrays = record.write(result, options.json)
    finally:  # what was measured is shown also where it cannot be stored
        print(terminal.table(result))
    print(f"record: {options.json}, raw samples and outputs: {arrays}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[result.outcome]


def _verdict(options: argparse.Namespace) -> int:
    from harness import evidence, terminal
    from harness.verdict import EXIT_CODES as OUTCOME_CODES

    judged = evidence.again(options.record, options.policy)
    print(terminal.table(judged))
    return OUTCOME_CODES[judged.outcome]


def _selftest(options: argparse.Namespace) -> int:
    from harness import selftest, terminal

    cases = selftest.run(options.models, options.reference, options.data, terminal.step)
    print(terminal.cases(cases))
    if all(case.held for case in cases):
        return Exit.PASS
    return Exit.INCONCLUSIVE if all(case.held or case.given == selftest.NOT_RUN for case in cases) else Exit.FAIL


def _compare(options: argparse.Namespace) -> int:
    from harness import compare, terminal
    from harness.verdict import EXIT_CODES as OUTCOME_CODES

    found = compare.compare(options.before, options.after, anyway=options.anyway)
    print(terminal.runs(found))
    return OUTCOME_CODES[found.outcome]


def _flips(options: argparse.Namespace) -> int:
    from harness import evidence, flips, terminal
    from harness.files import check_writable, write_atomic

    if options.html:
        from harness.report import flips as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    record = evidence.again(options.record)
    print(terminal.flips(flips.of(record)))
    if options.html:
        write_atomic(options.html, page.page(record).encode())
        print(f"written: {options.html}")
    return Exit.PASS


def _explain(options: argparse.Namespace) -> int:
    from converters import calibration, manifest
    from harness import dataset, explain, terminal
    from harness.files import check_writable, write_atomic

    if options.html:
        from harness.report import explanation as page

        check_writable(options.html.parent)
    if options.images < 1:
        raise SetupError(f"--images {options.images}: expected at least 1")
    known = manifest.read(options.models)
    for kind in ("float32", options.kind):
        if kind not in known:
            raise SetupError(f"{options.models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
        manifest.verify(options.models, known[kind], known[kind].source_sha256)
    float32, quantized = (known[kind].path(options.models).read_bytes() for kind in ("float32", options.kind))
    images = calibration.choose(dataset.load(options.data), options.images).images
    with terminal.Bars() as bars:
        found = explain.explain(
            float32, quantized, dataset.to_input(images), partial(bars, f"layers of {options.kind}")
        )
    print(terminal.explanation(found))
    if options.html:
        model = str(known[options.kind].path(options.models))
        write_atomic(options.html, page.page(found, options.kind, model).encode())
        print(f"written: {options.html}")
    return Exit.PASS


def _policy(options: argparse.Namespace) -> int:
    from harness import policy

    print(policy.DEFAULTS.read_text(), end="")
    return Exit.PASS


def _add_policy(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--policy", type=Path, metavar="FILE", help="limits of your own (default: what harness policy prints)"
    )


def _evaluate(options: argparse.Namespace) -> int:
    import json

    from harness import terminal
    from harness.evaluate import KERAS, evaluate
    from harness.files import check_writable, write_atomic

    if options.classes < 2 or options.image_size < 1:
        given = f"--classes {options.classes} --image-size {options.image_size}"
        raise SetupError(f"{given}: expected at least 2 classes and 1 pixel")
    for file in filter(None, (options.html, options.json)):
        check_writable(file.parent)
    if options.model.suffix == KERAS:
        check_writable(options.models)
    if options.html:
        from harness.report import evaluation as page  # fails here where the extra is missing, before the work
    with terminal.Bars() as bars:
        done = evaluate(
            options.model,
            options.data,
            options.models,
            terminal.step,
            bars,
            classes=options.classes,
            image_size=options.image_size,
            skip_bad=options.skip_bad,
        )
    try:
        if options.json:
            write_atomic(options.json, (json.dumps(done.to_json(), indent=2, allow_nan=False) + "\n").encode())
        if options.html:
            write_atomic(options.html, page.page(done).encode())
    finally:  # what was found is shown also where it cannot be stored
        print(terminal.evaluation(done))
    if written := [str(file) for file in (options.json, options.html) if file]:
        print(f"written: {', '.join(written)}")
    return Exit.PASS


def _add_models(verb: argparse.ArgumentParser, what: str = "folder of variants") -> None:
    verb.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help=f"{what} (default: %(default)s)")


def _add_reference(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--reference", type=Path, default=MODEL, metavar="MODEL", help="the Keras model (default: %(default)s)"
    )


def _add_runtime(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="PYTHON",
        help=f"another Python, with an older runtime such as tflite-runtime, to {what}; may be repeated",
    )


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
