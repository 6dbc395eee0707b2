"""Operations of a traced model that TFLite lacks, or that draw random numbers: named with their layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

RANDOM = re.compile(r"(Stateless)?(Random|Multinomial|TruncatedNormal|ParameterizedTruncatedNormal|Rng)")
OTHERWISE = (  # by what a name begins with
    ("Erf", "use the activation 'gelu', which is converted as a whole, or tanh"),
    ("ScaleAndTranslate", "resize with interpolation 'bilinear' or 'nearest'"),
    ("ResizeBicubic", "resize with interpolation 'bilinear' or 'nearest'"),
    ("ResizeArea", "resize with interpolation 'bilinear' or 'nearest', or use AveragePooling2D"),
    ("CropAndResize", "crop by slicing, then resize with interpolation 'bilinear'"),
    ("ImageProjectiveTransform", "leave it to the training's data pipeline"),
    ("RGBToHSV", "give the model RGB, or compute it from maximum and minimum"),
    ("HSVToRGB", "give the model RGB, or compute it from maximum and minimum"),
    ("AdjustHue", "leave it to the training's data pipeline"),
    ("DenseBincount", "sum keras.ops.one_hot over its axis"),
    ("Bincount", "sum keras.ops.one_hot over its axis"),
    ("HistogramFixedWidth", "sum keras.ops.one_hot over its axis"),
    ("FFT", "compute the transform before the model"),
    ("IFFT", "compute the transform before the model"),
    ("RFFT", "compute the transform before the model"),
    ("StringFormat", "take the printing out of the model"),
    ("PrintV2", "take the printing out of the model"),
    ("PyFunc", "write it in keras.ops"),
    ("EagerPyFunc", "write it in keras.ops"),
    ("AsString", "map texts before the model"),
    ("String", "map texts before the model"),
    ("TensorList", "give its loop a fixed number of steps, and convert with --batch 1"),
    ("Cumprod", "use exp of cumsum of log"),
    ("Tan", "use sin / cos"),
    ("Asinh", "use log(x + sqrt(x^2 + 1))"),
)
USUAL = "build the layer from operations that TFLite has, or compute it before the model"


def random_layer(concrete: Any, layers: list[str]) -> str | None:
    """In words, what draws random numbers in a traced function, another one at each call. None if nothing does."""
    nodes = list(_nodes(concrete))
    changes = any(kind.startswith("Assign") for kind, _ in nodes)  # the state of a seed
    for kind, name in nodes:
        if RANDOM.match(kind) and (changes or not kind.startswith("Stateless")):
            return f"{_where(name, layers)} draws random numbers while it predicts ({kind})"
    return None


def refusal(error: Exception, concrete: Any, layers: list[str]) -> str:
    """One line: the operations that the converter named, where they come from, and what to put instead."""
    kinds = dict.fromkeys(re.findall(r"'tf\.(\w+)' op (?:is neither|requires)", str(error)))
    if not kinds:
        text = " ".join(str(error).split())
        reason = re.search(r"error: (.*?)(?: \^| /|$)", text)
        return f"TFLiteConverter cannot convert it ({type(error).__name__}: {(reason[1] if reason else text)[:300]})"
    places = {kind: next((_where(name, layers) for k, name in _nodes(concrete) if k == kind), "") for kind in kinds}
    named = ", ".join(f"tf.{kind}" + (f" of {place}" if place else "") for kind, place in list(places.items())[:5])
    first = next(iter(kinds))
    way_out = next((text for start, text in OTHERWISE if first.startswith(start)), USUAL)
    return f"TFLite has no {named}: {way_out}"


def _nodes(concrete: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of every node of a traced function and of those that it calls."""
    definition = concrete.graph.as_graph_def()
    for nodes in (definition.node, *(function.node_def for function in definition.library.function)):
        for node in nodes:
            yield node.op, node.name


def _where(name: str, layers: list[str]) -> str:
    """The layer that a node's name begins with; the innermost that is known."""
    parts = [re.sub(r"_\d+$", "", part) for part in name.split("/")]
    whole = name.split("/")
    for part, plain in reversed(list(zip(whole[:-1], parts[:-1], strict=True))):
        if part in layers or plain in layers:
            return f"layer {part if part in layers else plain}"
    return f"operation {whole[-1]}"
