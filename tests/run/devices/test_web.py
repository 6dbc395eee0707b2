"""A browser as a device: its answers in real Chromium, and what it takes from pages that err or lie."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.cli import main
from harness.core.cell import Accelerator
from harness.core.errors import AbsentError, Exit, SetupError
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.records import record
from harness.run import execute, job, worker
from harness.run.devices import litert_js, uri, web
from harness.run.devices.base import UnreachableError
from harness.run.devices.virtual import Virtual
from harness.run.devices.web import Web
from harness.run.execute import Outputs
from harness.run.job import Job
from harness.run.latency_plan import LatencyPlan
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY
from tests.needs import needs
from tests.run.devices.pages import NO_GPU, SOFTWARE_GPU, Page, beside, chromium
from tests.run.devices.rig import PLAN, silent


@pytest.fixture
def device() -> Iterator[Web]:
    """On a port and with a token of its own."""
    needs("npm")
    web.server.cache_clear()
    with uri.device("web://") as opened:
        assert isinstance(opened, Web)
        yield opened


@pytest.fixture
def written(tmp_path: Path, tiny_variants: Path, images: Path) -> Job:
    """The answers of the tiny model's float32 to 55 images."""
    return write(tmp_path / "job", tiny_variants, images, ("float32",), ("wasm",))


def write(
    folder: Path,
    models: Path,
    images: Path,
    kinds: tuple[str, ...],
    accelerators: tuple[Accelerator, ...],
    plan: LatencyPlan | None = None,
) -> Job:
    folder.mkdir()
    contents = {kind: (models / f"{kind}.tflite").read_bytes() for kind in kinds}
    return job.write(folder, contents, dataset.load(images, DIGITS), plan, 2, accelerators)


def url(device: Web) -> str:
    return device._server.url


def ran(device: Web, written: Job) -> Outputs:
    device.probe()
    return execute.run(written, silent, device, silence_limit_s=30)


# --- in a browser ---------------------------------------------------------------------------------------------------


def test_a_browser_answers_as_this_machine_does(
    device: Web, tmp_path: Path, few_images: Path, tiny_variants: Path, tiny_model: Path, shipped_variants: Path
) -> None:
    """The shipped files on WASM: int8 to the bit, float32 near. A GPU in software is recognised, answers alike, and
    is not timed. Then a whole check on WASM: judged, timed and compared with this machine as any device's."""
    needs("browser")
    few = tmp_path / "few"
    few.mkdir()
    for label in range(11):
        shutil.copy(few_images / f"{label}_1.jpg", few)
    path = tmp_path / "check.json"
    command = ["check", "--device", "web://", "--models", tiny_variants, "--reference", tiny_model, "--json", path]
    command += ["--data", few_images, "--policy", FEW_IMAGES_POLICY, "--quick", "--processes", 1]
    command += ["--accelerator", "wasm", "--variants", "int8"]
    native = {kind: _native(shipped_variants, kind, few) for kind in ("float32", "int8")}
    with chromium(url(device), *SOFTWARE_GPU):
        shipped = ran(device, write(tmp_path / "shipped", shipped_variants, few, ("float32", "int8"), ("wasm",)))
        for image in sorted(few.iterdir())[2:]:
            image.unlink()
        gpu = ran(device, write(tmp_path / "gpu", tiny_variants, few, ("float32",), ("webgpu",), PLAN))
        assert main([*map(str, command)]) == Exit.PASS
    assert not shipped.failures
    assert set(gpu.results) == {"float32@webgpu"}  # no time of it
    assert gpu.results["float32@webgpu"].ran.software
    assert "swiftshader" in str(gpu.results["float32@webgpu"].ran.adapter)
    outputs = gpu.results["float32@webgpu"].arrays["outputs"]
    assert np.abs(outputs - _native(tiny_variants, "float32", few)["outputs"]).max() < 1e-4
    for name, result in shipped.results.items():
        kind = name.partition("@")[0]
        expected = native[kind]
        assert result.arrays["outputs"].dtype == expected["outputs"].dtype
        difference = np.abs(result.arrays["outputs"].astype(float) - expected["outputs"]).max()
        assert difference <= (0 if kind == "int8" else 1e-5)
        for fact in ("scale", "zero_point"):
            assert np.array_equal(result.arrays[fact], expected[fact])
    stored = record.read(path)
    (cell,) = stored.cells
    assert cell.name == "int8@wasm"
    assert cell.latency
    assert cell.ran
    assert (cell.ran.runtime, cell.ran.fell_back, cell.ran.software) == (litert_js.RUNTIME, False, False)
    assert cell.host
    assert cell.host.identical == cell.host.images == 110
    assert stored.device.uri == "web://"
    assert stored.device.state["secure_context"] is True
    assert "Chrom" in stored.machine.processor


