"""`harness explain`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit, SetupError

DOES = "say where a quantized variant loses its answers, layer by layer"
EXAMPLE = "harness explain int8"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help="a variant of the folder, beside its float32 one")
    flags.add_models(parser)
    parser.add_argument("--data", type=Path, default=flags.DATA, metavar="DIR", help="images (default: %(default)s)")
    parser.add_argument(
        "--images",
        type=int,
        default=55,
        metavar="N",
        help="images used, classes in equal number (default: %(default)s)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with the profile, all in one file")


def run(options: argparse.Namespace) -> int:
    from converters import calibration
    from harness.artifacts import manifest
    from harness.core.files import check_writable, write_atomic
    from harness.images import dataset
    from harness.output import terminal
    from harness.tools import explain

    if options.html:
        from harness.output.report import explanation as page

        check_writable(options.html.parent)
    if options.images < 1:
        raise SetupError(f"--images {options.images}: expected at least 1")
    known = manifest.read(options.models)
    for kind in ("float32", options.kind):
        if kind not in known:
            raise SetupError(f"{options.models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
        manifest.verify(options.models, known[kind], known[kind].source_sha256)
    float32, quantized = (known[kind].path(options.models).read_bytes() for kind in ("float32", options.kind))
    takes = manifest.spec_of({kind: known[kind] for kind in ("float32", options.kind)}, options.models)
    images = calibration.choose(dataset.load(options.data, takes), options.images)
    with terminal.Bars() as bars:
        progress = partial(bars, f"layers of {options.kind}")
        found = explain.explain(float32, quantized, images.inputs(), takes.class_names, progress)
    print(terminal.explanation(found))
    if options.html:
        model = str(known[options.kind].path(options.models))
        write_atomic(options.html, page.page(found, options.kind, model).encode())
        print(f"written: {options.html}")
    return Exit.PASS
