"""Pages in one file: no network, light and dark, with embedded pictures that each have a text alternative."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from harness.output.formats import figures
from harness.output.report.style import DARK, LIGHT
from harness.tools import versions

LARGEST_PNG, THUMBNAIL = 32, 80  # pixels of a side


def fill(template: str, **values: Any) -> str:
    """A template of this package with its values filled in and escaped."""
    environment = Environment(
        loader=PackageLoader("harness.output.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": figures.percent, "duration": figures.duration, "size": figures.size}
    return environment.get_template(template).render(harness_version=versions.installed("tflite-harness"), **values)


def picture(draw: Callable[[], Figure], alt: str) -> Markup:
    """A figure drawn twice, for light and for dark pages."""
    light, dark = _svg(draw, LIGHT), _svg(draw, DARK)
    return Markup(
        '<picture><source media="(prefers-color-scheme: dark)" srcset="{}"><img src="{}" alt="{}"></picture>'
    ).format(dark, light, alt)


def image_uri(image: npt.NDArray[np.uint8]) -> str:
    """Grey or RGB pixels [H, W, channels]: a small image as a PNG, a large one as a small JPEG."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if max(picture.size) <= LARGEST_PNG:
        picture.save(buffer, "PNG", optimize=True)
        return _uri("image/png", buffer.getvalue())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(buffer, "JPEG", quality=70)
    return _uri("image/jpeg", buffer.getvalue())


PAGE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "harness",  # the same figure, the same bytes
}


def _svg(draw: Callable[[], Figure], colours: dict[Any, Any]) -> str:
    buffer = io.BytesIO()
    with matplotlib.rc_context(colours | PAGE):
        draw().savefig(buffer, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