def _native(models: Path, kind: str, images: Path) -> dict[str, Any]:
    """This machine's answers."""
    content = (models / f"{kind}.tflite").read_bytes()
    return worker.answers({kind: content}, dataset.load(images, DIGITS).inputs(), {"name": kind, "parallel": 1})


def test_a_browser_without_webgpu_is_a_setup_error(
    device: Web, tmp_path: Path, images: Path, tiny_variants: Path
) -> None:
    """Before anything runs, with what to do."""
    needs("browser")
    written = write(tmp_path / "job", tiny_variants, images, ("float32",), ("wasm", "webgpu"))
    with (
        chromium(url(device), *NO_GPU),
        pytest.raises(
            AbsentError, match=r"web://: --accelerator webgpu: .*Chrom.* has none \(.*\); .*--accelerator wasm"
        ),
    ):
        ran(device, written)


# --- pages that err -------------------------------------------------------------------------------------------------


def test_a_page_in_python_is_a_device(device: Web, written: Job) -> None:
    """The pages of these tests are pages: what is refused below is what they change."""
    page = Page(url(device))

    def act() -> None:
        assert page.hello()[0] == 200
        assert page.answer(page.job())[0] == 204

    with beside(act):
        outputs = ran(device, written)
    assert not outputs.failures
    assert outputs.results["float32@wasm"].machine.processor == "Test 1"
    assert device.traffic.pulled_bytes > 0


@pytest.mark.parametrize(
    "path", ["", "wrong/", "wrong/job", "../", "x" * 10_000], ids=("none", "page", "job", "parent", "long")
)
def test_without_the_token_there_is_nothing(path: str, device: Web) -> None:
    """Neither page nor job; one line says what to do."""
    root = url(device).removesuffix(f"{device._server.token}/")
    status, content = Page(root).ask(path)
    assert status in (404, 414) or b"no such page" in content
    assert Page(root).ask(f"{path}hello", b"{}")[0] in (404, 414)


def test_only_the_page_the_runtime_and_the_job_are_served(device: Web, written: Job) -> None:
    """No file of this machine, none of another job; headers that keep all else out."""
    page = Page(url(device))
    for path in (
        "../pyproject.toml",
        "%2e%2e/web.py",
        "web.py",
        "files/" + "0" * 64,
        "files/../../etc/passwd",
        "job.json",
    ):
        assert page.ask(path)[0] == 404, path
    with urllib.request.urlopen(url(device)) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
    assert url(device).startswith("http://127.0.0.1:")


