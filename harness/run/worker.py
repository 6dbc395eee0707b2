"""The worker: runs a job folder's tasks and writes the variants' predictions and latencies.

    python worker.py JOB [--tied]

One file on purpose: it is copied to the device and needs the standard library, NumPy and one runtime (ai-edge-litert
or tflite-runtime), nothing of the harness. Tasks that have a result are not run again. Progress goes to standard
output, one JSON object per line. --tied: end when standard input ends.
"""

import contextlib
import ctypes
import gc
import hashlib
import importlib
import importlib.metadata
import io
import itertools
import json
import math
import mmap
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

RUNTIMES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"))
COMPILED = "cpu-compiled"
CPUS = ("cpu", COMPILED)  # the accelerators that are this machine's processor
REPORT_EVERY = 32  # images
REPORT_S = 10.0  # of a model that takes longer for them: a worker that is silent too long is stopped
CONTROL = "control"  # a second instance of a variant's file
COLD, ENERGY = "cold", "energy"  # modes: harness.run.latency_plan.Mode
METER_S = 0.25  # between readings of power
MAX_TIMED_IMAGES = 256
LEAD_IN = 2  # inferences before each block
SETTLED = 1.02  # largest / smallest of the warm-up's last medians
CPU = "sys/devices/system/cpu"
PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
MAX_THERMOMETERS = 8
STATE = (
    "clock_s",
    "cpu_s",  # of this process
    "others_s",  # processor time of all other processes on our cores: the mean over these cores
    "steal_s",  # the hypervisor's, likewise
    "preempted",  # times, this process
    "frequency_hz",  # the slowest of our cores
    "temperature_c",  # the hottest sensor of the processor
    "throttled",  # now: bits on a Raspberry Pi, 0 to 6 on Android
    "throttle_count",  # times since boot, over all cores
    "battery_percent",
)
# Names of a result's arrays: of answers, of a process that measures latency, of each cell in it.
ANSWERS = ("outputs", "scale", "zero_point", "input_means")
PROCESS = ("kinds", "control", "order", "state", "memory", "cores", "governor", "mode", "cached",
           "energy_j", "energy_source")  # fmt: skip
TIMES = ("samples", "warmup", "settled", "load", "first")
# Exit codes: a file is not the job's; the parent is gone; NoAcceleratorError; valgrind failed.
DAMAGED, TIE_BROKEN, NO_ACCELERATOR, NOT_COUNTED = 86, 87, 88, 89
PROFILED, PEAKS = "profiled", ("float_peak", "int8_peak")  # the files of a profile
PROFILE = ("samples", "events", "copied", *PEAKS)
PROFILE_WARM_UP, PEAK_RUNS, COPIED_BYTES = 5, 30, 256 << 20
COUNTED = 2  # inferences
EVENTS = ("Ir", "Dr", "Dw", "D1mr", "D1mw", "DLmr", "DLmw")  # of callgrind; the columns of `counts`
# The caches are fixed, so that the counts are those of no machine in particular.
CALLGRIND = ("--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no", "--cache-sim=yes",
             "--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64")  # fmt: skip
DUMP, ZERO, TOGGLE, START, STOP = (0x43540000 + number for number in (0, 1, 2, 4, 5))  # requests to callgrind
# x86-64: mov rax, rdi; xor edx, edx; then valgrind's mark (four rotations, xchg rbx, rbx); mov rax, rdx; ret
REQUEST = "4889f831d248c1c70348c1c70d48c1c73d48c1c7334887db4889d0c3"
NOT_ALL = "Some ops are not accelerated"  # LiteRT, of an accelerator that was asked for alone
# What LiteRT says of every model:
NOT_A_PROBLEM = r"npu_registry|InitGoogle|unknown SDK|compiler_plugin\.cc:312|buffer requirements"


class NoAcceleratorError(Exception):
    """This machine does not have the accelerator, or the tool: the reason, and what to install."""


class NotRunError(Exception):
    """The model is refused, or fails while it runs. ran: the cell's, with the problem."""

    def __init__(self, ran: dict[str, Any], problem: str) -> None:
        super().__init__(problem)
        self.ran = ran | {"problem": problem}


class Interpreter:
    """The runtime's interpreter, with XNNPACK where the runtime has it: the accelerator "cpu".

    Every backend: quantize, set, invoke (which ends when the outputs were read), get, output_quantization, ran.
    inputs, outputs: details of the tensors.
    """

    def __init__(self, content: bytes, threads: int, accelerator: str = "cpu") -> None:
        self.accelerator = accelerator
        runtime, self.runtime = find_runtime()
        try:
            self._interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
            self.inputs = self._interpreter.get_input_details()
            self.outputs = self._interpreter.get_output_details()
            self._load(content, threads)
        except (ValueError, RuntimeError) as error:  # of a damaged file, or one newer than the runtime
            raise NotRunError(Interpreter.ran(self), f"refused: {' '.join(str(error).split())[:300]}") from error

    def _load(self, content: bytes, threads: int) -> None:
        self._interpreter.allocate_tensors()
        self.invoke: Callable[[], None] = self._interpreter.invoke

    def quantize(self, images: Any) -> Any:
        """float32 images as the model's input type, each with a batch axis of its own: [N, 1, H, W, C]."""
        scale, zero_point = self.inputs[0]["quantization"]
        dtype = self.inputs[0]["dtype"]
        images = images[:, np.newaxis]
        if not scale:
            return images.astype(dtype)
        limits = np.iinfo(dtype)
        return np.clip(np.round(images / scale + zero_point), limits.min, limits.max).astype(dtype)

    def set(self, *tensors: Any) -> None:
        for details, tensor in zip(self.inputs, tensors, strict=True):
            self._interpreter.set_tensor(details["index"], tensor)

    def get(self) -> Any:
        """The raw output of the last inference, [classes]."""
        return self.get_all()[0][0]

    def get_all(self) -> list[Any]:
        """All raw outputs of the last inference, each with its batch axis."""
        return [self._interpreter.get_tensor(details["index"]) for details in self.outputs]

    def numbers(self) -> Any:
        """All that the last inference gave, in one row [numbers]: as stored, of several outputs as real numbers."""
        rows = [raw.reshape(-1) for raw in self.get_all()]
        if len(rows) == 1:
            return rows[0]
        real = []
        for row, details in zip(rows, self.outputs, strict=True):
            scale, zero_point = details["quantization"]
            real.append((row.astype(np.float32) - zero_point) * np.float32(scale) if scale else row.astype(np.float32))
        return np.concatenate(real)

    @property
    def output_quantization(self) -> tuple[float, int]:
        """Of `numbers`: 0 for real ones."""
        if len(self.outputs) > 1:
            return 0.0, 0
        scale, zero_point = self.outputs[0]["quantization"]
        return float(scale), int(zero_point)

    def ran(self) -> dict[str, Any]:
        """What really ran; None for what is not known.

        software: the accelerator is imitated by the processor, so that its times say nothing. operations: of the model.
        taken: how many of them the accelerator runs. not_taken: the others, and why. warnings: of the library.
        problem: why the model was not compiled.
        """
        return {
            "accelerator": self.accelerator,
            "runtime": self.runtime,
            "adapter": None,
            "driver": None,
            "precision": None,
            "software": False,
            "operations": None,
            "taken": None,
            "not_taken": [],
            "fell_back": False,
            "warnings": [],
            "problem": None,
        }


