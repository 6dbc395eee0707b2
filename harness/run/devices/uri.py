"""A device by its address.

    local[?python=PATH]
    ssh://[user@]host[:port][?python=PATH&folder=PATH&config=FILE]
    adb://[serial][?folder=PATH]
    any of these with run_model=FILE[&run_flags=FLAGS&run_files=FILES]
    web://[address][:port][?adb=SERIAL | certificate=FILE&key=FILE]

python: a Python there that has NumPy and a runtime; folder: where to write there; config: an ssh configuration
file. web:// listens on the loopback address unless one is named; adb: opens the page on that phone (empty: the only
one); certificate, key: for https. run_model: Google's binary for the device, which then answers instead of our
worker. A serial, user or path with % or ? in it is written percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode

from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.run.devices import adb, bundle, run_model, ssh
from harness.run.devices.adb import Adb
from harness.run.devices.base import Device
from harness.run.devices.bundle import Runtime
from harness.run.devices.local import URI, Local
from harness.run.devices.remote import Choose, Remote
from harness.run.devices.run_model import RunModel
from harness.run.devices.ssh import Ssh
from harness.run.devices.web import LOOPBACK, Web

EXPECTED = "expected local, ssh://[user@]host[:port], adb://[serial] or web://[address][:port]"


def device(uri: str, *, keep: bool = False, progress: Progress = lambda task, done, total: None) -> Device:
    """The device of an address, not yet opened. keep: leave files of the job there. progress: called while a device is
    waited for; it may stop that. Raises SetupError."""
    place, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if "run_model" in options and not uri.startswith("web:"):
        binary, flags = Path(options.pop("run_model")), run_model.words(options.pop("run_flags", ""))
        libraries = [Path(file) for file in run_model.words(options.pop("run_files", ""))]
        rest = f"{place}?{urlencode(options)}" if options else place
        inner = Local() if rest == URI else remote(rest, keep=keep, choose=lambda *_: bundle.installed("none"))
        return RunModel(inner, binary, flags, libraries)
    if place == URI:
        return Local(**_options(uri, query, ("python",)))
    if uri.startswith("web://"):
        return _web(uri, progress)
    return remote(uri, keep=keep)


def remote(uri: str, *, keep: bool = False, choose: Choose | None = None) -> Remote:
    """The same, of a device that is not this machine. choose: its runtime, if not the usual one."""
    scheme, separator, rest = uri.partition("://")
    if scheme == "web":
        raise SetupError(f"{uri!r}: a page keeps nothing and is listed nowhere; open it with harness check --device")
    if not separator or scheme not in ("ssh", "adb"):
        raise SetupError(f"{uri!r}: {EXPECTED}")
    where, _, query = rest.partition("?")
    where = unquote(where).rstrip("/")
    if scheme == "adb":
        options = _options(uri, query, ("folder",))
        return Remote(Adb(where or None), options.get("folder", adb.FOLDER), choose or _for_phone, keep=keep)
    options = _options(uri, query, ("folder", "python", "config"))
    parts = re.fullmatch(r"(?P<target>[^:\s]+)(:(?P<port>\d+))?", where)
    if not parts or where.startswith("-"):
        raise SetupError(f"{uri!r}: {EXPECTED}")
    shell = Ssh(parts["target"], int(parts["port"]) if parts["port"] else None, options.get("config"))
    choose = choose or _for_host(uri, options.get("python"))
    return Remote(shell, options.get("folder", ssh.FOLDER), choose, keep=keep)


def _web(uri: str, progress: Progress) -> Web:
    where, _, query = uri.removeprefix("web://").partition("?")
    options = _options(uri, query, ("adb", "certificate", "key"))
    parts = re.fullmatch(r"(?P<address>[A-Za-z0-9.-]*)(:(?P<port>\d{1,5}))?/?", where)
    if not parts or parts["address"] == "0.0.0.0":
        raise SetupError(f"{uri!r}: expected web://[address][:port], an address of this machine that the phone reaches")
    if ("certificate" in options) != ("key" in options) or ("adb" in options and parts["address"]):
        raise SetupError(f"{uri!r}: expected certificate and key together, and adb without an address")
    phone = Adb(options["adb"] or None) if "adb" in options else None
    tls = (options["certificate"], options["key"]) if "key" in options else None
    return Web(uri, parts["address"] or LOOPBACK, int(parts["port"] or 0), phone, tls, progress)


def _options(uri: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise SetupError(f"{uri!r}: unknown option {name!r}; known are {', '.join(known)}")
    return options


def _for_phone(answers: Mapping[str, str], accelerators: Collection[str]) -> Runtime:
    return bundle.complete(answers.get("machine", "unknown"), accelerators)


def _for_host(uri: str, python: str | None) -> Callable[[Mapping[str, str], Collection[str]], Runtime]:
    """python: the one that the address names, if it names one."""

    def choose(answers: Mapping[str, str], accelerators: Collection[str]) -> Runtime:
        if python:
            return bundle.installed(python)
        machine, kernel = answers.get("machine", "unknown"), answers.get("kernel_machine", "unknown")
        version = answers.get("python_version", "")
        oldest, newest = bundle.PYTHONS.get(machine, ((0, 0), (0, 0)))
        if re.fullmatch(r"3\.\d{1,2}", version) and oldest <= (3, int(version[2:])) <= newest:
            return bundle.wheels(machine, version, answers.get("python", "python3"), accelerators)
        if kernel in bundle.MACHINES:  # it runs 64-bit programs, whatever its own are
            return bundle.complete(kernel, accelerators)
        if machine in bundle.PYTHONS:
            between = " to ".join(f"{major}.{minor}" for major, minor in (oldest, newest))
            raise SetupError(
                f"{uri}: its Python is {version or 'missing'}, the interpreter for {machine} needs {between}: install "
                "one with NumPy and name it, ?python=PATH"
            )
        return bundle.complete(machine, accelerators)

    return choose
