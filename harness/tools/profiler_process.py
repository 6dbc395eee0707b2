"""Times of single operations by LiteRT's profiler, which its C library has and its Python classes do not offer.

    python -m harness.tools.profiler_process FILE.tflite INPUT.npy RUNS

A process of its own, because the library logs to standard error and may crash. Prints one JSON list per run, of
[name, type, index, microseconds]. One thread. tests/tools/test_op_profile.py checks the layout against the wheel.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import byref, c_char, c_char_p, c_int, c_int32, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

CPU = 1  # of the accelerators
WRITE = 1  # mode of a lock
OPERATOR, DELEGATED, INVOKE = 2, 8, 1  # types of events
WARM_UP = 5  # runs


class Event(ctypes.Structure):
    """litert/c/litert_profiler_event.h."""

    _fields_ = (
        ("tag", c_char_p),
        ("type", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("status", c_uint64),
        ("source", c_int),
    )


class Profiled:
    """A compiled model with the profiler on."""

    def __init__(self, path: Path) -> None:
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
        environment, model, options = c_void_p(), c_void_p(), c_void_p()
        self._compiled, self._profiler, signature = c_void_p(), c_void_p(), c_void_p()
        self._call("CreateEnvironment", 0, None, byref(environment))
        self._call("CreateModelFromFile", environment, str(path).encode(), byref(model))
        self._call("CreateOptions", byref(options))
        self._call("SetOptionsHardwareAccelerators", options, CPU)
        wanted, opaque = ctypes.create_string_buffer(b"enable_profiling = true\n"), c_void_p()
        self._kept = [wanted, ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)]  # the library reads them later
        self._call("CreateOpaqueOptions", b"runtime_options_string", wanted, self._kept[1], byref(opaque))
        self._call("AddOpaqueOptions", options, opaque)
        self._call("CreateCompiledModel", environment, model, options, byref(self._compiled))
        self._call("CompiledModelGetProfiler", self._compiled, byref(self._profiler))
        self._call("GetModelSignature", model, c_size_t(0), byref(signature))
        self._input = self._buffer(environment, signature, "Input")
        self._output = self._buffer(environment, signature, "Output")

    def feed(self, values: Any) -> None:
        """Set the input, [1, ...]."""
        content, host = np.ascontiguousarray(values).tobytes(), c_void_p()
        self._call("LockTensorBuffer", self._input, byref(host), WRITE)
        ctypes.memmove(host, content, len(content))
        self._call("UnlockTensorBuffer", self._input)

    def run(self) -> list[tuple[str, int, int, int]]:
        """One inference: tag, type, index and microseconds of each event."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        one = c_size_t(1)
        buffers = (one, byref(self._input), one, byref(self._output))
        self._call("RunCompiledModel", self._compiled, c_size_t(0), *buffers)
        self._call("StopProfiler", self._profiler)
        count = c_int()
        self._call("GetNumProfilerEvents", self._profiler, byref(count))
        events = (Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return [(event.tag.decode(), event.type, event.index, event.elapsed_us) for event in events]

    def _buffer(self, environment: c_void_p, signature: c_void_p, side: str) -> c_void_p:
        needs, tensor, buffer = c_void_p(), c_void_p(), c_void_p()
        kind = (c_char * 256)()  # element type, rank, dimensions, strides
        self._call(f"GetCompiledModel{side}BufferRequirements", self._compiled, c_size_t(0), c_size_t(0), byref(needs))
        self._call(f"GetSignature{side}TensorByIndex", signature, c_size_t(0), byref(tensor))
        self._call("GetRankedTensorType", tensor, kind)
        dimensions = (c_int32 * 10).from_buffer(kind)
        for place in range(2, 10):
            dimensions[place] = abs(dimensions[place])  # any batch: one
        self._call("CreateManagedTensorBufferFromRequirements", environment, kind, needs, byref(buffer))
        return buffer

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"LiteRt{name}")
        function.restype = c_int
        if status := function(*arguments):
            raise SystemExit(f"LiteRt{name}: status {status}")


def main(file: str, values: str, runs: str) -> None:
    model = Profiled(Path(file))
    model.feed(np.load(values))
    for _ in range(WARM_UP):
        model.run()
    for _ in range(int(runs)):
        print(json.dumps(model.run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
