"""A device by its address.

    local
    ssh://[user@]host[:port][?python=PATH&folder=PATH&config=FILE]
    adb://[serial][?folder=PATH]

python: a Python there that has NumPy and an interpreter; folder: where to write there; config: an ssh configuration
file. A serial, user or path with % or ? in it is written percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, unquote

from harness.core.errors import SetupError
from harness.run.devices import adb, bundle, ssh
from harness.run.devices.adb import Adb
from harness.run.devices.base import Device
from harness.run.devices.bundle import Runtime
from harness.run.devices.local import URI, Local
from harness.run.devices.remote import Remote
from harness.run.devices.ssh import Ssh

EXPECTED = "expected local, ssh://[user@]host[:port] or adb://[serial]"


def device(uri: str, *, keep: bool = False) -> Device:
    """The device of an address, not yet opened. keep: leave files of the job there. Raises SetupError."""
    if uri == URI:
        return Local()
    return remote(uri, keep=keep)


def remote(uri: str, *, keep: bool = False) -> Remote:
    """The same, of a device that is not this machine."""
    scheme, found, rest = uri.partition("://")
    if not found or scheme not in ("ssh", "adb"):
        raise SetupError(f"{uri!r}: {EXPECTED}")
    where, _, query = rest.partition("?")
    where = unquote(where).rstrip("/")
    if scheme == "adb":
        options = _options(uri, query, ("folder",))
        return Remote(Adb(where or None), options.get("folder", adb.FOLDER), _for_phone, keep=keep)
    options = _options(uri, query, ("folder", "python", "config"))
    parts = re.fullmatch(r"(?P<target>[^:\s]+)(:(?P<port>\d+))?", where)
    if not parts or where.startswith("-"):
        raise SetupError(f"{uri!r}: {EXPECTED}")
    shell = Ssh(parts["target"], int(parts["port"]) if parts["port"] else None, options.get("config"))
    return Remote(shell, options.get("folder", ssh.FOLDER), _for_host(uri, options.get("python")), keep=keep)


def _options(uri: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise SetupError(f"{uri!r}: unknown option {name!r}; known are {', '.join(known)}")
    return options


def _for_phone(answers: Mapping[str, str]) -> Runtime:
    return bundle.complete(answers.get("machine", "unknown"))


def _for_host(uri: str, given: str | None) -> Callable[[Mapping[str, str]], Runtime]:
    def choose(answers: Mapping[str, str]) -> Runtime:
        if given:
            return bundle.own(given)
        machine = answers.get("machine", "unknown")
        program, _, version = answers.get("python", "").partition(" ")
        numbers = tuple(map(int, re.findall(r"\d+", version)))
        if machine == "armv7l":
            if not (3, 9) <= numbers <= (3, 11):
                raise SetupError(
                    f"{uri}: its Python is {version or 'missing'}; on armv7l tflite-runtime needs 3.9 to 3.11: install "
                    "one with NumPy < 2 and name it, ?python=PATH"
                )
        elif not bundle.OLDEST_PYTHON <= numbers <= bundle.NEWEST_PYTHON:
            return bundle.complete(machine)  # none, or one without wheels
        return bundle.wheels(machine, version, program)

    return choose
