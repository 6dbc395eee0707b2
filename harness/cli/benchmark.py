"""`harness benchmark`."""

from __future__ import annotations

import argparse

from harness.cli import flags
from harness.errors import Exit, SetupError

DOES = "measure latency beside litert-benchmark's, and TensorFlow's benchmark_model's where you have it"
EXAMPLE = "harness benchmark --variants int8 --benchmark-model ./linux_x86-64_benchmark_model"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_models(parser)
    parser.add_argument("--variants", type=flags.names, metavar="KINDS", help="comma-separated (default: all)")
    parser.add_argument("--benchmark-model", metavar="PATH", help="TensorFlow's benchmark_model for this machine")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of both sides (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, metavar="N", help="of each pair (default: %(default)s)")
    flags.add_data(parser)


def run(options: argparse.Namespace) -> int:
    from statistics import median

    from tabulate import tabulate

    from converters import manifest
    from harness import dataset, peers, terminal

    if options.turns < 1:
        raise SetupError(f"--turns {options.turns}: expected at least 1")
    threads = flags.check_threads(options.threads)
    known = manifest.read(options.models)
    data = dataset.load(options.data, skip_bad=options.skip_bad)
    rows = []
    for kind in options.variants or known:
        if kind not in known:
            raise SetupError(f"{options.models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
        for peer in filter(None, (peers.LITERT, options.benchmark_model)):
            turns = []
            with terminal.Bars() as bars:
                for turn in peers.compare(peer, options.models, known[kind], data, threads, options.turns):
                    turns.append(turn)
                    bars(f"{kind} beside {peer}", len(turns), options.turns)
            ratios = sorted(turn.ratio for turn in turns)
            ours, theirs = (median(getattr(turn, side) for turn in turns) * 1e3 for side in ("ours", "theirs"))
            spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
            shown = (f"{ours:.3f} ms", f"{theirs:.3f} ms", f"{median(ratios):.3f}", spread)
            rows.append((kind, peer, turns[0].statistic, *shown))
    headers = ("variant", "beside", "of each", "ours", "theirs", "ours / theirs", "turns from")
    print(tabulate(rows, headers, tablefmt="simple", disable_numparse=True))
    return Exit.PASS