class CompiledModel(Interpreter):
    """LiteRT's CompiledModel on the CPU: the accelerator "cpu-compiled". Raises NotRunError, NoAcceleratorError.

    An accelerator is first asked for alone, because LiteRT also calls a model fully accelerated whose operations all
    fell back to XNNPACK; if it does not take every operation, the CPU takes the others.
    """

    def _load(self, content: bytes, threads: int) -> None:
        self._operations = len(getattr(self._interpreter, "_get_ops_details", list)())
        del self._interpreter  # it said how the tensors are quantized
        try:
            litert = importlib.import_module("ai_edge_litert.compiled_model")
        except ModuleNotFoundError as error:
            raise NoAcceleratorError(
                f"{self.runtime} has no CompiledModel here ({error}); install ai-edge-litert 2.3 or newer"
            ) from error
        kinds, cpu = litert.HardwareAccelerator, litert.CpuOptions(num_threads=threads)
        kind, options = self._options(litert)
        alone = litert.Options(kind, cpu if kind == kinds.CPU else None, **options)
        self._lines: list[str] = []
        for self.fell_back, asked in ((False, alone), (True, litert.Options(kind | kinds.CPU, cpu, **options))):
            if not (failure := self._compile(litert, content, asked)):
                return
            self._check_available()
            if NOT_ALL not in failure:
                break
        raise NotRunError(self.ran() | {"taken": 0}, f"not compiled: {last_problem(self._lines, failure)}")

    def _compile(self, litert: Any, content: bytes, options: Any) -> str:
        """Compile and make the buffers; the library's exception, or nothing."""
        with Log() as log:
            try:
                model = litert.CompiledModel.from_buffer(content, options=options)
                inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
                for buffer, details in zip(inputs, self.inputs, strict=True):
                    buffer.write(np.zeros(buffer.get_tensor_details()["shape"], details["dtype"]))
                failure = ""
            except (RuntimeError, ValueError) as error:  # ValueError: int16, for which the buffers have no type
                failure = str(error) or "no reason given"
        self._lines += log.lines
        if not failure:
            shapes = [tuple(buffer.get_tensor_details()["shape"]) for buffer in outputs]
            types = [(math.prod(shape), details["dtype"]) for shape, details in zip(shapes, self.outputs, strict=True)]

            def run_and_read() -> None:
                model.run_by_index(0, inputs, outputs)
                self._read = [buffer.read(*kind) for buffer, kind in zip(outputs, types, strict=True)]

            def invoke() -> None:
                try:
                    run_and_read()
                except RuntimeError:
                    self._explain_failure(run_and_read)

            self.invoke, self._buffers, self._shapes, self._content = invoke, inputs, shapes, content
        return failure

    def _explain_failure(self, run: Callable[[], None]) -> None:
        """Once more, to hear what the library says of it. Raises NotRunError if it fails again."""
        with Log() as log:
            try:
                run()
                return
            except RuntimeError as error:
                failure = str(error)
        raise NotRunError(self.ran(), f"failed while running: {last_problem(log.lines, failure)}")

    def _options(self, litert: Any) -> tuple[Any, dict[str, Any]]:
        """The kind of accelerator, and the options that are its own."""
        return litert.HardwareAccelerator.CPU, {}

    def _check_available(self) -> None:
        """Raise NoAcceleratorError where this machine has no accelerator of the kind, by what LiteRT logged."""

    def set(self, *tensors: Any) -> None:
        for buffer, tensor in zip(self._buffers, tensors, strict=True):
            buffer.write(tensor)

    def get_all(self) -> list[Any]:
        return [values.reshape(shape) for values, shape in zip(self._read, self._shapes, strict=True)]


class Gpu(CompiledModel):
    """LiteRT's GPU accelerator, WebGPU over Vulkan: "gpu", which may compute in float16, and "gpu-fp32"."""

    def _options(self, litert: Any) -> tuple[Any, dict[str, Any]]:
        options = litert.GpuOptions(enforce_f32=self.accelerator == "gpu-fp32")
        return litert.HardwareAccelerator.GPU, {"gpu_options": options}

    def _check_available(self) -> None:
        log = "\n".join(self._lines)
        if "GPU accelerator could not be loaded" in log:
            raise NoAcceleratorError(f"{self.runtime} has no GPU accelerator here; install ai-edge-litert whole")
        if "Selected adapter" not in log:
            lacking = ", ".join(dict.fromkeys(re.findall(r"(?m)^Warning: (?:Vulkan )?(.+) required", log)))
            refused = ", ".join(f"{device.name} ({device.driver})" for device in vulkan_devices())
            reason, needed = "finds no Vulkan driver", "the GPU's"
            if refused:
                reason, needed = f"refuses {refused}: it lacks {lacking or 'what LiteRT needs'}", "a newer"
            raise NoAcceleratorError(
                f"LiteRT {reason} (No adapters found); install {needed} Vulkan driver and libvulkan1 (Debian 13: "
                "mesa-vulkan-drivers); to check predictions without a GPU install Debian's chromium and set "
                "VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json"
            )

    def ran(self) -> dict[str, Any]:
        log = "\n".join(self._lines)
        adapter = search(r"Selected adapter: (.+?), arch=", log)
        device = next((device for device in vulkan_devices() if device.name == adapter), VulkanDevice())
        left = search(r"remaining (\d+) operations will run on the CPU", log)
        enforced = self.accelerator == "gpu-fp32"
        return super().ran() | {
            "adapter": adapter,
            "driver": device.driver,
            "software": device.software or "adapterType=CPU" in log,
            "precision": "float32" if enforced or device.float16 is False else "float16 where LiteRT chooses it",
            "operations": self._operations,
            "taken": self._operations - int(left or 0),
            "not_taken": not_supported(self._lines),
            "fell_back": self.fell_back,
            "warnings": warnings(self._lines),
        }


