"""Pages for tests of `web://`: a browser's, and one in Python that says what it is told to say."""

from __future__ import annotations

import io
import json
import shutil
import ssl
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.core.files import sha256
from harness.core.npz import Array

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader")
NO_GPU = ("--disable-features=WebGPU,WebGPUService", "--disable-gpu")


@contextmanager
def chromium(url: str, *flags: str) -> Iterator[None]:
    """A page that is open in a browser without a window."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", *flags, url]  # the port keeps it open
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()


HELLO = {
    "name": "Test 1", "system": "Tests", "model": "", "architecture": "x", "cores": 2, "secure": True, "isolated": True,
    "clock_s": 5e-6, "gpu": None, "gpu_problem": "there is none",
}  # fmt: skip


@dataclass
class Page:
    """A page without a browser. number: which load of it, of which browser."""

    url: str
    number: int = 1
    browser: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.number:024x}"

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """The status and the content of an answer."""
        try:
            asked = urllib.request.Request(self.url + path, body, dict(headers or {}))
            with urllib.request.urlopen(asked, context=ssl._create_unverified_context()) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def post(self, path: str, **message: object) -> tuple[int, bytes]:
        return self.ask(path, json.dumps({"page": self.id, **message}).encode())

    def hello(self) -> tuple[int, bytes]:
        return self.post("hello", **{**HELLO, "browser": f"{self.browser:024x}", **self.facts})

    def job(self) -> dict[str, Any]:
        """The plan of the next tasks; waits for it."""
        while True:
            status, content = self.ask(f"job?page={self.id}")
            if status == 200:
                return dict(json.loads(content))
            assert status == 204, content

    def say(self, plan: Mapping[str, Any], **message: object) -> tuple[int, bytes]:
        return self.post("say", nonce=plan["nonce"], **message)

    def result(self, plan: Mapping[str, Any], content: Mapping[str, Array], /, **changes: Any) -> tuple[int, bytes]:
        """Deliver a result of the first task. changes: to its header; cut: bytes left out at the end."""
        (task, *_), cut = plan["tasks"], changes.pop("cut", 0)
        body = packed(self.id, plan["nonce"], task, content, changes)
        return self.ask("result", body[: len(body) - cut], {"X-SHA256": sha256(body[: len(body) - cut])})

    def zeros(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """What the first task asks for, all zeros, with the inputs' own means."""
        inputs = np.load(io.BytesIO(self.ask(f"files/{plan['inputs']['sha256']}")[1]))
        ((_, digest),) = plan["tasks"][0]["variants"].values()
        width = plan["models"][digest]["outputs"][0]["shape"][-1]
        return {
            "outputs": np.zeros((len(inputs), width), np.float32),
            "scale": np.float64(0),
            "zero_point": np.int64(0),
            "input_means": inputs.reshape(len(inputs), -1).mean(axis=1, dtype=np.float64),
        }

    def answer(self, plan: Mapping[str, Any]) -> tuple[int, bytes]:
        """Deliver what the first task asks for, all zeros, and end."""
        assert self.result(plan, self.zeros(plan))[0] == 204
        return self.say(plan, task=plan["tasks"][0]["name"], ended=0)


def packed(
    page: str, nonce: str, task: Mapping[str, Any], arrays: Mapping[str, Array], changes: Mapping[str, Any]
) -> bytes:
    ran = {"accelerator": task["accelerator"], "runtime": "x"}
    listed = [{"name": name, "dtype": str(a.dtype), "shape": a.shape} for name, a in arrays.items()]
    header = {"page": page, "nonce": nonce, "task": task["name"], "ran": ran, "arrays": listed, **changes}
    content = json.dumps(header).encode()
    return len(content).to_bytes(4, "big") + content + b"".join(array.tobytes() for array in arrays.values())


@contextmanager
def beside(action: Any) -> Iterator[None]:
    """A page's part of a conversation, in a thread of its own; its failure is the test's."""
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]
