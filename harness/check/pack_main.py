"""Runs a packed check: `python3 JOB.zip [options of harness check]`.

`harness device pack` puts this file into the job as __main__.py. It installs the wheel that lies beside it, and what
that needs, into a folder next to the job, once. Packages that the system has are used.
"""

import hashlib
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

SETUP = 2  # exit code of wrong usage or a missing program


def main() -> int:
    """The exit code of harness check."""
    job = Path(sys.argv[0]).resolve()
    with zipfile.ZipFile(job) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".whl"))
        wheel = archive.read(name)
    environment = job.parent / f"harness-{hashlib.sha256(wheel).hexdigest()[:12]}"
    python = environment / "bin" / "python"
    installed = environment / "installed"
    if not installed.exists():
        print(f"installing the harness into {environment}", file=sys.stderr, flush=True)
        try:
            venv.create(environment, clear=True, symlinks=True, with_pip=True, system_site_packages=True)
        except subprocess.CalledProcessError as error:
            reason = (error.output or b"no reason given").decode(errors="replace").strip().splitlines()[-1]
            return refuse(f"python3 -m venv fails ({reason}); install it: sudo apt install python3-venv")
        except OSError as error:
            return refuse(f"{environment} cannot be written ({error.strerror}); copy the job to a folder that can")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(wheel)
            if subprocess.call([python, "-m", "pip", "install", "--quiet", path]):
                return refuse("pip could not install the harness; see its message above")
        installed.touch()
    return subprocess.call([python, "-m", "harness", "check", "--packed", job, *sys.argv[1:]])


def refuse(reason: str) -> int:
    print(f"{Path(sys.argv[0]).name}: {reason}", file=sys.stderr)
    return SETUP


if __name__ == "__main__":
    sys.exit(main())
