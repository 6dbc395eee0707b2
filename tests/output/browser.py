"""A page in headless Chromium: how wide it is, whether its pictures load, what the console says."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.needs import needs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Seen:
    """width: of all there is to scroll over, in pixels. console: lines that the page caused."""

    width: int
    pictures: int
    loaded: int
    console: list[str]


def look(text: str, width: int, folder: Path) -> Seen:
    """A page in a window of some width."""
    needs("browser")
    measure = """const root = frame.contentDocument.documentElement, pictures = [...frame.contentDocument.images];
        document.title = [root.scrollWidth, pictures.length, pictures.filter(p => p.naturalWidth).length]"""
    frame = f'<iframe id="frame" width="{width}" height="900" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html>{frame}<script>frame.onload = () => {{ {measure} }}</script>")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    title = re.search(r"<title>(\d+),(\d+),(\d+)</title>", done.stdout)
    assert title, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(int(title[1]), int(title[2]), int(title[3]), console)
