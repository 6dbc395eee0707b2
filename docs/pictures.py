"""README's pictures: a real terminal as SVG, the real report as PNG, light and dark.

python docs/pictures.py          # runs `harness check` and draws what it printed
python docs/pictures.py --stored # draws the stored run again

Needs the variants (`tox -e convert`) and Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from harness.core.errors import Exit

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
RECORD, PAGE = ROOT / "runs" / "check.json", ROOT / "runs" / "check.html"
WINDOW = (1180, 1250)  # of the report's screenshot, in CSS pixels
COLOURS = 256

_ANSI = [(60, 60, 60), (255, 120, 110), (90, 210, 130), (235, 190, 80), (110, 168, 254), (182, 156, 255)]
THEME = TerminalTheme((20, 23, 27), (230, 233, 237), [*_ANSI, (79, 209, 197), (200, 205, 210)])
SVG = """<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect fill="#14171b" width="{terminal_width}" height="{terminal_height}" rx="10"/>
<g transform="translate(12, 10)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""  # rich's own, without its window and without fonts from a network  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stored", action="store_true", help="draw runs/check.json instead of checking again")
    stored = parser.parse_args().stored
    PICTURES.mkdir(exist_ok=True)
    command = ["report", str(RECORD.relative_to(ROOT))] if stored else ["check"]
    (PICTURES / "terminal.svg").write_text(svg(f"$ harness {' '.join(command)}\n{in_terminal(command)}"))
    in_terminal(["report", str(RECORD), "--html", str(PAGE)])
    for scheme, number in (("light", 1), ("dark", 0)):
        (PICTURES / f"report-{scheme}.png").write_bytes(screenshot(PAGE, number))


def in_terminal(command: list[str]) -> str:
    """What a harness command prints to a terminal on standard output, with its colours."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "harness", *command], stdout=theirs, cwd=ROOT, env=environment)
    os.close(theirs)
    said = bytearray()
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        said += part
    if process.wait() == Exit.SETUP:
        raise SystemExit("nothing to draw; see above")
    return said.decode().replace("\r\n", "\n")


def svg(shown: str) -> str:
    text = Text.from_ansi(f"{shown.rstrip()}\n ")
    width = max(map(len, text.plain.splitlines())) + 3
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    return console.export_svg(title="", theme=THEME, code_format=SVG, unique_id="terminal")


def screenshot(page: Path, scheme: int) -> bytes:
    """The page's top as a PNG of few colours. scheme: Chromium's number, 0 dark, 1 light."""
    chromium = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.png"
        flags = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={scheme}"]
        flags += [f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={file}"]
        subprocess.run([chromium, *flags, page.resolve().as_uri()], check=True, capture_output=True)
        buffer = io.BytesIO()
        Image.open(file).convert("RGB").quantize(COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