def test_results_that_are_none_are_refused(device: Web, written: Job) -> None:
    """Of another job or task, cut short, damaged, too large, of other arrays: one line each; then a right one."""
    page = Page(url(device))
    seen: dict[str, tuple[int, bytes]] = {}

    def act() -> None:
        page.hello()
        plan = page.job()
        arrays = page.zeros(plan)
        seen["another job"] = page.result(plan, arrays, nonce="0" * 16)
        seen["another task"] = page.result(plan, arrays, task="int8@wasm")
        seen["another accelerator"] = page.result(plan, arrays, ran={"accelerator": "webgpu", "runtime": "x"})
        seen["cut short"] = page.result(plan, arrays, cut=8)
        seen["too long"] = page.result(plan, arrays, arrays=[])
        seen["claims too much"] = page.result(
            plan, arrays, arrays=[{"name": "outputs", "dtype": "float32", "shape": [2**31, 2**31]}]
        )
        seen["objects"] = page.result(plan, arrays, arrays=[{"name": "outputs", "dtype": "O", "shape": [1]}])
        seen["a path"] = page.result(plan, arrays, arrays=[{"name": "../x", "dtype": "int8", "shape": [1]}])
        seen["damaged"] = page.ask("result", b"\0\0\0\2{}", {"X-SHA256": "0" * 64})
        seen["huge"] = page.ask("result", b"", {"X-SHA256": "", "Content-Length": str(2**40)})
        seen["no JSON"] = page.ask("say", b"[" * 10_000)
        seen["a large message"] = page.ask("say", b" " * 70_000)
        seen["other keys"] = page.post("say", other=1)
        page.answer(plan)

    with beside(act):
        outputs = ran(device, written)
    for what, (status, content) in seen.items():
        assert status in (410, 413, 422), (what, status, content)
        assert b"\n" not in content.strip(), what
        assert 10 < len(content) < 400, what
    assert not outputs.failures


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("outputs", np.zeros((54, 11), np.float32), "[54, 11] outputs"),
        ("outputs", np.full((110, 11), np.nan, np.float32), "NaN or infinite outputs on 110 of 110"),
        ("outputs", np.zeros(110, np.float32), "expected outputs of"),
        ("other", np.zeros(1), "did not ask for"),
    ],
    ids=("images", "nan", "shape", "name"),
)
def test_a_result_is_judged_as_any_devices(
    name: str,
    array: npt.NDArray[np.float64],
    reason: str,
    device: Web,
    tmp_path: Path,
    few_images: Path,
    tiny_variants: Path,
    tiny_model: Path,
) -> None:
    """Too few outputs, NaN, other shapes and names: never a PASS."""
    page = Page(url(device))

    def act() -> None:
        page.hello()
        plan = page.job()
        assert page.result(plan, {**page.zeros(plan), name: array})[0] == 204
        page.say(plan, task="float32@wasm", ended=0)

    path = tmp_path / "check.json"
    command = ["check", "--device", "web://", "--models", tiny_variants, "--reference", tiny_model, "--json", path]
    command += ["--data", few_images, "--no-latency", "--variants", "float32", "--accelerator", "wasm"]
    with beside(act):
        assert main([*map(str, command)]) in (Exit.FAIL, Exit.INCONCLUSIVE)
    (cell,) = record.read(path).cells
    assert reason in cell.verdict.reasons[0], cell.verdict


def test_two_browsers_at_once(device: Web, written: Job) -> None:
    """The first has the check; the other is told so, and gets neither job nor word in."""
    first, second = Page(url(device)), Page(url(device), 2, 2)

    def act() -> None:
        first.hello()
        plan = first.job()
        assert second.hello() == (409, b"Another browser runs this check: Test 1. This page does nothing.")
        assert second.ask(f"job?page={second.id}")[0] == 409
        assert second.result(plan, first.zeros(plan))[0] == 409
        assert second.say(plan, ended=1)[0] == 409
        first.answer(plan)

    with beside(act):
        assert not ran(device, written).failures


def test_a_reloaded_page_goes_on(device: Web, tmp_path: Path, images: Path, tiny_variants: Path) -> None:
    """In the middle of the second task: the first is not run again, and the old page has no say any more."""
    written = write(tmp_path / "job", tiny_variants, images, ("float32", "dynamic_range"), ("wasm",))
    before, after = Page(url(device)), Page(url(device), 2)
    names: list[str] = []

    def act() -> None:
        before.hello()
        names.append(before.job()["tasks"][0]["name"])
        before.answer(before.job())
        plan = before.job()
        before.say(plan, task=plan["tasks"][0]["name"], done=10, total=55)
        before.post("say", bye=True)
        after.hello()
        assert before.say(plan, ended=1)[0] == 409
        names.append(after.job()["tasks"][0]["name"])
        after.answer(after.job())

    with beside(act):
        outputs = ran(device, written)
    assert names == ["float32@wasm", "dynamic_range@wasm"]
    assert set(outputs.results) == set(names)
    assert not outputs.failures


