"""The worker: runs a job folder's tasks and writes what the variants answered and how long they took.

    python worker.py JOB [--tied]

One file on purpose: it is copied to the device and needs the standard library, NumPy and one interpreter
(ai-edge-litert or tflite-runtime), nothing of the harness. Tasks whose result is there are not run again.
Progress goes to standard output, one JSON object a line. --tied: end when standard input ends.
"""

import contextlib
import gc
import hashlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

RUNTIMES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"))
REPORT_EVERY = 32  # images
CONTROL = "control"  # a second interpreter of a variant's file
MAX_TIMED_IMAGES = 256
LEAD_IN = 2  # inferences before each block
SETTLED = 1.02  # largest / smallest of the warm-up's last medians
CPU = "sys/devices/system/cpu"
PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
MOST_THERMOMETERS = 8
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
    """Seconds per inference of every variant on real images: short blocks in the order A B C C B A, then B C A A C B.

    Of each in the task's `order`, CONTROL among them: <kind>.samples [its blocks, inferences], .warmup, .load, .first,
    .settled: whether the warm-up ended stable. kinds: as they were loaded; order [blocks]: whose each was;
    state [blocks, 3, STATE]: before, during and after; memory [2]: peak and steady resident bytes that loading and
    running the first of `kinds` added, its file not counted; cores: those the process was bound to; governor: theirs.
    """
    bound = pin(task["threads"])
    gauges = Gauges(bound)
    cool_down(task)
    arrays: dict[str, Any] = {"cores": np.array(bound, int), "governor": np.array(governor(bound))}
    arrays["control"] = np.array(task["control"] or "")
    contents = {CONTROL: contents.get(task["control"], b""), **contents}
    kinds = [kind for kind in task["order"] if contents.get(kind)]
    images = timed_images(inputs)
    subjects = {}
    for kind in kinds:
        say(task=task["name"], done=0, total=0, variant=kind)
        before = resident(reset_peak=True)[1]
        begin = time.perf_counter()
        model = Model(contents[kind], task["threads"])
        arrays[f"{kind}.load"] = np.float64(time.perf_counter() - begin)
        arrays[f"{kind}.first"] = measure(model, model.quantize(images[:1]), 0, 1)[0]
        arrays.setdefault("memory", resident() - before)
        prepared = model.quantize(images)
        arrays[f"{kind}.warmup"], arrays[f"{kind}.settled"] = warm_up(model, prepared, task)
        subjects[kind] = Subject(model, prepared, arrays[f"{kind}.warmup"], task["block_s"])
    order: list[int] = []
    states: list[list[list[float]]] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    for kind in turns(subjects, task):
        say(task=task["name"], done=len(order), total=2 * task["turns"] * len(kinds) ** 2, variant=kind)
        if len(order) % len(kinds) == 0:
            gauges.ask()
        order.append(kinds.index(kind))
        states.append(subjects[kind].block(gauges))
    gc.enable()
    for kind, subject in subjects.items():
        arrays[f"{kind}.samples"] = np.array(subject.blocks)
    return arrays | {"kinds": np.array(kinds), "order": np.array(order), "state": np.array(states)}


