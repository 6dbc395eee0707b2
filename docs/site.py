"""What MkDocs is told beyond mkdocs.yml: README.md is the first page, and `harness VERB --help` is a page, too.

Links to files outside docs/ lead to copies of them in the site, so that it needs no other address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {  # Markdown outside docs/
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/README.md": "model.md",
    "data/README.md": "data.md",
}
LINK = re.compile(r"(?P<start>\]\(|srcset=\"|src=\")(?P<path>[^)\"#:\s]+)(?P<end>[)\"#])")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and what pages link to outside docs/."""
    texts = {file.src_uri: (file.content_string, ROOT / "docs") for file in files.documentation_pages()}
    texts |= {page: ((ROOT / path).read_text(), (ROOT / path).parent) for path, page in PAGES.items()}
    for page in PAGES.values():
        files.append(File.generated(config, page, content=_links(*texts[page])))
    files.append(File.generated(config, "commands.md", content=commands()))
    targets = {_target(folder, match["path"]) for text, folder in texts.values() for match in LINK.finditer(text)}
    for target in sorted(filter(None, targets)):
        if target.startswith("source/"):
            content = (ROOT / target.removeprefix("source/")).read_bytes()
            files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return markdown if page.file.src_uri in PAGES.values() else _links(markdown, ROOT / "docs")


def _links(text: str, folder: Path) -> str:
    """Links from a file in `folder` as the site's root has them; what does not exist stays, and stops the build."""

    def link(match: re.Match[str]) -> str:
        target = _target(folder, match["path"])
        return f"{match['start']}{target}{match['end']}" if target else match[0]

    return LINK.sub(link, text)


def _target(folder: Path, path: str) -> str | None:
    """Where the site has a linked file. None if there is no such file."""
    name = os.path.relpath(folder / path, ROOT)
    if not (ROOT / name).is_file():
        return None
    return PAGES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"source/{name}")


def commands() -> str:
    """Each verb's help."""
    os.environ["COLUMNS"] = "100"
    from harness.cli import GROUPS, parser, paths

    lines = ["# Commands", "", "```text", parser("").format_help(), "```"]
    groups = {verb: group for group, verbs in GROUPS.items() for verb in verbs}
    shown = ""
    for path in paths():
        if groups[path[0]] != shown:
            shown = groups[path[0]]
            lines += ["", f"## {shown[0].upper()}{shown[1:]}"]
        current: Any = parser(path[0])
        for word in path:
            current = next(action for action in current._actions if action.metavar == "VERB").choices[word]
        lines += ["", f"### harness {' '.join(path)}", "", "```text", current.format_help().rstrip(), "```"]
    return "\n".join([*lines, ""])
