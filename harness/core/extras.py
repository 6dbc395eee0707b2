"""Packages that only some commands need: the extras of pyproject.toml."""

from __future__ import annotations

import sys

from harness.core.errors import SetupError

NEWEST_PYTHON_FOR_TENSORFLOW = (3, 13)


def missing(extra: str, reason: str, python: tuple[int, int] = sys.version_info[:2]) -> SetupError:
    """An error that says how to install an extra: from the clone, because no package index has the harness."""
    if extra == "convert" and python > NEWEST_PYTHON_FOR_TENSORFLOW:
        newest = ".".join(map(str, NEWEST_PYTHON_FOR_TENSORFLOW))
        return SetupError(
            f"{reason}; TensorFlow has no wheels for Python {python[0]}.{python[1]}: run this step with Python 3.11 to "
            f"{newest}"
        )
    return SetupError(f"{reason}; in the harness's folder: pip install '.[{extra}]'")