def timed_images(inputs: Any) -> Any:
    """MAX_TIMED_IMAGES of the images at even distances, or all where there are no more."""
    timed = min(len(inputs), MAX_TIMED_IMAGES)
    return inputs[np.arange(timed) * len(inputs) // timed]


class Subject:
    """A variant under measurement: every block is the same number of inferences, on the images in turn."""

    def __init__(self, model: Model, prepared: Any, warmup: Any, block_s: float) -> None:
        self._model, self._prepared = model, prepared
        self._count = max(1, round(block_s / float(np.median(warmup[-3:]))))
        self.blocks: list[Any] = []

    def block(self, gauges: "Gauges") -> list[list[float]]:
        """Measure one more; the machine's state before, during and after it.

        The first inferences bring the model back into the caches that the others used, and are not counted.
        """
        start, half = len(self.blocks) * self._count, (self._count + 1) // 2
        measure(self._model, self._prepared, start, LEAD_IN)
        before = gauges.read()
        first = measure(self._model, self._prepared, start, half)
        during = gauges.read()
        second = measure(self._model, self._prepared, start + half, self._count - half)
        self.blocks.append(np.concatenate([first, second]))
        return [before, during, gauges.read()]

    def has(self, samples: int, seconds: float) -> bool:
        return len(self.blocks) * self._count >= samples and sum(map(np.sum, self.blocks)) >= seconds


def turns(subjects: dict[str, Subject], task: dict[str, Any]) -> Iterator[str]:
    """Whose block is next, until every variant led as often as the task asks and has its least samples and seconds."""
    kinds, led = list(subjects), 0
    while led < task["turns"] * len(kinds) or not all(
        subject.has(task["least_samples"], task["least_s"]) for subject in subjects.values()
    ):
        lead = led % len(kinds)
        order = kinds[lead:] + kinds[:lead]
        yield from (*order, *reversed(order))
        led += 1


def warm_up(model: Model, prepared: Any, task: dict[str, Any]) -> tuple[Any, bool]:
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


def cool_down(task: dict[str, Any]) -> None:
    """Wait as long as the task says, so that every run begins at rest."""
    total = round(task["cooldown_s"])
    for second in range(total):
        say(task=task["name"], done=second, total=total)
        time.sleep(1)


def pin(threads: int) -> list[int]:
    """Keep to as many cores as there are threads, those of the highest top frequency; none where that is not allowed.

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
    found = {text(f"/{CPU}/cpu{core}/cpufreq/scaling_governor") for core in bound or allowed()}
    return ", ".join(sorted(found - {""})) or "unavailable"


def resident(reset_peak: bool = False) -> Any:
    """Peak and present resident bytes of this process, [2]; nan: unavailable."""
    if reset_peak:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = text("/proc/self/status")
    return np.array([number(found(rf"{key}:\s*(\d+)", status)) * 1024 for key in ("VmHWM", "VmRSS")])


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
        if not self._pi and (bits := found(r"throttled=0x(\w+)", output("vcgencmd", "get_throttled"))):
            self._asked["throttled"] = float(int(bits, 16) & 0xF)
        if status := found(r"Thermal Status: *(\d+)", output("dumpsys", "thermalservice")):
            self._asked["throttled"] = float(status)
        if not self._battery and (level := found(r"level: *(\d+)", output("dumpsys", "battery"))):
            self._asked["battery_percent"] = float(level)


def thermometers(root: Path) -> list[Path]:
    """Files of the processor's temperature, in thousandths of a degree; all zones where none is named after it."""
    zones = list(root.glob("sys/class/thermal/thermal_zone*/temp"))
    names = {path: text(path.with_name("type")) for path in zones}
    names |= {path: text(path.with_name("name")) for path in root.glob("sys/class/hwmon/hwmon*/temp1_input")}
    own = [path for path, name in names.items() if re.search("cpu|soc|core|pkg|k10temp", name)]
    return sorted(own or zones)[:MOST_THERMOMETERS]


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


def found(pattern: str, shown: str) -> str:
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


def cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: as `harness.core.cores.usable`, which is not on the device."""
    most = float(len(allowed()))
    for group in re.findall("(?m)^0::/(.*)", text(root / "proc/self/cgroup")):
        folder = root / "sys/fs/cgroup" / group
        for parent in (folder, *folder.parents):
            quota, _, period = text(parent / "cpu.max").partition(" ")
            most = min(most, int(quota) / int(period)) if quota.isdigit() else most
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
        found(r"(?m)^(?:model name|Model|Hardware)\s*:\s*(.+)", text("/proc/cpuinfo"))
        or output("getprop", "ro.soc.model").strip()
        or text("/proc/device-tree/model").strip("\0")
        or "unavailable"
    )


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
