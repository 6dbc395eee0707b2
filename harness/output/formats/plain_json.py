"""What has a published shape, as JSON."""

from __future__ import annotations

import json
from typing import Any, Protocol


class Published(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def render(content: Published) -> str:
    """The JSON. NaN is rejected."""
    return json.dumps(content.to_json(), indent=2, allow_nan=False) + "\n"
