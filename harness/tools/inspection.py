"""A .tflite file: its operations, the runtime it needs, what XNNPACK takes of it, and why int8 may be slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import op_versions
from converters.keras_process import KerasProcess
from harness.artifacts import flatbuffer, metadata
from harness.artifacts.manifest import Quantization
from harness.artifacts.metadata import Metadata
from harness.core.cell import Accelerator
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.run import runtimes
from harness.run.job import Ran

IDENTIFIER = b"TFL3"  # at byte 4 of every .tflite
FLOAT_AT_VERSION_1 = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
TRIED_INPUTS = 4
TRIED_ACCELERATORS: tuple[Accelerator, ...] = ("gpu", "npu")
HANGS_S = 120.0  # without a sign of life, while an accelerator compiles
FILE = "file"  # what a job calls it
DELEGATE = "XNNPACK"


@dataclass(frozen=True)
class Operation:
    """One kind of operation. delegated: how many of them XNNPACK takes. None if unknown."""

    name: str
    types: str  # of the activations read -> written, such as int8 or float32 -> int8
    version: int
    count: int
    delegated: int | None


@dataclass(frozen=True)
class Tensor:
    """An input or output."""

    name: str
    shape: tuple[int, ...]  # as the file says; -1: any
    quantization: Quantization


@dataclass(frozen=True)
class OnAccelerator:
    """What an accelerator takes of the file. ran: None if this machine does not have it. problem: why it is not there,
    or does not run the file."""

    accelerator: Accelerator
    ran: Ran | None
    problem: str | None


@dataclass(frozen=True)
class Inspection:
    """A .tflite file."""

    file: str
    size_bytes: int
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    parts: int | None  # the delegate's pieces of the graph; None if unknown
    metadata: Metadata | None
    metadata_problem: str  # why it cannot be read
    oldest_runtime: str | None  # TensorFlow Lite version by op versions
    oldest_runtime_note: str  # where that comes from, or why it is unknown
    runs: tuple[runtimes.Answers, ...]
    accelerators: tuple[OnAccelerator, ...]
    slow: tuple[str, ...]  # causes of avoidable slowness


def inspect(
    path: Path, names: Sequence[str] = (), accelerators: Sequence[Accelerator] = TRIED_ACCELERATORS
) -> Inspection:
    """Read a file; run it in this runtime, in others, and on accelerators. Raises SetupError: not a .tflite file, no
    LiteRT, no such runtime."""
    for name in names:
        runtimes.python(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: expected a .tflite file; {error.strerror}") from error
    if content[4:8] != IDENTIFIER:
        raise SetupError(f"{path}: not a .tflite file (no {IDENTIFIER.decode()} at byte 4)")
    try:
        model = flatbuffer.read(content)
    except ModuleNotFoundError as error:
        raise SetupError(f"{error}; inspecting needs ai-edge-litert, tflite-runtime alone cannot") from error
    except Exception as error:  # the reader raises whatever damaged offsets lead to
        raise SetupError(f"{path}: damaged, or of a format too new ({type(error).__name__}: {error})") from error
    graph = model.subgraphs[0]
    inputs = _inputs(graph)
    with KerasProcess() as quiet:
        taken, parts = quiet.call(_delegated, content, len(graph.operators))
    oldest, note = _oldest_runtime(model, content)
    about, problem = None, ""
    try:
        about = metadata.read(content, model)
    except ValueError as error:
        problem = str(error)
    return Inspection(
        file=str(path),
        size_bytes=len(content),
        sha256=sha256(content),
        inputs=tuple(_tensor(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(_tensor(graph.tensors[i]) for i in graph.outputs),
        operations=_operations(model, taken),
        parts=parts,
        metadata=about,
        metadata_problem=problem,
        oldest_runtime=oldest,
        oldest_runtime_note=note,
        runs=() if inputs is None else _run(content, inputs, names),
        accelerators=() if inputs is None else tuple(_accelerated(content, inputs, accelerators)),
        slow=tuple(_slow(model, taken, parts)),
    )


def _delegated(content: bytes, count: int) -> tuple[list[bool] | None, int | None]:
    """Whether XNNPACK takes each operation of the main graph, and in how many parts. None if the file does not run.

    With delegate nodes kept single, each has the outputs of the operation that it replaces.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        whole, single = (
            Interpreter(model_content=content, experimental_disable_delegate_node_fusion=unfused)
            for unfused in (False, True)
        )
        whole.allocate_tensors()
        single.allocate_tensors()
        operations = single._get_ops_details()
        parts = sum(node["op_name"] == "DELEGATE" for node in whole._get_ops_details())
    except (RuntimeError, ValueError):
        return None, None
    taken = {int(i) for node in operations[count:] if node["op_name"] == "DELEGATE" for i in node["outputs"]}
    return [any(int(i) in taken for i in node["outputs"]) for node in operations[:count]], parts


def _operations(model: Any, taken: list[bool] | None) -> tuple[Operation, ...]:
    kinds: Counter[tuple[str, str, int]] = Counter()
    delegated: Counter[tuple[str, str, int]] = Counter()
    for graph in model.subgraphs:
        for index, operator in enumerate(graph.operators):
            version = model.operatorCodes[operator.opcodeIndex].version
            kind = flatbuffer.operation(model, operator), _types(model, graph, operator), version
            kinds[kind] += 1
            delegated[kind] += bool(taken and graph is model.subgraphs[0] and taken[index])
    return tuple(
        Operation(*kind, count, delegated[kind] if taken is not None else None)
        for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    )


