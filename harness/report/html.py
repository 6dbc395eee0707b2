"""Pages that are one file: no network, light and dark, pictures inside and each with a text alternative."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from harness.report.plots import DARK, LIGHT


def render(template: str, **values: Any) -> str:
    """A template of this package with its values filled in and escaped."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template(template).render(harness_version=version("tflite-harness"), **values)


def percent(share: float | None) -> str:
    """98.59%, or a dash where there is nothing to divide by."""
    return "-" if share is None else f"{share:.2%}"


def picture(draw: Callable[[], Figure], alt: str) -> Markup:
    """A figure drawn twice, for light and for dark pages."""
    light, dark = _svg(draw, LIGHT), _svg(draw, DARK)
    return Markup(
        '<picture><source media="(prefers-color-scheme: dark)" srcset="{}"><img src="{}" alt="{}"></picture>'
    ).format(dark, light, alt)


def image_uri(image: npt.NDArray[np.uint8]) -> str:
    """Grey or RGB pixels [H, W, channels] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


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