def test_a_page_that_a_task_ends_again_and_again(device: Web, written: Job) -> None:
    """A browser that reloads a crashed page does so a few times, not for ever."""

    def act() -> None:
        for number in range(1, 6):
            page = Page(url(device), number)
            page.hello()
            plan = page.job() if number < 5 else {"nonce": written.nonce}
            page.say(plan, task="float32@wasm", done=1, total=55)

    with beside(act):
        outputs = ran(device, written)
    (reason,) = outputs.failures["float32@wasm"].reasons
    assert outputs.failures["float32@wasm"].outcome is Outcome.INCONCLUSIVE
    assert "was loaded anew 4 times while it ran float32@wasm" in reason


@pytest.mark.parametrize("bye", [True, False], ids=("closed", "silent"))
def test_a_page_that_goes_away(bye: bool, device: Web, tmp_path: Path, images: Path, tiny_variants: Path) -> None:
    """What was finished counts; what is missing is INCONCLUSIVE, and says how the page went."""
    written = write(tmp_path / "job", tiny_variants, images, ("float32", "dynamic_range"), ("wasm",))
    page = Page(url(device))

    def act() -> None:
        page.hello()
        page.answer(page.job())
        page.say(page.job(), task="dynamic_range@wasm", done=10, total=55)
        if bye:
            page.post("say", bye=True)

    with beside(act):
        device.probe()
        outputs = execute.run(written, silent, device, silence_limit_s=60 if bye else 2)
    assert set(outputs.results) == {"float32@wasm"}
    why = outputs.failures["dynamic_range@wasm"]
    assert why.outcome is Outcome.INCONCLUSIVE
    assert ("was closed during" if bye else "was silent for 2 s during") in why.reasons[0]
    assert "keep the page in front" in why.reasons[0]


def test_a_page_that_wakes_too_late_is_told_so(device: Web, written: Job) -> None:
    """Its job is over: what it says and sends of it is refused, and it may ask for the next."""
    page = Page(url(device))
    plans: list[dict[str, Any]] = []

    def act() -> None:
        page.hello()
        plans.append(page.job())
        page.say(plans[0], task="float32@wasm", done=1, total=55)

    with beside(act):
        device.probe()
        assert execute.run(written, silent, device, silence_limit_s=1).failures
    assert page.say(plans[0], task="float32@wasm", done=2, total=55)[0] == 410
    assert page.result(plans[0], {})[0] == 410

    def act_again() -> None:
        page.answer(page.job())

    with beside(act_again):
        assert not ran(device, written).failures


def test_a_sleeping_page_that_wakes_goes_on(device: Web, written: Job) -> None:
    """Silent for less than the limit, or closed and opened again in time."""
    page = Page(url(device))

    def act() -> None:
        page.hello()
        plan = page.job()
        page.post("say", bye=True)
        time.sleep(1)
        page.answer(plan)

    with beside(act):
        assert not ran(device, written).failures