def _types(model: Any, graph: Any, operator: Any) -> str:
    """The types of an operation's first activation and of its output, or of the output alone."""
    read, written = _activations(model, graph, operator), [graph.tensors[i] for i in operator.outputs]
    types = [_type(tensors[0]) for tensors in (read, written) if tensors]
    return " -> ".join(dict.fromkeys(types))


def _activations(model: Any, graph: Any, operator: Any) -> list[Any]:
    """The tensors that an operation reads and that are not constant."""
    tensors = [graph.tensors[i] for i in operator.inputs if i != -1]
    return [tensor for tensor in tensors if model.buffers[tensor.buffer].data is None]


def _type(tensor: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.type_to_name(tensor.type)).lower()


def _tensor(tensor: Any) -> Tensor:
    stored = tensor.quantization
    scale = float(stored.scale[0]) if stored is not None and stored.scale is not None else 0.0
    zero_point = int(stored.zeroPoint[0]) if scale and stored.zeroPoint is not None else 0
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return Tensor(tensor.name.decode(), tuple(map(int, shape)), Quantization(_type(tensor), scale, zero_point))


def _oldest_runtime(model: Any, content: bytes) -> tuple[str | None, str]:
    declared = op_versions.oldest_runtime(model)
    understated = any(
        flatbuffer.operation(model, operator) in FLOAT_AT_VERSION_1
        and model.operatorCodes[operator.opcodeIndex].version == 1
        and any(_type(graph.tensors[i]) in ("int8", "int16", "uint8") for i in operator.inputs if i != -1)
        for graph in model.subgraphs
        for operator in graph.operators
    )
    if declared and not understated:
        return declared, "as the file declares"
    why = "its op versions are all 1 though it is quantized" if understated else "the file declares none"
    if find_spec("tensorflow") is None:
        return None, f"{why}; TensorFlow, which could tell, is not installed"
    try:
        with KerasProcess() as keras:
            return op_versions.oldest_runtime(
                flatbuffer.read(keras.call(op_versions.declare, content))
            ), f"{why}; by its types"
    except SetupError as error:
        return None, f"{why}; {error}"


def _inputs(graph: Any) -> npt.NDArray[np.float32] | None:
    """Random inputs. None for a model of several inputs or outputs."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    shape = [max(1, int(size)) for size in graph.tensors[graph.inputs[0]].shape]
    return np.random.default_rng(0).random((TRIED_INPUTS, *shape[1:]), np.float32)


def _run(content: bytes, inputs: npt.NDArray[np.float32], names: Sequence[str]) -> tuple[runtimes.Answers, ...]:
    """The answers in this runtime and in the others."""
    return tuple(runtimes.answer({FILE: content}, inputs, name)[FILE] for name in (runtimes.THIS, *names))


def _accelerated(
    content: bytes, inputs: npt.NDArray[np.float32], accelerators: Sequence[Accelerator]
) -> Iterator[OnAccelerator]:
    for accelerator in accelerators:
        try:
            answers = runtimes.answer({FILE: content}, inputs[:1], accelerator=accelerator, silence_limit_s=HANGS_S)
        except SetupError as error:
            reason = str(error).partition(f"--accelerator {accelerator}: ")[2] or str(error)
            yield OnAccelerator(accelerator, None, f"not on this machine: {reason}")
        else:
            ran = answers[FILE].ran or Ran(accelerator, answers[FILE].runtime, taken=0)
            yield OnAccelerator(accelerator, ran, answers[FILE].problem)


def _slow(model: Any, taken: list[bool] | None, parts: int | None) -> Iterator[str]:
    """What may slow a quantized model down."""
    graph = model.subgraphs[0]
    names = [flatbuffer.operation(model, operator) for operator in graph.operators]
    types = [_types(model, graph, operator) for operator in graph.operators]
    if not any("int8" in kind or "int16" in kind for kind in types):
        return
    each = list(zip(names, types, graph.operators, strict=True))
    left = [f"{name} ({kind})" for (name, kind, _), on in zip(each, taken or [], strict=False) if not on]
    if left:
        rest = f"; it takes the rest in {parts} part{'' if parts == 1 else 's'}" if len(left) < len(each) else ""
        yield f"{DELEGATE} leaves {len(left)} of {len(each)} operations to plain kernels: {_counted(left)}{rest}"
    if "int16" in types:
        yield f"int16 activations: {DELEGATE} has no kernels for them"
    scaling = [row for row in each if row[0] in ("ADD", "MUL", "SUB")]
    constant = [name for name, _, o in scaling if len(_activations(model, graph, o)) < len(o.inputs)]
    if constant:
        yield f"{_counted(constant)} with a constant, perhaps unfolded batch norms: each requantizes its input"
    floats = [name for name, kind, _ in each if kind == "float32"]
    if floats:
        yield f"computed in float32: {_counted(floats)}"
    conversions = [name for name, kind, _ in each if name in ("QUANTIZE", "DEQUANTIZE") and "float32" in kind]
    ends = sum(_type(graph.tensors[i]) == "float32" for i in (*graph.inputs, *graph.outputs))
    if len(conversions) > ends:
        yield f"{len(conversions) - ends} conversions between float32 and integers inside"


def _counted(names: list[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())
