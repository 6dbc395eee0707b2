"""TFLite metadata in a file: normalization, labels, author, licence and source, for Android Studio and ML libraries.

Written by the public schema, TensorFlow Lite Support's metadata_schema.fbs, whose own writer is not maintained any
more: a flatbuffer in the model's metadata entry TFLITE_METADATA, and the labels as a zip archive after the model.
Operations and weights stay as they are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import flatbuffer
from harness.artifacts.metadata import ENTRY, IDENTIFIER
from harness.images.spec import ModelSpec

LABELS = "labels.txt"
PARSER = "1.0.0"  # the oldest parser that knows all that is written here
GREYSCALE, RGB = 2, 1  # ColorSpaceType
FEATURES, IMAGE = 1, 2  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions
AXIS_LABELS = 2  # AssociatedFileType


@dataclass(frozen=True)
class About:
    """What a person says of a model. Empty: nothing."""

    author: str = ""
    licence: str = ""


@dataclass(frozen=True)
class _Byte:
    value: int


@dataclass(frozen=True)
class _Uint:
    value: int


@dataclass(frozen=True)
class _Table:
    """Fields by their place in the schema."""

    fields: Mapping[int, Any]


_FEATURES = _Table({0: _Byte(FEATURES), 1: _Table({})})


def add(content: bytes, kind: str, source_sha256: str, name: str, spec: ModelSpec, about: About) -> bytes:
    """A .tflite with metadata, the same bytes every time. name: of the Keras model."""
    model = flatbuffer.read(content)
    outputs = int(model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].shape[-1])
    labelled = not spec.outputs and outputs == len(spec.class_names)  # else one number stands for two classes
    description = f"{kind} of the Keras model {name}, whose SHA-256 is {source_sha256}"
    flatbuffer.set_metadata(model, ENTRY, _encoded(_model(name, description, spec, about, labelled)))
    packed = flatbuffer.pack(model)
    return _with_file(packed, LABELS, "".join(f"{label}\n" for label in spec.class_names)) if labelled else packed


def normalization(spec: ModelSpec) -> tuple[list[float], list[float]]:
    """mean and std of each channel, so that the input is (pixel - mean) / std for pixels of 0 to 255."""
    low, high = spec.pixel_range
    mean, std = np.zeros(spec.channels) + (spec.mean or 0), np.zeros(spec.channels) + (spec.std or 1)
    step = (high - low) / 255
    return ((mean - low) / step).tolist(), (std / step).tolist()


def _model(name: str, description: str, spec: ModelSpec, about: About, labelled: bool) -> _Table:
    fields = {0: name, 1: description, 3: [_Table({2: [_input(spec)], 3: _outputs(spec, labelled)})], 7: PARSER}
    return _Table(fields | ({4: about.author} if about.author else {}) | ({5: about.licence} if about.licence else {}))


def _input(spec: ModelSpec) -> _Table:
    if spec.input:
        return _Table({0: spec.input.name, 1: f"{spec.images}, as the model was trained", 3: _FEATURES})
    height, width, channels = spec.shape
    mean, std = normalization(spec)
    size = _Table({0: _Uint(width), 1: _Uint(height)})
    image = _Table({0: _Byte(RGB if channels == 3 else GREYSCALE), 1: size})
    return _Table(
        {
            0: "image",
            1: f"{spec.images}; real values, before quantization, are (pixel - mean) / std",
            3: _Table({0: _Byte(IMAGE), 1: image}),
            4: [_Table({0: _Byte(NORMALIZATION), 1: _Table({0: _floats(*mean), 1: _floats(*std)})})],
            5: _stats(*spec.input_range),
        }
    )


def _outputs(spec: ModelSpec, labelled: bool) -> list[_Table]:
    if spec.outputs:
        return [
            _Table({0: output.name, 1: f"{output.kind} {list(output.shape)}", 3: _FEATURES}) for output in spec.outputs
        ]
    what = f"of {len(spec.class_names)} classes" if labelled else f"of {spec.class_names[1]}"
    fields = {0: "probability", 1: f"the probability {what}", 3: _FEATURES, 5: _stats(0.0, 1.0)}
    labels = _Table({0: LABELS, 1: "the classes' names, in the order of the outputs", 2: _Byte(AXIS_LABELS)})
    return [_Table(fields | ({6: [labels]} if labelled else {}))]


def _stats(low: float, high: float) -> _Table:
    return _Table({0: _floats(high), 1: _floats(low)})


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def _encoded(root: _Table) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, root), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _written(builder: Any, value: Any) -> int:
    """Where a string, vector or table was written."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, Sequence):
        parts = [_written(builder, part) for part in value]
        builder.StartVector(4, len(parts), 4)
        for place in reversed(parts):
            builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())
    scalars = (_Byte, _Uint)
    places = {n: _written(builder, part) for n, part in value.fields.items() if not isinstance(part, scalars)}
    builder.StartObject(max(value.fields, default=-1) + 1)
    for number, part in value.fields.items():
        if isinstance(part, _Byte):
            builder.PrependUint8Slot(number, part.value, 0)
        elif isinstance(part, _Uint):
            builder.PrependUint32Slot(number, part.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, places[number], 0)
    return int(builder.EndObject())


def _with_file(content: bytes, name: str, text: str) -> bytes:
    """A file in a zip archive after the content, which may have archives in it; the same bytes every time."""
    buffer = io.BytesIO(content)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), text.encode())
    return buffer.getvalue()
