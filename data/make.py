"""Make this folder's images: `python -m data.make raw --per-class 2000`, `... test`, `... calibration`.

raw and calibration are drawn from MNIST's training split, test from its test split. An image depends only on
the seed, its set, class and number: asking for more adds images and changes none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data import ink, mnist
from harness.core import cores

HERE = Path(__file__).parent
NOISE = 10
CLASSES = 11
CHUNK = 64


@dataclass(frozen=True)
class Set:
    """One of the sets this folder holds."""

    split: mnist.Split
    looks: tuple[ink.Look, ...]  # taken in turn by the image's number
    per_class: int
    by_folder: bool  # <class>/<class>_<n>.jpg, else <class>_<n>.jpg


SETS = {
    "raw": Set("train", (ink.WIDE, ink.FIELD), 2000, by_folder=True),
    "calibration": Set("train", (ink.FIELD,), 20, by_folder=True),
    "test": Set("test", (ink.FIELD,), 200, by_folder=False),
}


def render(name: str, digits: mnist.Digits, label: int, number: int, seed: int) -> bytes:
    """The JPEG of one image of a set."""
    kind = SETS[name]
    look = kind.looks[number % len(kind.looks)]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), label, number])
    if label == NOISE:
        image = ink.noise(digits.images, look, rng)
    else:
        of_class = np.flatnonzero(digits.labels == label)
        order = np.random.default_rng([seed, zlib.crc32(name.encode()), label]).permutation(of_class)
        image = ink.digit(digits.images[order[number % len(order)]], label, digits.images, look, rng)
    return ink.encode(image, look, rng)


def make(name: str, out: Path, per_class: int, *, seed: int, source: Path | None, workers: int) -> int:
    """Write per_class images of each class of a set; the number written. What is there already is kept."""
    if per_class < 1:
        raise ValueError(f"--per-class {per_class}: expected at least 1")
    by_folder = SETS[name].by_folder
    for folder in [out / str(label) for label in range(CLASSES)] if by_folder else [out]:
        folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (label, number, out / (f"{label}/" if by_folder else "") / f"{label}_{number}.jpg")
        for number in range(1, per_class + 1)
        for label in range(CLASSES)
    ]
    missing = [task for task in wanted if not task[2].exists()]
    digits = _whole_strokes(SETS[name].split, source)
    with (
        ProcessPoolExecutor(
            # spawn: a fork of a process with threads (TensorFlow, OpenCV) can hang
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(name, digits, seed),
        ) as pool,
        tqdm(total=len(missing), unit=" images", desc=f"{name}: rendering", disable=not sys.stderr.isatty()) as bar,
    ):
        for done in pool.map(_write, _chunks(missing)):
            bar.update(done)
    return len(missing)


@cache
def _whole_strokes(split: mnist.Split, source: Path | None) -> mnist.Digits:
    """A split's strokes without those that the scanner broke to pieces."""
    digits = mnist.load(split, source)
    kept = np.array([ink.whole(stroke) for stroke in digits.images])
    return mnist.Digits(digits.images[kept], digits.labels[kept])


_job: tuple[str, mnist.Digits, int]


def _start(name: str, digits: mnist.Digits, seed: int) -> None:
    global _job
    cv2.setNumThreads(1)
    _job = name, digits, seed


def _write(tasks: Sequence[tuple[int, int, Path]]) -> int:
    name, digits, seed = _job
    for label, number, path in tasks:
        partial = path.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(render(name, digits, label, number, seed))
        partial.replace(path)
    return len(tasks)


def _chunks(tasks: list[tuple[int, int, Path]]) -> Iterator[list[tuple[int, int, Path]]]:
    iterator = iter(tasks)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 with one line where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m data.make", description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--per-class", type=int, metavar="N", help="images of each of the 11 classes")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the set's own, here)")
    parser.add_argument("--seed", type=int, default=2016)
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="folder with MNIST's four IDX files")
    parser.add_argument("--workers", type=int, default=cores.usable())
    parser.add_argument("--fresh", action="store_true", help="remove the set's folder first")
    options = parser.parse_args(arguments)
    out = options.out or HERE / options.set
    per_class = SETS[options.set].per_class if options.per_class is None else options.per_class
    try:
        if options.fresh and out.is_dir():
            shutil.rmtree(out)
        count = make(
            options.set, out, per_class, seed=options.seed, source=options.mnist, workers=max(1, options.workers)
        )
    except (mnist.MnistError, ValueError, OSError) as error:
        print(f"data.make: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {count} images written, {per_class} of each of {CLASSES} classes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
