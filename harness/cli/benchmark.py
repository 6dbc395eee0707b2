"""`harness benchmark`."""

from __future__ import annotations

import argparse

from harness.cli import flags
from harness.core.errors import Exit, SetupError

DOES = "measure latency beside litert-benchmark's, turn by turn"
EXAMPLE = "harness benchmark --variants int8"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_models(parser)
    parser.add_argument("--variants", type=flags.names, metavar="KINDS", help="comma-separated (default: all)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of both sides (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, metavar="N", help="of both sides (default: %(default)s)")
    flags.add_data(parser)


def run(options: argparse.Namespace) -> int:
    from statistics import median

    from harness.artifacts import manifest
    from harness.images import dataset
    from harness.output import terminal
    from harness.output.terminal.style import grid
    from harness.tools import litert_benchmark

    if options.turns < 1:
        raise SetupError(f"--turns {options.turns}: expected at least 1")
    threads = flags.check_threads(options.threads)
    known = manifest.read(options.models)
    for kind in options.variants or known:
        if kind not in known:
            raise SetupError(f"{options.models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
    data = dataset.load(options.data, manifest.spec_of(known, options.models), skip_bad=options.skip_bad)
    rows = []
    with terminal.Bars() as bars:
        for kind in options.variants or known:
            turns: list[litert_benchmark.Turn] = []
            for turn in litert_benchmark.compare(options.models, known[kind], data, threads, options.turns):
                turns.append(turn)
                bars(f"{kind} beside litert-benchmark", len(turns), options.turns)
            ratios = sorted(turn.ratio for turn in turns)
            ours, theirs = (median(getattr(turn, side) for turn in turns) * 1e3 for side in ("ours", "theirs"))
            spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
            rows.append((kind, f"{ours:.3f} ms", f"{theirs:.3f} ms", f"{median(ratios):.3f}", spread))
    print(grid(rows, ("variant", "ours", "litert-benchmark", "ours / theirs", "turns from")))
    return Exit.PASS
