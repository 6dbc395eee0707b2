"""Files that a command writes when its work is done."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.core.files import check_writable, write_atomic

STANDARD_OUTPUT = Path("-")


class Outputs:
    """Formats and their files: a module of harness.output with a function `render` -> path, None if not asked for.

    Raises SetupError at once if a folder cannot be written or a format's extra is missing, before the work is done.
    """

    def __init__(self, formats: Mapping[str, Path | None]) -> None:
        asked = {module: path for module, path in formats.items() if path}
        for path in asked.values():
            check_writable(path.parent)
        self._renderers = [(import_module(f"harness.output.{module}").render, path) for module, path in asked.items()]
        self._to_standard_output = STANDARD_OUTPUT in asked.values()

    def show(self, text: str) -> None:
        """Print a text for people, unless standard output takes one of the files."""
        if not self._to_standard_output:
            print(text)

    def write(self, *content: Any) -> None:
        """Render the content in each format; each file is written atomically."""
        for render, path in self._renderers:
            text = render(*content)
            if path == STANDARD_OUTPUT:
                print(text, end="")
            else:
                write_atomic(path, text.encode())
                print(f"written: {path}")