def test_no_browser_comes(device: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The address is printed once; waiting ends, and by progress at once."""
    monkeypatch.setattr(web, "OPEN_WITHIN_S", 0.6)
    with pytest.raises(UnreachableError, match="no browser opened the page within"):
        device.probe()
    assert capsys.readouterr().err == f"open {url(device)} in the browser that is to be checked\n"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Web("web://", progress=stop).__enter__().probe()


# --- on a phone -----------------------------------------------------------------------------------------------------


def test_the_phones_browser_is_opened_over_its_cable(
    phone: Virtual, tmp_path: Path, images: Path, tiny_variants: Path
) -> None:
    """adb makes the harness the phone's own loopback, an intent opens the page there, and nothing of it is left."""
    needs("npm")
    web.server.cache_clear()
    serial = phone.start().removeprefix("adb://")
    command = phone.root / "data/local/tmp/am"
    intent = phone.root / "system/bin/am"
    intent.write_text('#!/system/bin/sh\necho "$@" > /data/local/tmp/am\n')
    intent.chmod(0o755)
    command.unlink(missing_ok=True)
    written = write(tmp_path / "job", tiny_variants, images, ("float32",), ("wasm",))

    def act() -> None:
        while not (command.exists() and command.read_text().endswith("\n")):
            time.sleep(0.05)
        *start, address = command.read_text().split()
        assert start == ["start", "-a", "android.intent.action.VIEW", "-d"]
        page = Page(address)
        page.hello()
        page.answer(page.job())

    with uri.device(f"web://?adb={serial}") as device, beside(act):
        assert isinstance(device, Web)
        port = int(device._reversed)
        assert not ran(device, written).failures
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_phone_that_is_not_there() -> None:
    """One line, as of adb://."""
    needs("npm", "devices")
    web.server.cache_clear()
    with pytest.raises(UnreachableError, match="none-such: "):
        uri.device("web://?adb=none-such").__enter__()


# --- its address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("web://0.0.0.0:8000", "an address of this machine that the phone reaches"),
        ("web://a b", "an address of this machine"),
        ("web://?other=1", "unknown option 'other'"),
        ("web://?certificate=x", "certificate and key together"),
        ("web://192.0.2.1?adb=", "adb without an address"),
    ],
)
def test_addresses_that_are_none(address: str, reason: str) -> None:
    """One line each."""
    with pytest.raises(SetupError, match=reason):
        uri.device(address)


def test_a_port_in_use() -> None:
    """One line, with the address and what to do."""
    needs("npm")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"web://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SetupError, match=rf"{where}: cannot listen on .*in use.*; name a free port"):
            uri.device(where).__enter__()
    with pytest.raises(SetupError, match=r"cannot listen on 192\.0\.2\.1:0"):
        uri.device("web://192.0.2.1").__enter__()


def test_https_for_a_phone_of_the_network(tmp_path: Path, written: Job) -> None:
    """A certificate of the user's own, which makes WebGPU possible there; without one, one line."""
    needs("npm", "openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *map(str, options)], check=True, capture_output=True)
    address = f"web://127.0.0.1?certificate={certificate}&key="
    with pytest.raises(SetupError, match=f"no certificate in {certificate} with a key in {certificate}"):
        uri.device(f"{address}{certificate}").__enter__()
    with uri.device(f"{address}{key}") as opened:
        assert isinstance(opened, Web)
        page = Page(url(opened))
        assert page.url.startswith("https://")

        def act() -> None:
            page.hello()
            page.answer(page.job())

        with beside(act):
            assert not ran(opened, written).failures


def test_a_lan_address_has_a_qr_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Loopback has none: a phone's loopback is its own."""
    needs("npm")
    monkeypatch.setattr(web, "OPEN_WITHIN_S", 0.1)
    with uri.device("web://localhost") as opened, pytest.raises(UnreachableError):
        opened.probe()
    assert capsys.readouterr().err.count("\u2580") > 20


def test_without_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a damaged archive is not used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"npm, which fetches LiteRT.js 2.5.3 once, is not installed; install npm"):
        litert_js.files()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho other > $4/core.tgz\n")
    npm.chmod(0o755)
    with pytest.raises(
        SetupError, match=r"npm pack @litertjs/core@2.5.3 fails \(its SHA-256 is .*, expected a97660833e9e"
    ):
        litert_js.files()


def test_accelerators_are_a_browsers_or_a_machines(written: Job) -> None:
    """Each where it is not: one line."""
    with pytest.raises(SetupError, match="local: --accelerator wasm: only a browser has them: --device web://"):
        execute.run(written, silent)
    with pytest.raises(SetupError, match="web://: --accelerator cpu,gpu: a browser has wasm and webgpu"):
        execute.check_accelerators("web://", ("gpu", "cpu", "wasm"))
