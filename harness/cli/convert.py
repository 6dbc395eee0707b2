"""`harness convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.core.errors import Exit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from converters.recovery import Wish
    from harness.artifacts.outputs import FloatArray
    from harness.core.outcome import Outcome

    IntArray = npt.NDArray[np.int64]

EXAMPLE = "harness convert models/resnet164.keras --out models/tflite"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for variants and manifest.json")
    flags.add(
        parser,
        "--variants",
        help="comma-separated (default: float32,dynamic_range,int8; also: float16, int8_float_io, int16x8, "
        "int16x8_float_io)",
    )
    parser.add_argument(
        "--max-flips",
        type=flags.count(0),
        metavar="N",
        help="also make int8_mixed_float_io: int8, with as few layers in float32 as keep the flips within N",
    )
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="DIR",
        help="images from the training side on which --max-flips counts (default: the calibration images)",
    )
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument(
        "--recover",
        type=Path,
        metavar="DIR",
        help="also make int8_recovered from images of the training side: what is cheap is tried first, in the end "
        "quantization-aware training, until the policy is met",
    )
    wish.add_argument("--qat", type=Path, metavar="DIR", help="the same by quantization-aware training alone")
    parser.add_argument(
        "--learn-from",
        choices=("reference", "labels"),
        default="reference",
        help="what that training learns: the Keras model's answers, or the labels (default: %(default)s)",
    )
    parser.add_argument(
        "--training-steps", type=flags.count(), default=600, metavar="N", help="batches of 64 (default: %(default)s)"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        default=flags.CALIBRATION,
        metavar="DIR",
        help="images from the training side (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration-size",
        type=flags.count(),
        metavar="N",
        help="images used, classes in equal number (default: 220, or two of each class where these are more)",
    )
    parser.add_argument(
        "--batch",
        choices=("1", "any"),
        default="1",
        help="images that a file takes at once; with any number of them, accelerators refuse Flatten and Reshape "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--metadata",
        action="store_true",
        help="write TFLite metadata into the files: normalization, labels, source; other bytes, the same answers",
    )
    parser.add_argument("--author", default="", metavar="TEXT", help="of the model, in the metadata")
    parser.add_argument("--licence", default="", metavar="TEXT", help="of the model, in the metadata")
    parser.add_argument(
        "--integer-only",
        action="store_true",
        help="refuse where operations of an int8 or int16x8 variant stay float32",
    )
    flags.add(
        parser,
        "--data",
        default=None,
        help=f"test images, which must not be calibration images (default: {flags.DATA}, if it exists)",
    )
    flags.add(
        parser,
        "--accelerator",
        help="compare each variant on these of this machine's accelerators with the CPU, and name the operation that "
        "differs: gpu, gpu-fp32, npu, cpu-compiled; comma-separated",
    )
    flags.add(parser, "--model-config", "--runtime", "--import", *flags.LABELS, *flags.POLICY)


def run(options: argparse.Namespace) -> int:
    from converters.convert import Images, convert
    from converters.metadata import About
    from harness.artifacts.manifest import KINDS, RECOVERED
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.images import tensors
    from harness.output import terminal
    from harness.run import runtimes
    from harness.tools import trials

    for name in options.runtime:
        runtimes.python(name)  # refused, or installed, before the work
    variants = convert(
        options.model,
        options.out,
        Images(
            options.calibration,
            tuning=options.tuning,
            test=options.data
            or (flags.DATA if flags.DATA.is_dir() and options.calibration.suffix != tensors.SUFFIX else None),
            calibration_size=options.calibration_size,
            labelled=not options.unlabelled,
        ),
        terminal.step,
        kinds=options.variants or KINDS,
        max_flips=options.max_flips,
        wish=_wish(options),
        imports=options.imports,
        config=options.model_config,
        batch=1 if options.batch == "1" else None,
        about=About(options.author, options.licence) if options.metadata or options.author or options.licence else None,
        integer_only=options.integer_only,
    )
    recovery = variants[RECOVERED].recovery if options.recover or options.qat else None
    code = OUTCOME_CODES[recovery.outcome] if recovery else Exit.PASS
    if not (options.runtime or options.accelerator):
        print(terminal.converted(variants, options.out))
        return code
    tried, wrong = trials.compare(
        options.out, variants, options.calibration, options.runtime, options.accelerator, terminal.step
    )
    print(terminal.converted(tried, options.out, wrong))
    return Exit.FAIL if wrong else code


def _wish(options: argparse.Namespace) -> Wish | None:
    """What `--recover` or `--qat` asks for, judged by the limits of int8_recovered."""
    from converters.quantization_training import Plan
    from converters.recovery import Wish
    from harness.artifacts.manifest import RECOVERED
    from harness.core.cell import Cell
    from harness.judge import policy, predictions

    images = options.recover or options.qat
    if images is None:
        return None
    limits = policy.load(options.policy)
    cell = Cell(RECOVERED)

    def gate(labels: IntArray, reference: FloatArray, outputs: FloatArray) -> Outcome:
        answers = predictions.Predictions(labels, reference, None, {cell: outputs})
        return predictions.judge(cell, answers, limits).verdict.outcome

    return Wish(images, gate, Plan(options.learn_from, options.training_steps), only_training=options.qat is not None)
