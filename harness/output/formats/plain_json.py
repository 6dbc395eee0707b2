"""Objects with a published schema, as JSON."""

from __future__ import annotations

from typing import Protocol

from harness.core import shapes
from harness.core.shapes import Shape


class Publishable(Protocol):
    @property
    def published(self) -> Shape: ...


def render(content: Publishable) -> str:
    """The JSON. NaN is rejected."""
    return shapes.encode(content.published).decode()
