"""Installed versions, by the packages' metadata: nothing is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

RUNTIMES = ("ai-edge-litert", "tflite-runtime", "numpy", "scipy")
MAKERS = ("tensorflow-cpu", "tensorflow", "keras", "litert-quantizer")


def installed(package: str) -> str | None:
    """A package's version. None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def text() -> str:
    """The harness, Python and the machine, then what runs variants and what makes them."""
    lines = [
        f"harness {installed('tflite-harness') or '(not installed)'}",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    ]
    for what, packages in (("runs variants", RUNTIMES), ("makes variants", MAKERS)):
        names = [f"{package} {number}" for package in packages if (number := installed(package))]
        lines.append(f"{what}: {', '.join(names) or 'nothing installed'}")
    return "\n".join(lines)