class Npu(CompiledModel):
    """A vendor's compiler plugin and dispatch library, "npu". The wheel's is Intel's, through OpenVINO.

    Where there is no NPU, OpenVINO compiles for the processor: the same path, which is not an NPU and says so.
    """

    def _options(self, litert: Any) -> tuple[Any, dict[str, Any]]:
        device = "NPU" if list(Path("/dev/accel").glob("accel*")) else "CPU"
        openvino = litert.IntelOpenVinoOptions
        options = openvino(graph_backend=openvino.GRAPH_BACKEND[device])
        return litert.HardwareAccelerator.NPU, {"intel_openvino_options": options}

    def _check_available(self) -> None:
        if not any("Loaded plugin at" in line for line in self._lines):
            reason = (
                search(r"Could not load shared library \S+: (.+)", "\n".join(self._lines)) or "no compiler plugin found"
            )
            raise NoAcceleratorError(
                f"LiteRT finds no NPU's compiler ({reason}); install Intel's: pip install openvino==2026.3.1 "
                "(tflite-harness[npu]), x86-64 only"
            )

    def ran(self) -> dict[str, Any]:
        log = "\n".join(self._lines)
        device = search(r"Using Intel OpenVINO device: (\w+)\n(?:.*\n)*?.*Initialize SUCCESS", log)
        selected = search(r"selected (\d+) ops", log) if device else "0"
        codes = dict.fromkeys(re.findall(r"op type (\d+) is not supported", log))
        bfloat16 = re.search(r"\b(avx512_bf16|amx_bf16)\b", text("/proc/cpuinfo"))
        return super().ran() | {
            "adapter": f"OpenVINO on {processor()}: not an NPU" if device == "CPU" else device and f"OpenVINO {device}",
            "driver": f"OpenVINO {version('openvino')}, {search(r'successfully: (.+)', log)}" if device else None,
            "software": device == "CPU",
            "precision": "bfloat16" if device == "CPU" and bfloat16 else "OpenVINO's choice" if device else None,
            "operations": self._operations,
            "taken": int(selected or self._operations),
            "not_taken": [operation_name(int(code)) for code in codes],
            "fell_back": self.fell_back,
            "warnings": warnings(self._lines),
            "problem": last_problem(self._lines, "") if self.fell_back and not device else None,
        }


BACKENDS = {"cpu": Interpreter, COMPILED: CompiledModel, "gpu": Gpu, "gpu-fp32": Gpu, "npu": Npu}


def load(content: bytes, threads: int, accelerator: str = "cpu") -> Interpreter:
    """A model, ready to run. Raises NotRunError, NoAcceleratorError."""
    return BACKENDS[accelerator](content, threads, accelerator)


class Log:
    """While it is open, what libraries write to standard error, by file descriptor: lines, once it is closed.

    Passed on as it comes, so that the last line before a crash arrives, too.
    """

    def __enter__(self) -> "Log":
        self._stderr, self._folder = os.dup(2), tempfile.TemporaryDirectory(prefix="worker-log-")
        self._file = Path(self._folder.name) / "log"
        read, write = os.pipe()
        self._tee = subprocess.Popen(["tee", self._file], stdin=read, stdout=self._stderr)
        os.dup2(write, 2)
        os.close(read)
        os.close(write)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._tee.wait()
        self.lines = text(self._file).splitlines()
        self._folder.cleanup()


def not_supported(lines: list[str]) -> list[str]:
    """The operations that the GPU's delegate leaves, each once, with its reasons."""
    begins = [number for number, line in enumerate(lines, start=1) if "not supported by GPU delegate:" in line]
    listed = itertools.takewhile(
        re.compile(r"(?!ERROR|INFO|WARNING)[A-Z0-9_]+: ").match, lines[min(begins, default=len(lines)) :]
    )
    return list(dict.fromkeys(listed))


def warnings(lines: list[str]) -> list[str]:
    """The library's warnings about this model, each once, without time and place."""
    chosen = [line for line in lines if re.match(r"W\d{4} |WARNING: ", line) and not re.search(NOT_A_PROBLEM, line)]
    return list(dict.fromkeys(map(stripped, chosen)))


def last_problem(lines: list[str], error: str) -> str:
    """The last line of a log, and else of an exception, that says what went wrong rather than where, or that it did."""
    useless = NOT_A_PROBLEM + r"|(?i:failed to (?:invoke|modify graph))|\.\w+:\d+[:\]]?\s*$"
    problem = r"^E\d{4} |ERROR|Error|Exception|[Ff]ailed|[Cc]an(?:no|')t|not supported|only supports|VK_ERROR|[Mm]emory"
    for source in (lines, error.splitlines()):
        for line in reversed(source):
            if re.search(problem, line) and not re.search(useless, line):
                return stripped(line)
    return stripped(error.splitlines()[-1]) if error else "no reason given"


def stripped(line: str) -> str:
    """A log line without severity, time, thread and source."""
    return re.sub(r"^(?:[EWI]\d{4} \S+\s+\d+ \S+\]|(?:ERROR|WARNING|INFO):(?: \[\S+:\d+\])?|└)\s*", "", line).strip()


class VulkanDevice(NamedTuple):
    """software: it is a processor. float16: None if unknown."""

    name: str = ""
    driver: str | None = None  # and its version
    software: bool = False
    float16: bool | None = None


def vulkan_devices() -> list[VulkanDevice]:
    """From vkGetPhysicalDeviceProperties2 and Features2; none if Vulkan does not answer."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return []

    def structure(shape: str, *values: int, size: int = 0) -> Any:
        content = struct.pack(shape, *values)
        return ctypes.create_string_buffer(content, size or len(content))

    application = structure("@iPPIPII", 0, 0, 0, 0, 0, 0, 1 << 22 | 1 << 12)  # Vulkan 1.1
    create = structure("@iPIPIPIP", 1, 0, 0, ctypes.addressof(application), 0, 0, 0, 0)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if vulkan.vkCreateInstance(create, None, ctypes.byref(instance)):
        return []
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    handles = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
    devices = []
    for handle in map(ctypes.c_void_p, handles):
        driver = structure("@iP", 1000196000, 0, size=1024)  # VkPhysicalDeviceDriverProperties
        properties = structure("@iP", 1000059001, ctypes.addressof(driver), size=4096)
        vulkan.vkGetPhysicalDeviceProperties2(handle, properties)
        half = structure("@iP", 1000082000, 0, size=64)  # VkPhysicalDeviceShaderFloat16Int8Features
        features = structure("@iP", 1000059000, ctypes.addressof(half), size=1024)
        vulkan.vkGetPhysicalDeviceFeatures2(handle, features)
        _, number, _, _, kind = struct.unpack_from("5I", properties, 16)
        shown = f"{c_string(driver, 20)} {c_string(driver, 276)}".strip() or "driver"
        version = f"{number >> 22}.{number >> 12 & 0x3FF}.{number & 0xFFF}"
        has_half = bool(struct.unpack_from("I", half, 16)[0])
        devices.append(VulkanDevice(c_string(properties, 36), f"{shown} ({version})", kind == 4, has_half))
    vulkan.vkDestroyInstance(instance, None)
    return devices


def c_string(buffer: Any, offset: int) -> str:
    return str(buffer.raw[offset : offset + 256].split(b"\0")[0].decode(errors="replace"))


def operation_name(code: int) -> str:
    """Of a builtin operation's code, such as CONV_2D."""
    try:
        operators = importlib.import_module("ai_edge_litert.schema_py_generated").BuiltinOperator
    except ModuleNotFoundError:
        return f"operation {code}"
    return next((name for name, value in vars(operators).items() if value == code), f"operation {code}")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def find_runtime() -> tuple[Any, str]:
    """The interpreter's module, and name and version of its package."""
    for module, package in RUNTIMES:
        try:
            return importlib.import_module(module), f"{package} {importlib.metadata.version(package)}"
        except ModuleNotFoundError:
            continue
    raise SystemExit("no interpreter: install ai-edge-litert (or tflite-runtime with numpy<2)")


