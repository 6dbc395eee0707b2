"""What runtimes and accelerators make of .tflite files: each is run there by the worker, as in a check.

Op versions alone do not tell which runtime can run a file. A runtime is named by the Python that has it, or by its
package: then it is installed once, into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray, as_classes, dequantize
from harness.core.cell import Accelerator, Cell
from harness.core.errors import SetupError, nearest
from harness.run import execute, job
from harness.run.devices import shell
from harness.run.devices.base import SILENCE_LIMIT_S
from harness.run.devices.bundle import cache, locked
from harness.run.devices.local import Local
from harness.run.job import Ran

THIS = ""  # the runtime of this Python
# By package: the version that is installed unless one is named, what else, and the Pythons that have wheels of it.
PACKAGES = {
    "tflite-runtime": ("2.14.0", ("numpy<2",), ("3.11", "3.10", "3.9")),
    "ai-edge-litert": ("2.3.0", ("numpy>=2,<3", "ml-dtypes"), ("3.13", "3.12", "3.11", "3.10")),
}
INSTALL_LIMIT_S = 900


@dataclass(frozen=True)
class Answers:
    """What a runtime made of one file: outputs [N, classes], or the problem. ran: None if it was never begun."""

    runtime: str
    outputs: FloatArray | None = None
    problem: str | None = None
    ran: Ran | None = None

    @cached_property
    def top1(self) -> tuple[int, ...]:
        return () if self.outputs is None else tuple(self.outputs.argmax(axis=1).tolist())


def answer(
    contents: Mapping[str, bytes],
    inputs: npt.NDArray[np.float32],
    runtime: str = THIS,
    accelerator: Accelerator = "cpu",
    silence_limit_s: float = SILENCE_LIMIT_S,
) -> dict[str, Answers]:
    """Each file's answers, by the names given, to float32 inputs [N, H, W, C].

    Raises SetupError: no such runtime, or no such accelerator here.
    """
    program = python(runtime)
    with tempfile.TemporaryDirectory(prefix="harness-runtime-") as folder:
        written = job.write(Path(folder), contents, inputs, None, job.ALL_CORES, (accelerator,))
        outputs = execute.run(written, lambda *_: None, Local(program), silence_limit_s=silence_limit_s)
    if outputs.interrupted:
        raise KeyboardInterrupt
    answers = {}
    for kind in contents:
        name = str(Cell(kind, accelerator))
        result, failure = outputs.results.get(name), outputs.failures.get(name)
        ran = result.ran if result else None
        answers[kind] = Answers(ran.runtime if ran else runtime or program, ran=ran)
        if failure:
            problem = failure.reasons[0].removeprefix(f"{accelerator}: ")
            answers[kind] = Answers(answers[kind].runtime, None, problem, ran)
        elif result:
            arrays = result.arrays
            real = dequantize(arrays["outputs"], float(arrays["scale"]), int(arrays["zero_point"]))
            answers[kind] = Answers(result.ran.runtime, as_classes(real), None, ran)
    return answers


def python(runtime: str) -> str:
    """The program of the Python that has a runtime: this one's, a path's, or that of a package, such as tflite-runtime
    or tflite-runtime==2.13.0, installed if need be. Raises SetupError."""
    if runtime == THIS:
        return sys.executable
    name, _, version = runtime.partition("==")
    if name in PACKAGES:
        return _installed(name, version or PACKAGES[name][0])
    if program := shutil.which(runtime):
        return program
    if os.sep in runtime:
        raise SetupError(f"--runtime {runtime}: no such program; name a Python, or {' or '.join(PACKAGES)}")
    raise SetupError(f"--runtime {runtime}: unknown; {nearest(runtime, PACKAGES)}, or the path of a Python")


def _installed(package: str, version: str) -> str:
    """The Python of an environment that has this package alone, from the cache or made for it. Raises SetupError."""
    folder = cache() / "runtimes" / f"{package}-{version}"
    program, complete = folder / "bin" / "python", folder / "complete"
    _, others, versions = PACKAGES[package]
    install = ["install", "--quiet", "--only-binary", ":all:", f"{package}=={version}", *others]
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not complete.exists():
            base = _base(versions)
            if uv := shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)):
                _run(package, [uv, "venv", "--quiet", "--clear", "--python", base, str(folder)])
                _run(package, [uv, "pip", *install, "--python", str(program)])
            else:
                _run(package, [base, "-m", "venv", "--clear", str(folder)])
                _run(package, [str(program), "-m", "pip", *install])
            complete.touch()
    return str(program)


def _base(versions: tuple[str, ...]) -> str:
    """A Python of one of these versions: this one, another of this machine, or for uv to fetch."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" in versions:
        return sys.executable
    present = (f"python{version}" for version in versions if shutil.which(f"python{version}"))
    return next(present, f"python{versions[0]}")


def _run(package: str, command: list[str]) -> None:
    """Raises SetupError."""
    try:
        done = shell.local(command, INSTALL_LIMIT_S)
        reason = " ".join(done.error.split())[:400] if done else f"not done within {INSTALL_LIMIT_S // 60} minutes"
    except OSError as error:
        done, reason = None, f"{command[0]}: {error.strerror}"
    if done is None or done.code:
        raise SetupError(
            f"--runtime {package}: it cannot be installed ({reason}); make an environment that has it, and name its "
            "Python"
        )
