"""A wheel of the running harness, for a machine that has none; made without network and build tools."""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import harness
from harness.core.errors import SetupError

NAME = "tflite-harness"
PACKAGES = ("harness", "converters")
MADE_AT = (1980, 1, 1, 0, 0, 0)  # so that the same files give the same wheel


def build(root: Path = Path(harness.__file__).parents[1]) -> tuple[str, bytes]:
    """File name and content. root: where the packages are, a clone or site-packages. Raises SetupError."""
    project = root / "pyproject.toml"
    metadata, scripts = _from_project(project) if project.is_file() else _from_installation()
    version = next(line for line in metadata.splitlines() if line.startswith("Version: ")).split()[1]
    stem = f"{NAME.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    paths = [path for name in PACKAGES for path in (root / name).rglob("*")]
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: harness device pack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = scripts.encode()
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name, MADE_AT), content, zipfile.ZIP_DEFLATED)
    return f"{stem}-py3-none-any.whl", packed.getvalue()


def _from_project(path: Path) -> tuple[str, str]:
    """Metadata and entry points of a clone; what is installed of it may describe an older state."""
    project = tomllib.loads(path.read_text())["project"]
    try:  # the clone's own is in its tags, which git knows
        version = distribution(NAME).version
    except PackageNotFoundError:
        version = "0"
    lines = ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {version}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    points = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()), ""])
        for group, entries in groups.items()
    ]
    return "\n".join([*lines, ""]), "\n".join(points)


def _from_installation() -> tuple[str, str]:
    try:
        installed = distribution(NAME)
    except PackageNotFoundError as error:
        raise SetupError(
            f"the harness is neither installed nor in its clone; pip install . in the clone: {error}"
        ) from error
    return installed.read_text("METADATA") or "", installed.read_text("entry_points.txt") or ""


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
