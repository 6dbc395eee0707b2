"""What a page sends: facts, progress, results. Typed and capped; a result is a header in JSON and plain arrays."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, field

from harness.core.errors import SetupError
from harness.core.npz import Array
from harness.core.shapes import Shape, decode
from harness.run.job import Ran

MAX_MESSAGE_BYTES = 64_000
MAX_RESULT_BYTES = 2**28

Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{24}\Z")]
Text = Annotated[str, Meta(max_length=300)]
Size = Annotated[int, Meta(ge=0, le=2**31)]
Seconds = Annotated[float, Meta(gt=0, lt=10)]


class Gpu(Shape):
    """A WebGPU adapter. software: it is imitated by the processor."""

    name: Text
    software: bool
    float16: bool
    driver: Text | None = None


class Hello(Shape):
    """What a browser says of itself. page: of this load of it; browser: the same after a reload.

    clock_s: the smallest step of its clock. gpu_problem: why it has no WebGPU.
    """

    page: Id
    browser: Id
    name: Text
    system: Text
    model: Text
    architecture: Text
    cores: Annotated[int, Meta(ge=1, le=10_000)] | None
    secure: bool
    isolated: bool
    clock_s: Seconds
    gpu: Gpu | None
    gpu_problem: Text


class Say(Shape):
    """Progress of a task; `ended`: the tasks that were asked for are done, or cannot be; bye: the page is closed."""

    page: Id
    nonce: Text = ""
    task: Text | None = None
    done: Size = 0
    total: Size = 0
    variant: Text | None = None
    doing: Text = ""
    ended: Literal[0, 1] | None = None
    tail: Text = ""
    bye: bool = False


class ArrayHeader(Shape):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_@+.-]{1,200}\Z")]
    dtype: Literal["float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
    shape: Annotated[tuple[Size, ...], Meta(max_length=8)]


class Header(Shape):
    """Of a result. kinds: what was timed, in the order in which it was loaded."""

    page: Id
    nonce: Text
    task: Text
    ran: Ran
    kinds: Annotated[tuple[Text, ...], Meta(max_length=1000)] = ()
    arrays: Annotated[tuple[ArrayHeader, ...], Meta(max_length=10_000)] = field(default=())


def result(body: bytes) -> tuple[Header, dict[str, Array]]:
    """A result's header and arrays. Raises SetupError: cut short, too long, of other types, a name twice."""
    length = int.from_bytes(body[:4], "big")
    if len(body) < 4 + length:
        raise SetupError(f"a result of {len(body)} bytes: cut short, its header alone has {length}")
    header = decode(body[4 : 4 + length], Header, "a result's header")
    arrays: dict[str, Array] = {}
    at = 4 + length
    for entry in header.arrays:
        dtype = np.dtype(entry.dtype)
        size = prod(entry.shape) * dtype.itemsize
        if entry.name in arrays or at + size > len(body):
            raise SetupError(f"a result's array {entry.name} of {list(entry.shape)}: it is cut short, or there twice")
        arrays[entry.name] = np.frombuffer(body, dtype, prod(entry.shape), at).reshape(entry.shape)
        at += size
    if at != len(body):
        raise SetupError(f"a result of {len(body)} bytes: expected {at}")
    return header, arrays