def run(folder: Path) -> None:
    """All of the job's tasks that have no result yet."""
    plan = json.loads((folder / "job.json").read_text())
    name, digest = plan["inputs"]
    inputs = np.load(io.BytesIO(verified(folder / name, digest)))
    (folder / "results").mkdir(exist_ok=True)
    about = {"nonce": plan["nonce"], "machine": machine()}
    waiting = [task for task in plan["tasks"] if not (folder / "results" / f"{task['name']}.npz").exists()]
    for task in waiting:
        if task.get("fresh") and task is not waiting[0]:
            return  # to be run again: this task wants a process of its own
        result = folder / "results" / f"{task['name']}.npz"
        say(task=task["name"], done=0, total=0)
        contents = {cell: verified(folder / file, digest) for cell, (file, digest) in task["variants"].items()}
        task["files"] = {cell: folder / file for cell, (file, _) in task["variants"].items()}
        try:
            arrays = DO[task["do"]](contents, inputs, task)
        except NotRunError as error:
            arrays = {"ran": error.ran}
        except NoAcceleratorError as error:
            asked = {"count": "--count: ", "profile": ""}.get(task["do"], f"--accelerator {task['accelerator']}: ")
            print(f"{asked}{error}", file=sys.stderr)
            raise SystemExit(NO_ACCELERATOR) from error
        partial = result.with_suffix(f".{os.getpid()}.part")
        with partial.open("wb") as file:
            shown = json.dumps({**about, "task": task["name"], "ran": arrays.pop("ran")})
            np.savez(file, about=np.array(shown), **arrays)
        partial.replace(result)
        if task.get("fresh"):
            return


