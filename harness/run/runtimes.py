"""Which runtimes load a .tflite and predict alike: it is run there, each time in a process of its own.

Op versions alone do not tell. Run as a program, in the Python of the runtime to try, this file predicts with one file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LIMIT_S = 300.0


@dataclass(frozen=True)
class Answers:
    """What a runtime made of one file: top-1 classes [N], or the problem."""

    runtime: str
    top1: tuple[int, ...]
    problem: str | None


def answer(contents: Mapping[str, bytes], inputs: np.ndarray, python: str = sys.executable) -> dict[str, Answers]:
    """Each file's answers, by the names given, to float32 inputs [N, H, W, C] in another Python's runtime."""
    from harness.core import cores  # not where this file is run as a program

    with tempfile.TemporaryDirectory(prefix="harness-runtime-") as scratch, ThreadPoolExecutor(cores.usable()) as pool:
        np.save(Path(scratch) / "inputs.npy", inputs)
        pending = {
            kind: pool.submit(_answer, Path(scratch), kind, content, python) for kind, content in contents.items()
        }
        return {kind: future.result() for kind, future in pending.items()}


def _answer(scratch: Path, kind: str, content: bytes, python: str) -> Answers:
    folder = scratch / kind
    folder.mkdir()
    (folder / "model.tflite").write_bytes(content)
    command = [python, __file__, str(folder)]
    name, result = folder / "runtime.txt", folder / "top1.npy"
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False)
    except OSError as error:
        return Answers(python, (), f"cannot be started: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Answers(_name(name, python), (), f"no answer within {LIMIT_S:.0f} s")
    if done.returncode:
        return Answers(_name(name, python), (), _reason(done.stderr) or f"exit code {done.returncode}")
    return Answers(_name(name, python), tuple(np.load(result).tolist()), None)


def _reason(said: str) -> str:
    """An exception's text, which may have several lines, without its traceback; or the last line."""
    lines = said.strip().splitlines()
    raised = [index for index, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    return " ".join(lines[raised[-1] if raised else -1 :])[:300]


def _name(file: Path, python: str) -> str:
    return file.read_text() if file.exists() else python


def main(arguments: Sequence[str]) -> None:
    """A folder with model.tflite, and inputs.npy above it: writes runtime.txt and top1.npy into it."""
    import worker  # type: ignore[import-not-found]  # beside this file; needs standard library, NumPy and a runtime

    folder = Path(arguments[0])
    (folder / "runtime.txt").write_text(worker.find_runtime()[1])
    model = worker.load((folder / "model.tflite").read_bytes(), 1)
    top1 = []
    for image in model.quantize(np.load(folder.parent / "inputs.npy")):
        model.set(image)
        model.invoke()
        answer, (scale, zero_point) = model.get(), model.output_quantization
        middle = 0.5 / scale + zero_point if scale else 0.5  # of a single number, which two classes share
        top1.append(int(answer.argmax() if answer.size > 1 else answer.item() > middle))
    np.save(folder / "top1.npy", np.array(top1))


if __name__ == "__main__":
    main(sys.argv[1:])
