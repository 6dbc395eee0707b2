"""The worker: runs a job folder's tasks and writes what the variants answered and how long they took.

    python worker.py JOB [--tied]

One file on purpose: it is copied to the device and needs the standard library, NumPy and one interpreter
(ai-edge-litert or tflite-runtime), nothing of the harness. Tasks whose result is there are not run again.
Progress goes to standard output, one JSON object a line. --tied: end when standard input ends.
"""

import gc
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

RUNTIMES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"))
REPORT_EVERY = 32  # images
DAMAGED, TIE_BROKEN = 86, 87  # exit codes: a file is not the job's; whoever started this is gone


class Model:
    """One interpreter: float tensors in and float tensors out, quantized as the model itself says."""

    def __init__(self, content: bytes, threads: int) -> None:
        runtime, _ = find_runtime()
        self._interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._entry,) = self._interpreter.get_input_details()
        (self._answer,) = self._interpreter.get_output_details()
        self.invoke: Callable[[], None] = self._interpreter.invoke

    def quantize(self, images: Any) -> Any:
        """float32 images as the model's input type, each with a batch axis of its own: [N, 1, H, W, C]."""
        scale, zero_point = self._entry["quantization"]
        dtype = self._entry["dtype"]
        images = images[:, np.newaxis]
        if not scale:
            return images.astype(dtype)
        limits = np.iinfo(dtype)
        return np.clip(np.round(images / scale + zero_point), limits.min, limits.max).astype(dtype)

    def set(self, image: Any) -> None:
        self._interpreter.set_tensor(self._entry["index"], image)

    def get(self) -> Any:
        """The raw output of the last inference, [classes]."""
        return self._interpreter.get_tensor(self._answer["index"])[0]

    @property
    def output_quantization(self) -> tuple[float, int]:
        scale, zero_point = self._answer["quantization"]
        return float(scale), int(zero_point)


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
    about = {"nonce": plan["nonce"], **machine()}
    waiting = [task for task in plan["tasks"] if not (folder / "results" / f"{task['name']}.npz").exists()]
    for task in waiting:
        if task.get("fresh") and task is not waiting[0]:
            return  # to be run again: this task wants a process of its own
        result = folder / "results" / f"{task['name']}.npz"
        say(task=task["name"], done=0, total=0)
        contents = {kind: verified(folder / file, digest) for kind, (file, digest) in task["variants"].items()}
        arrays = answers(contents, inputs, task) if task["do"] == "answers" else latency(contents, inputs, task)
        partial = result.with_suffix(f".{os.getpid()}.part")
        with partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about | {"task": task["name"]})), **arrays)
        partial.replace(result)
        if task.get("fresh"):
            return


def answers(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Every image through one variant: raw outputs [N, classes] and how they become real numbers.

    fed: the mean of each image's input tensor as it was set, [N]: was it the right image, rightly quantized?

    One interpreter of one thread on each core; the images are dealt out in runs.
    """
    (content,) = contents.values()
    models = [Model(content, 1) for _ in range(min(task["parallel"] or cores(), len(inputs)))]
    probe = models[0]
    probe.set(probe.quantize(inputs[:1])[0])
    probe.invoke()
    outputs = np.empty((len(inputs), *probe.get().shape), probe.get().dtype)
    fed = np.empty(len(inputs))
    runs = iter([slice(i, i + REPORT_EVERY) for i in range(0, len(inputs), REPORT_EVERY)])

    def work(model: Model) -> Iterator[int]:
        for part in iter(lambda: next(runs, None), None):
            prepared = model.quantize(inputs[part])
            fed[part] = prepared.reshape(len(prepared), -1).mean(axis=1, dtype=np.float64)
            for position, image in enumerate(prepared, start=part.start):
                model.set(image)
                model.invoke()
                outputs[position] = model.get()
            yield len(prepared)

    done = 0

    def report(model: Model) -> None:
        nonlocal done
        for count in work(model):
            done += count
            say(task=task["name"], done=done, total=len(inputs))

    with ThreadPoolExecutor(len(models)) as pool:
        for future in [pool.submit(report, model) for model in models]:
            future.result()
    scale, zero_point = probe.output_quantization
    return {"outputs": outputs, "scale": np.float64(scale), "zero_point": np.int64(zero_point), "fed": fed}


def latency(contents: dict[str, bytes], inputs: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Seconds per inference of every variant, block by block in rotating order, on real images.

    Per variant: <kind>.samples [rounds, block], <kind>.warmup, <kind>.load, <kind>.first.
    """
    models: dict[str, Model] = {}
    prepared: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    clock = time.perf_counter
    for kind, content in contents.items():
        begin = clock()
        models[kind] = Model(content, task["threads"])
        arrays[f"{kind}.load"] = np.float64(clock() - begin)
        prepared[kind] = models[kind].quantize(inputs)
        arrays[f"{kind}.first"] = measure(models[kind], prepared[kind], 0, 1)[0]
    for kind, model in models.items():
        warmup: list[float] = []
        while sum(warmup) < task["warmup_s"] or len(warmup) < task["block"]:
            warmup += measure(model, prepared[kind], len(warmup), task["block"]).tolist()
        arrays[f"{kind}.warmup"] = np.array(warmup)
    rounds: dict[str, list[Any]] = {kind: [] for kind in models}
    kinds = list(models)
    gc.disable()
    for number in range(task["rounds"]):
        turn = number % len(kinds)
        order = kinds[turn:] + kinds[:turn]
        for kind in order if number % 2 == 0 else reversed(order):
            rounds[kind].append(measure(models[kind], prepared[kind], number * task["block"], task["block"]))
        say(task=task["name"], done=number + 1, total=task["rounds"])
    gc.enable()
    for kind, blocks in rounds.items():
        arrays[f"{kind}.samples"] = np.array(blocks)
    return arrays


def measure(model: Model, prepared: Any, start: int, count: int) -> Any:
    """Seconds of `count` inferences, each on the next image; setting the input is not counted."""
    clock = time.perf_counter
    seconds = np.empty(count)
    for i in range(count):
        model.set(prepared[(start + i) % len(prepared)])
        begin = clock()
        model.invoke()
        seconds[i] = clock() - begin
    return seconds


def verified(path: Path, digest: str) -> bytes:
    """A file's bytes. Stops the worker where they are not the job's."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        print(f"{path.name[:12]}: its SHA-256 is not the job's: damaged on the way here", file=sys.stderr)
        raise SystemExit(DAMAGED)
    return content


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What ran this."""
    return {
        "runtime": find_runtime()[1],
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def tie() -> None:
    """End this process when its standard input ends: whoever holds the other end is gone."""

    def watch() -> None:
        while os.read(0, 1):  # sys.stdin's lock would hinder the interpreter's end
            pass
        os._exit(TIE_BROKEN)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if "--tied" in sys.argv:
        tie()
    say(pid=os.getpid())
    run(Path(sys.argv[1]))
