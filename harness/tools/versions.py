"""What is installed, by the packages' own metadata: nothing is imported for it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

RUNTIMES = ("ai-edge-litert", "tflite-runtime", "numpy", "scipy")
MAKERS = ("tensorflow-cpu", "tensorflow", "keras", "litert-quantizer")


def of(package: str) -> str | None:
    """A package's version; none where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def text() -> str:
    """The harness, Python and the machine, then what runs variants and what makes them."""
    lines = [
        f"harness {of('tflite-harness') or '(not installed)'}",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    ]
    for what, packages in (("runs variants", RUNTIMES), ("makes variants", MAKERS)):
        found = [f"{package} {number}" for package in packages if (number := of(package))]
        lines.append(f"{what}: {', '.join(found) or 'nothing installed'}")
    return "\n".join(lines)