def answers(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Every image through one variant: raw outputs [N, numbers] and how they become real numbers.

    input_means: of each image's input tensor as it was set, [N]: was it the right image, rightly quantized?
    ran: what ran. On the CPU there is one instance of one thread on each core, and the images are dealt out.
    """
    (content,) = contents.values()
    accelerator = task.get("accelerator", "cpu")
    instances = min(task["parallel"] or cores(), len(inputs)) if accelerator in CPUS else 1
    if accelerator != "cpu":
        say(task=task["name"], done=0, total=0, doing=f"compiling for {accelerator}")
    models = [load(content, 1, accelerator) for _ in range(instances)]
    probe = models[0]
    probe.set(probe.quantize(inputs[:1])[0])
    probe.invoke()
    outputs = np.empty((len(inputs), *probe.numbers().shape), probe.numbers().dtype)
    input_means = np.empty(len(inputs))
    runs = iter([slice(i, i + REPORT_EVERY) for i in range(0, len(inputs), REPORT_EVERY)])

    def work(model: Interpreter) -> Iterator[int]:
        for part in iter(lambda: next(runs, None), None):
            prepared = model.quantize(inputs[part])
            input_means[part] = prepared.reshape(len(prepared), -1).mean(axis=1, dtype=np.float64)
            reported, said = part.start, time.monotonic()
            for position, image in enumerate(prepared, start=part.start):
                model.set(image)
                model.invoke()
                outputs[position] = model.numbers()
                if time.monotonic() - said > REPORT_S:
                    yield position + 1 - reported
                    reported, said = position + 1, time.monotonic()
            yield part.start + len(prepared) - reported

    done = 0

    def report(model: Interpreter) -> None:
        nonlocal done
        for count in work(model):
            done += count
            say(task=task["name"], done=done, total=len(inputs))

    with ThreadPoolExecutor(len(models)) as pool:
        for future in [pool.submit(report, model) for model in models]:
            future.result()
    scale, zero_point = probe.output_quantization
    return {
        "outputs": outputs,
        "scale": np.float64(scale),
        "zero_point": np.int64(zero_point),
        "input_means": input_means,
        "ran": probe.ran(),
    }


def tensors(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """A part of a model, run on its own input tensors: inputs "0", "1", ..., each [N, ...], and outputs likewise."""
    (content,) = contents.values()
    say(task=task["name"], done=0, total=0, doing=f"compiling for {task['accelerator']}")
    model = load(content, 1, task["accelerator"])
    say(task=task["name"], done=0, total=0)
    runs = []
    for number in range(len(inputs["0"])):
        model.set(*(inputs[name][number] for name in inputs.files))
        model.invoke()
        runs.append(model.get_all())
    return {str(name): np.stack(values) for name, values in enumerate(zip(*runs, strict=True))} | {"ran": model.ran()}


def latency(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds per inference of every cell on real images: short blocks in the order A B C C B A, then B C A A C B.

    Of each in the task's `order`, CONTROL among them: <cell>.samples [its blocks, inferences], .warmup, .load, .first,
    .settled: whether the warm-up ended stable. kinds: as they were loaded; order [blocks]: whose each was;
    state [blocks, 3, STATE]: before, during and after; memory [2]: peak and steady resident bytes that loading and
    running the first of `kinds` added, its file not counted; cores: those the process was bound to; governor: theirs.
    Only `ran` for an accelerator in software, whose times say nothing. In the mode COLD the one sample is the time from
    the file on disk to the end of the first inference; cached: the share of the file that stayed in memory before. In
    the mode ENERGY energy_j [blocks]: joules of each, nan if they cannot be read; energy_source: what read them, or why
    nothing did.
    """
    accelerator = task.get("accelerator", "cpu")
    bound = pin(task["threads"]) if accelerator in CPUS else []
    gauges = Gauges(bound)
    cool_down(task)
    arrays: dict[str, Any] = {"cores": np.array(bound, int), "governor": np.array(governor(bound))}
    arrays |= {"control": np.array(task["control"] or ""), "mode": np.array(task["mode"])}
    contents = {CONTROL: contents.get(task["control"], b""), **contents}
    images = timed_images(inputs)
    meter = Meter() if task["mode"] == ENERGY else None
    if meter and not meter.joules:
        task = {**task, "block_s": 0.01}  # what is not known needs no long blocks
    subjects = {}
    doing = {} if accelerator == "cpu" else {"doing": f"compiling for {accelerator}"}
    for kind in filter(contents.get, task["order"]):
        say(task=task["name"], done=0, total=0, variant=kind, **doing)
        if task["mode"] == COLD:
            arrays["cached"] = np.float64(forget(task["files"][kind]))
        before, state = resident(reset_peak=True)[1], gauges.read()
        begin = time.perf_counter()
        try:
            content = task["files"][kind].read_bytes() if task["mode"] == COLD else contents[kind]
            model = load(content, task["threads"], accelerator)
            loaded = time.perf_counter()
            say(task=task["name"], done=0, total=0, variant=kind)
            (first,) = measure(model, model.quantize(images[:1]), 0, 1)
        except NotRunError as error:  # the task of its answers says so, too
            arrays.setdefault("ran", error.ran)
            continue
        arrays |= {f"{kind}.load": np.float64(loaded - begin), f"{kind}.first": first}
        arrays.setdefault("memory", resident() - before)
        arrays.setdefault("ran", model.ran())
        if arrays["ran"]["software"]:
            return {"ran": arrays["ran"]}
        if task["mode"] == COLD:
            arrays |= {f"{kind}.samples": (loaded - begin + first).reshape(1, 1), f"{kind}.warmup": first.reshape(1)}
            arrays |= {f"{kind}.settled": True, "kinds": np.array([kind]), "order": np.array([0])}
            return arrays | {"state": np.array([[state, gauges.read(), gauges.read()]])}
        prepared = model.quantize(images)
        arrays[f"{kind}.warmup"], arrays[f"{kind}.settled"] = warm_up(model, prepared, task)
        subjects[kind] = Subject(model, prepared, arrays[f"{kind}.warmup"], task)
    if not subjects:
        return {"ran": arrays["ran"]}
    kinds = list(subjects)
    order: list[int] = []
    states: list[list[list[float]]] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    for kind in turns(subjects, task):
        say(task=task["name"], **progress(subjects, task), variant=kind)
        if len(order) % len(kinds) == 0:
            gauges.ask()
        order.append(kinds.index(kind))
        states.append(subjects[kind].block(gauges, meter))
    gc.enable()
    if meter:
        arrays |= {"energy_j": np.array(meter.blocks), "energy_source": np.array(meter.source)}
    for kind, subject in subjects.items():
        arrays[f"{kind}.samples"] = np.array(subject.blocks)
    return arrays | {"kinds": np.array(kinds), "order": np.array(order), "state": np.array(states)}


def timed_images(inputs: Any) -> Any:
    """MAX_TIMED_IMAGES of the images at even distances, or all where there are no more."""
    timed = min(len(inputs), MAX_TIMED_IMAGES)
    return inputs[np.arange(timed) * len(inputs) // timed]


class Subject:
    """A variant under measurement: every block is the same number of inferences, on the images in turn."""

    def __init__(self, model: Interpreter, prepared: Any, warmup: Any, task: dict[str, Any]) -> None:
        self._model, self._prepared = model, prepared
        self._count = task["inferences"] or max(1, round(task["block_s"] / float(np.median(warmup[-3:]))))
        self._lead_in, self._pause_s = task["lead_in"], task["pause_s"]
        self.blocks: list[Any] = []
        self.seconds = 0.0

    def block(self, gauges: "Gauges", meter: "Meter | None" = None) -> list[list[float]]:
        """Measure one more; the machine's state before, during and after it.

        The first inferences bring the model back into the caches that the others used, and are not counted.
        """
        if meter:
            return self._metered(gauges, meter)
        start, half = len(self.blocks) * self._count, (self._count + 1) // 2
        measure(self._model, self._prepared, start, self._lead_in)
        before = gauges.read()
        first = measure(self._model, self._prepared, start, half, self._pause_s)
        during = gauges.read()
        second = measure(self._model, self._prepared, start + half, self._count - half, self._pause_s)
        self.blocks.append(np.concatenate([first, second]))
        self.seconds += float(self.blocks[-1].sum())
        return [before, during, gauges.read()]

    def _metered(self, gauges: "Gauges", meter: "Meter") -> list[list[float]]:
        """The same, with readings of the meter between inferences."""
        start, done = len(self.blocks) * self._count, 0
        parts: list[Any] = []
        measure(self._model, self._prepared, start, self._lead_in)
        before, begun = gauges.read(), meter.read()
        while done < self._count:
            per_part = max(1, round(METER_S / float(np.mean(parts[0])))) if parts else 1
            parts.append(measure(self._model, self._prepared, start + done, min(per_part, self._count - done)))
            done += len(parts[-1])
            meter.read()
        meter.blocks.append(meter.read() - begun)
        self.blocks.append(np.concatenate(parts))
        return [before, gauges.read(), gauges.read()]

    def has(self, samples: int, seconds: float) -> bool:
        return len(self.blocks) * self._count >= samples and self.seconds >= seconds


def progress(subjects: dict[str, Subject], task: dict[str, Any]) -> dict[str, int]:
    """How far a measurement is: in seconds where these decide, else in blocks."""
    if task["min_s"]:
        return {"done": int(min(subject.seconds for subject in subjects.values())), "total": math.ceil(task["min_s"])}
    done = sum(len(subject.blocks) for subject in subjects.values())
    return {"done": done, "total": 2 * task["turns"] * len(subjects) ** 2}


def turns(subjects: dict[str, Subject], task: dict[str, Any]) -> Iterator[str]:
    """Whose block is next, until every variant led as often as the task asks and has its least samples and seconds."""
    kinds, led = list(subjects), 0
    while led < task["turns"] * len(kinds) or not all(
        subject.has(task["min_samples"], task["min_s"]) for subject in subjects.values()
    ):
        lead = led % len(kinds)
        order = kinds[lead:] + kinds[:lead]
        yield from (*order, *reversed(order))
        led += 1


def warm_up(model: Interpreter, prepared: Any, task: dict[str, Any]) -> tuple[Any, bool]:
    """Seconds of the inferences until three medians in a row agree, at least warmup_s and at most six times that."""
    seconds = measure(model, prepared, 0, 2)
    medians: list[float] = []
    while True:
        part = measure(model, prepared, len(seconds), max(1, round(task["block_s"] / seconds[-1])))
        medians = [*medians[-2:], float(np.median(part))]
        seconds = np.concatenate([seconds, part])
        settled = len(medians) == 3 and max(medians) < SETTLED * min(medians)
        taken = seconds.sum()
        if taken >= task["warmup_s"] and (settled or taken >= 6 * task["warmup_s"]):
            return seconds, settled


def measure(model: Interpreter, prepared: Any, start: int, count: int, pause_s: float = 0.0) -> Any:
    """Seconds of `count` inferences, each on the next image; setting the input and the pause are not counted."""
    clock = time.perf_counter
    seconds = np.empty(count)
    for i in range(count):
        if pause_s:
            time.sleep(pause_s)
        model.set(prepared[(start + i) % len(prepared)])
        begin = clock()
        model.invoke()
        seconds[i] = clock() - begin
    return seconds


def profile(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Where the time of PROFILED goes, on one thread, and the peak rates of this machine for such work.

    samples [runs]: seconds of an inference without the profiler; events: JSON in bytes, of each run the tag, type,
    index and microseconds of each event, nothing if the task wants none; float_peak, int8_peak [PEAK_RUNS]: seconds of
    the products PEAKS; copied: of copying COPIED_BYTES.
    """
    pin(1)
    model = load(contents[PROFILED], 1)
    prepared = model.quantize(timed_images(inputs))
    say(task=task["name"], done=0, total=0)
    warm_up(model, prepared, {"warmup_s": 0.3, "block_s": 0.04})
    arrays = {"samples": measure(model, prepared, 0, task["runs"])}
    for name in PEAKS:
        product = load(contents[name], 1)
        random = np.random.default_rng(0).random((4, *product.inputs[0]["shape"]), np.float32)
        values = product.quantize(random)[:, 0]
        measure(product, values, 0, PEAK_RUNS)
        arrays[name] = measure(product, values, 0, PEAK_RUNS)
    say(task=task["name"], done=1, total=2)
    source, target = np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)
    taken = []
    for _ in range(4):
        begin = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - begin)
    arrays |= {"copied": np.float64(min(taken)), "events": np.zeros(0, np.uint8)}
    if task["events"]:
        profiled = Profiled(task["files"][PROFILED])
        profiled.feed(prepared[0])
        runs = [profiled.run() for _ in range(task["runs"] + PROFILE_WARM_UP)][PROFILE_WARM_UP:]
        arrays["events"] = np.frombuffer(json.dumps(runs).encode(), np.uint8)
    return arrays | {"ran": model.ran()}


class Event(ctypes.Structure):
    """litert/c/litert_profiler_event.h; tests/tools/test_op_profile.py checks the layout against the wheel."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_uint64),
        ("status", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class Profiled:
    """A compiled model with the profiler on."""

    def __init__(self, path: Path) -> None:
        try:
            litert = importlib.import_module("ai_edge_litert")
            self._library = ctypes.CDLL(str(Path(str(litert.__file__)).with_name("libLiteRt.so")))
        except (ModuleNotFoundError, OSError) as error:
            raise NoAcceleratorError(f"its runtime has no profiler ({error}); name a benchmark_model") from error
        environment, model, options = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._compiled, self._profiler, signature = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("CreateEnvironment", 0, None, ctypes.byref(environment))
        self._call("CreateModelFromFile", environment, str(path).encode(), ctypes.byref(model))
        self._call("CreateOptions", ctypes.byref(options))
        self._call("SetOptionsHardwareAccelerators", options, 1)  # the CPU
        wanted, opaque = ctypes.create_string_buffer(b"enable_profiling = true\n"), ctypes.c_void_p()
        self._kept = [wanted, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)]  # the library reads them later
        self._call("CreateOpaqueOptions", b"runtime_options_string", wanted, self._kept[1], ctypes.byref(opaque))
        self._call("AddOpaqueOptions", options, opaque)
        self._call("CreateCompiledModel", environment, model, options, ctypes.byref(self._compiled))
        self._call("CompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        self._call("GetModelSignature", model, ctypes.c_size_t(0), ctypes.byref(signature))
        self._input = self._buffer(environment, signature, "Input")
        self._output = self._buffer(environment, signature, "Output")

    def feed(self, values: Any) -> None:
        """Set the input, [1, ...]."""
        content, host = np.ascontiguousarray(values).tobytes(), ctypes.c_void_p()
        self._call("LockTensorBuffer", self._input, ctypes.byref(host), 1)  # to write
        ctypes.memmove(host, content, len(content))
        self._call("UnlockTensorBuffer", self._input)

    def run(self) -> list[tuple[str, int, int, int]]:
        """One inference: tag, type, index and microseconds of each event."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        one = ctypes.c_size_t(1)
        buffers = (one, ctypes.byref(self._input), one, ctypes.byref(self._output))
        self._call("RunCompiledModel", self._compiled, ctypes.c_size_t(0), *buffers)
        self._call("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return [(event.tag.decode(), event.type, event.index, event.elapsed_us) for event in events]

    def _buffer(self, environment: ctypes.c_void_p, signature: ctypes.c_void_p, side: str) -> ctypes.c_void_p:
        needs, tensor, buffer = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        last = ctypes.c_size_t(0), ctypes.byref(needs)
        kind = (ctypes.c_char * 256)()  # element type, rank, dimensions, strides
        self._call(f"GetCompiledModel{side}BufferRequirements", self._compiled, ctypes.c_size_t(0), *last)
        self._call(f"GetSignature{side}TensorByIndex", signature, ctypes.c_size_t(0), ctypes.byref(tensor))
        self._call("GetRankedTensorType", tensor, kind)
        dimensions = (ctypes.c_int32 * 10).from_buffer(kind)
        for place in range(2, 10):
            dimensions[place] = abs(dimensions[place])  # any batch: one
        self._call("CreateManagedTensorBufferFromRequirements", environment, kind, needs, ctypes.byref(buffer))
        return buffer

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"LiteRt{name}")
        function.restype = ctypes.c_int
        if status := function(*arguments):
            raise NoAcceleratorError(f"LiteRt{name}: status {status}; expected ai-edge-litert 2.3")


def count(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Instructions and memory accesses of COUNTED inferences of one variant, by valgrind, which runs this file anew.

    counts [COUNTED, EVENTS]; counts_tool: what counted, whose counts can be compared.
    """
    ((kind, file),) = task["files"].items()
    valgrind = shutil.which("valgrind")
    if platform.machine() != "x86_64":
        raise NoAcceleratorError(f"counts on x86-64, this machine is {platform.machine()}; count on a PC")
    if not valgrind:
        raise NoAcceleratorError("valgrind is not installed on this machine; apt-get install valgrind")
    say(task=task["name"], done=0, total=0, variant=kind)
    with tempfile.TemporaryDirectory(prefix="worker-count-") as folder:
        images, printed = Path(folder) / "images.npy", Path(folder) / "printed"
        np.save(images, timed_images(inputs)[:COUNTED])
        command = [valgrind, *CALLGRIND, f"--callgrind-out-file={folder}/out", sys.executable, __file__]
        with (
            printed.open("w") as file_printed,
            subprocess.Popen(
                [*command, "--counted", str(file), str(images)],
                stdin=subprocess.PIPE,
                stdout=file_printed,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            while process.poll() is None:
                say(task=task["name"], done=0, total=0, variant=kind)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
        shown = text(printed)
        dumps = [text(f"{folder}/out.{number}") for number in range(1, COUNTED + 1)]
    try:
        counts = np.array([events(dump) for dump in dumps])
        ran = json.loads(search(r"(?m)^(\{.*\})$", shown))["ran"]
    except ValueError:
        counts, ran = np.zeros(0), None
    if process.returncode or not counts.size or not (counts[:, 0] > 0).all():
        last = next((line for line in reversed(shown.splitlines()) if line), "it printed nothing")
        print(f"valgrind failed with exit code {process.returncode}: {last}", file=sys.stderr)
        raise SystemExit(NOT_COUNTED)
    wide = "with" if re.search(r"\bavx2\b", text("/proc/cpuinfo")) else "without"
    tool = f"{output(valgrind, '--version').strip()}, {platform.machine()} {wide} AVX2"
    return {"counts": counts, "counts_tool": np.array(tool), "ran": ran}


def events(dump: str) -> list[int]:
    """EVENTS of a dump of callgrind, which leaves out zeros at the end."""
    names, totals = (search(rf"(?m)^{key}: (.+)", dump).split() for key in ("events", "totals"))
    known = dict(zip(names, map(int, totals), strict=False))
    return [known.get(name, 0) for name in EVENTS]


def counted(file: str, images: str) -> None:
    """In valgrind: a warm-up, which fills its caches, then inferences that are counted one by one."""
    model = load(Path(file).read_bytes(), 1)
    prepared = model.quantize(np.load(images))
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(REQUEST))
    code = ctypes.c_char.from_buffer(page)
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(ctypes.addressof(code))
    requests = {number: (ctypes.c_uint64 * 6)(number) for number in (DUMP, ZERO, TOGGLE, START, STOP)}

    def ask(number: int) -> None:
        call(ctypes.addressof(requests[number]))

    ask(START)
    measure(model, prepared, 0, 1)
    for image in prepared:
        model.set(image)
        ask(TOGGLE)
        model.invoke()
        ask(TOGGLE)
        ask(DUMP)
    ask(STOP)
    say(ran=model.ran())


def forget(path: Path) -> float:
    """Drop a file from the page cache; the share of it that stays there, as in a tmpfs. nan: unknown."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not on disk yet stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size, page = os.fstat(file.fileno()).st_size, os.sysconf("SC_PAGE_SIZE")
            system = ctypes.CDLL(None, use_errno=True)
            system.mmap.restype = ctypes.c_void_p
            size_t, pages = ctypes.c_size_t(size), (ctypes.c_ubyte * -(-size // page))()
            mapped = ctypes.c_void_p(system.mmap(None, size_t, 1, 1, file.fileno(), ctypes.c_long(0)))
            failed = system.mincore(mapped, size_t, pages)
            system.munmap(mapped, size_t)
    except (OSError, AttributeError, ValueError):
        return math.nan
    return math.nan if failed else sum(entry & 1 for entry in pages) / len(pages)


def cool_down(task: dict[str, Any]) -> None:
    """Wait as long as the task says, so that every run begins at rest."""
    total = round(task["cooldown_s"])
    for second in range(total):
        say(task=task["name"], done=second, total=total)
        time.sleep(1)


def pin(threads: int) -> list[int]:
    """Keep to as many cores as there are threads, those of the highest top frequency. Empty if not allowed.

    Stops the worker where there are more threads than cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    if threads > cores():
        raise SystemExit(f"{threads} threads, but {cores()} cores that the worker may use: ask for fewer threads")
    top = {core: number(text(f"/{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq")) for core in allowed()}
    chosen = sorted(top, key=lambda core: (0 if math.isnan(top[core]) else top[core], core))[-threads:]
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:
        return []
    return sorted(chosen)


def governor(bound: list[int]) -> str:
    """The frequency governors of some cores, or "unavailable"."""
    governors = {text(f"/{CPU}/cpu{core}/cpufreq/scaling_governor") for core in bound or allowed()}
    return ", ".join(sorted(governors - {""})) or "unavailable"


def resident(reset_peak: bool = False) -> Any:
    """Peak and present resident bytes of this process, [2]; nan: unavailable."""
    if reset_peak:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = text("/proc/self/status")
    return np.array([number(search(rf"{key}:\s*(\d+)", status)) * 1024 for key in ("VmHWM", "VmRSS")])


class Gauges:
    """The machine's state as numbers in the order of STATE; nan: unavailable. root: where its files are, for tests."""

    def __init__(self, bound: list[int], root: Path = Path("/")) -> None:
        self._cores = bound or allowed()
        self._stat = opened(root / "proc" / "stat")
        self._frequencies = opened(*(root / f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq" for core in self._cores))
        self._temperatures = opened(*thermometers(root))
        self._pi = opened(root / PI_THROTTLED)
        self._throttle_counts = opened(*root.glob(f"{CPU}/cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._battery = opened(*root.glob("sys/class/power_supply/*/capacity"))
        self._asked = {"throttled": math.nan, "battery_percent": math.nan}

    def read(self) -> list[float]:
        """One reading: some tens of microseconds."""
        own = time.process_time()
        busy, steal = self._processor_time()
        frequencies, temperatures, counts, battery = (
            [number(reading(file)) for file in files]
            for files in (self._frequencies, self._temperatures, self._throttle_counts, self._battery)
        )
        return [
            time.perf_counter(),
            own,
            busy - own / len(self._cores),
            steal,
            float(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw) if resource else math.nan,
            min(frequencies, default=math.nan) * 1e3,
            max(temperatures, default=math.nan) / 1e3,
            float(int(reading(self._pi[0]), 16) & 0xF) if self._pi else self._asked["throttled"],
            sum(counts) if counts else math.nan,
            battery[0] if battery else self._asked["battery_percent"],
        ]

    def _processor_time(self) -> tuple[float, float]:
        """Seconds since boot that our cores were busy, and that the hypervisor took from them: means over the cores."""
        stat = reading(self._stat[0], 200 * (max(self._cores) + 2)) if self._stat else ""
        try:
            rows = dict(line.split(" ", 1) for line in stat.split("\n") if line.startswith("cpu"))
            ticks = np.array([rows[f"cpu{core}"].split()[:8] for core in self._cores], float)
        except (KeyError, ValueError):  # not every core has a line
            return math.nan, math.nan
        user, nice, system, _idle, _wait, irq, softirq, steal = ticks.mean(axis=0) / TICKS
        return float(user + nice + system + irq + softirq), float(steal)

    def ask(self) -> None:
        """Ask programs, where there are any, for what no file says; the next readings hold it."""
        if not self._pi and (bits := search(r"throttled=0x(\w+)", output("vcgencmd", "get_throttled"))):
            self._asked["throttled"] = float(int(bits, 16) & 0xF)
        if status := search(r"Thermal Status: *(\d+)", output("dumpsys", "thermalservice")):
            self._asked["throttled"] = float(status)
        if not self._battery and (level := search(r"level: *(\d+)", output("dumpsys", "battery"))):
            self._asked["battery_percent"] = float(level)


class Meter:
    """Joules that the device has used, by the first source that can be read; source: its name, or why there is none.

    joules: a counter. watts: the present power, summed up over time. blocks: joules of each. root: for tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.blocks: list[float] = []
        self._total, self._last, self._watts = 0.0, time.perf_counter(), math.nan
        self.joules: Callable[[], float] | None = None
        reasons = []
        for find in (rapl, pmic, battery):
            self.joules, watts, self.source = find(root)
            if watts:
                self._power, self.joules = watts, self._summed
                self._watts = watts()
            if self.joules:
                return
            reasons.append(self.source)
        self.source = f"unavailable: {'; '.join(reasons)}"

    def read(self) -> float:
        return self.joules() if self.joules else math.nan

    def _summed(self) -> float:
        """Power between two readings counts as their mean."""
        now, watts = time.perf_counter(), self._power()
        self._total += (now - self._last) * (self._watts + watts) / 2
        self._last, self._watts = now, watts
        return self._total


Source = tuple["Callable[[], float] | None", "Callable[[], float] | None", str]  # joules, watts, name or why neither


def rapl(root: Path) -> Source:
    """The counters of a PC's processors: Linux, Documentation/power/powercap/powercap.rst."""
    zones = [zone for zone in sorted(root.glob("sys/class/powercap/*-rapl:*")) if zone.name.count(":") == 1]
    names = ", ".join(text(zone / "name") for zone in zones)
    if not zones:
        return None, None, "no RAPL counters"
    if not all(text(zone / "energy_uj") for zone in zones):
        return None, None, "RAPL counters that only root may read (sudo chmod a+r /sys/class/powercap/*/energy_uj)"
    wrapped, last = [0.0] * len(zones), [0.0] * len(zones)

    def joules() -> float:
        for place, zone in enumerate(zones):
            value = number(text(zone / "energy_uj"))
            if value < last[place]:
                wrapped[place] += number(text(zone / "max_energy_range_uj"))
            last[place] = value
        return (sum(wrapped) + sum(last)) / 1e6

    return joules, None, f"RAPL {names}"


def pmic(root: Path) -> Source:
    """A Raspberry Pi 5's rails, each a line of amperes and one of volts; EXT5V and BATT have no current."""

    def watts() -> float:
        printed = output("vcgencmd", "pmic_read_adc")
        amperes = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", printed))
        volts = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", printed))
        both = amperes.keys() & volts.keys()
        return sum(float(amperes[rail]) * float(volts[rail]) for rail in both) if both else math.nan

    return (None, watts, "PMIC rails") if watts() > 0 else (None, None, "no PMIC")


def battery(root: Path) -> Source:
    """The battery's power, in microvolts and microamperes of either sign, or Android's charge counter in microampere
    hours; none while a cable charges it."""
    cable = "a battery on a cable, which charges it: unplug it, and use adb over Wi-Fi"
    for supply in sorted(root.glob("sys/class/power_supply/*")):
        if text(supply / "type") == "Battery" and (text(supply / "power_now") or text(supply / "current_now")):
            if text(supply / "status") != "Discharging":
                return None, None, cable

            def watts(supply: Path = supply) -> float:
                power = number(text(supply / "power_now")) / 1e6
                flow = number(text(supply / "current_now")) * number(text(supply / "voltage_now")) / 1e12
                return abs(flow) if math.isnan(power) else abs(power)

            return None, watts, f"battery {supply.name}"
    printed = output("dumpsys", "battery")
    if not search(r"Charge counter: *(\d+)", printed):
        return None, None, "no battery"
    if re.search(r"powered: true", printed):
        return None, None, cable

    def joules() -> float:
        now = output("dumpsys", "battery")
        charge, millivolts = (number(search(rf"{key}: *(\d+)", now)) for key in ("Charge counter", "voltage"))
        return -charge * 3.6e-3 * millivolts / 1e3

    return joules, None, "battery's charge counter"


def thermometers(root: Path) -> list[Path]:
    """Files of the processor's temperature, in thousandths of a degree; all zones where none is named after it."""
    zones = list(root.glob("sys/class/thermal/thermal_zone*/temp"))
    names = {path: text(path.with_name("type")) for path in zones}
    names |= {path: text(path.with_name("name")) for path in root.glob("sys/class/hwmon/hwmon*/temp1_input")}
    own = [path for path, name in names.items() if re.search("cpu|soc|core|pkg|k10temp", name)]
    return sorted(own or zones)[:MAX_THERMOMETERS]


def opened(*paths: Path) -> list[int]:
    """Descriptors of those files that can be read, to be read again and again."""
    files = []
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY)
            os.pread(file, 1, 0)
        except OSError:
            continue
        files.append(file)
    return files


def reading(file: int, most: int = 200) -> str:
    """A file's present content, its first bytes; empty where it cannot be read any more."""
    try:
        return os.pread(file, most, 0).decode(errors="replace")
    except OSError:
        return ""


def text(path: str | Path) -> str:
    """A file's content without the space around it; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def number(shown: str) -> float:
    try:
        return float(shown)
    except ValueError:
        return math.nan


def search(pattern: str, shown: str) -> str:
    """The first group of a pattern, or nothing."""
    match = re.search(pattern, shown)
    return match[1] if match else ""


def output(*command: str) -> str:
    """What a program prints; nothing where there is no such program, or it fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def verified(path: Path, digest: str) -> bytes:
    """A file's bytes. Stops the worker where they are not the job's."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        print(f"{path.name[:12]}: its SHA-256 is not the job's: damaged on the way here", file=sys.stderr)
        raise SystemExit(DAMAGED)
    return content


def allowed() -> list[int]:
    """The cores of this process's affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


GROUPS = r"^\d+:(|(?:[\w,]+,)?cpu(?:,[\w,]+)?):/(.*)"  # as harness.core.cores


def cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: as `harness.core.cores.usable`, which is not on the device."""
    most = float(len(allowed()))
    for version_1, path in re.findall(GROUPS, text(root / "proc/self/cgroup"), re.M):
        folder = root / "sys/fs/cgroup" / ("cpu" if version_1 else "") / path
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version_1 else ("cpu.max",)
        for parent in (folder, *folder.parents):
            quota, _, period = " ".join(text(parent / name) for name in names).partition(" ")
            most = min(most, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else most
    return max(1, int(most))


def machine() -> dict[str, Any]:
    """What ran this."""
    return {
        "runtime": find_runtime()[1],
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": cores(),
        "host": platform.node(),
        "processor": processor(),
    }


def processor() -> str:
    """The processor's name as the system gives it, or "unavailable"."""
    return (
        search(r"(?m)^(?:model name|Model|Hardware)\s*:\s*(.+)", text("/proc/cpuinfo"))
        or output("getprop", "ro.soc.model").strip()
        or text("/proc/device-tree/model").strip("\0")
        or "unavailable"
    )


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


DO = {"answers": answers, "latency": latency, "tensors": tensors, "count": count, "profile": profile}


def tie() -> None:
    """End this process when its standard input ends: whoever holds the other end is gone."""

    def watch() -> None:
        while os.read(0, 1):  # sys.stdin's lock would hinder the interpreter's end
            pass
        os._exit(TIE_BROKEN)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if "--counted" in sys.argv:
        tie()
        counted(*sys.argv[2:])
        raise SystemExit
    if "--tied" in sys.argv:
        tie()
    say(pid=os.getpid())
    run(Path(sys.argv[1]))
