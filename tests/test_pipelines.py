"""What action.yml and gitlab-ci.yml run in a pipeline: each step's own shell, in a checkout of a user.

GitHub's side is this file's: expressions, caches and outputs. `gh` and `pip` are programs that write down their calls.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import FEW_IMAGES_POLICY, ROOT

GH = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *--paginate*) test -z "$FORK" || { echo "HTTP 403: Resource not accessible by integration" >&2; exit 1; }
                  cat "$CALLS.id" 2>/dev/null ;;
    *POST*) echo 4711 > "$CALLS.id" ;;
esac
exit 0
"""


@dataclass
class Repository:
    """A user's repository in CI. outputs: of the steps that ran. inputs: of the action."""

    folder: Path
    inputs: dict[str, str]
    branch: str = "change"
    fork: bool = False
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    summary: str = ""

    def value(self, expression: str) -> str:
        """GitHub's value of ${{ expression }}, for those that the action has."""
        event = "pull_request" if self.branch != "main" else "push"
        known = {
            "github.action_path": str(ROOT),
            "github.token": "token",
            "github.repository": "user/repository",
            "github.event.pull_request.number": "12",
            "github.event_name": event,
            "github.ref_name": self.branch,
            "github.event.repository.default_branch": "main",
        }
        if expression.startswith("inputs."):
            return self.inputs[expression.removeprefix("inputs.")]
        if match := re.fullmatch(r"steps\.(\w+)\.outputs\.(\w+)", expression):
            return self.outputs.get(match[1], {}).get(match[2], "")
        return known[expression]

    def holds(self, condition: str) -> bool:
        """A step's `if`: comparisons joined by &&."""
        for part in condition.split(" && "):
            left, _, right = part.partition(" == ")
            if self.value(left) != (right.strip("'") if right.startswith("'") else self.value(right)):
                return False
        return True

    def run(self, script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        files = {name: self.folder / f".{name.lower()}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        environment = (
            os.environ
            | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.folder / "calls")}
            | {"PYTHONPATH": str(ROOT), "FORK": "yes" if self.fork else ""}
            | {name: str(file) for name, file in files.items()}
            | environment
        )
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        self.last_outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        return done

    def act(self, *only: str) -> tuple[int, str]:
        """Run the action, or some of its steps, as GitHub does: exit code of the first that fails, what was printed."""
        printed = ""
        for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]:
            if "run" not in step or not self.holds(step.get("if", "github.token == 'token'")):
                continue
            if only and step["name"] not in only:
                continue
            assert "${{" not in step["run"], "an expression in a script lets an input run code"
            environment = {
                name: re.sub(r"\$\{\{ *(.*?) *\}\}", lambda match: self.value(match[1]), text)
                for name, text in step.get("env", {}).items()
            }
            done = self.run(step["run"], environment)
            printed += done.stdout + done.stderr
            self.outputs[step.get("id", step.get("name", ""))] = self.last_outputs
            if done.returncode:
                return done.returncode, printed
        return 0, printed

    @property
    def calls(self) -> str:
        file = self.folder / "calls"
        return file.read_text() if file.exists() else ""


@pytest.fixture(scope="module")
def repository(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    """After a push to the default branch and a pull request."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "bin").mkdir()
    programs = {"gh": GH, "harness": f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n'}
    programs["python"] = '#!/bin/sh\necho "$*" >> "$CALLS"\n'
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    shutil.copytree(tiny_variants, folder / "variants")
    shutil.copy(tiny_model, folder / "model.keras")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    inputs = {name: str(about.get("default", "")) for name, about in action["inputs"].items()}
    inputs |= {"model": "model.keras", "models": "variants", "data": str(few_images), "policy": str(FEW_IMAGES_POLICY)}
    pushed = Repository(folder, inputs | {"variants": "int8"}, branch="main")
    code, printed = pushed.act()
    assert code == 0, printed
    assert "There is no record of the default branch yet." in pushed.summary
    assert "gh" not in pushed.calls
    requested = replace(pushed, branch="change", outputs={}, summary="")
    code, printed = requested.act()
    assert code == 0, printed
    return requested


def test_a_pull_request_that_passes(repository: Repository) -> None:
    """Record, page, JUnit and summary are there; its predictions are judged beside the default branch's."""
    assert repository.outputs["check"] == {"code": "0", "verdict": "PASS"}
    assert {"check.json", "check.npz", "check.html", "junit.xml", "summary.md"} <= {
        path.name for path in (repository.folder / "runs").iterdir()
    }
    assert "PASS" in repository.summary
    assert "verdict: PASS" in (repository.folder / "runs" / "compare.txt").read_text()
    assert f"-m pip install --quiet {ROOT}[convert,report]" in repository.calls


def test_one_comment_is_updated(repository: Repository) -> None:
    assert repository.calls.count("--method POST repos/user/repository/issues/12/comments") == 1
    assert repository.act("Comment")[0] == 0
    assert repository.calls.count("--method POST") == 1
    assert repository.calls.count("--method PATCH repos/user/repository/issues/comments/4711") == 1


def test_a_fork_has_no_comment_but_a_verdict(repository: Repository) -> None:
    code, printed = replace(repository, fork=True).act("Comment", "Verdict")
    assert code == 0
    assert "::notice::No comment" in printed


@pytest.mark.parametrize(("limit", "code", "verdict"), [("0.0001", 1, "FAIL"), ("0.15", 3, "INCONCLUSIVE")])
def test_a_pull_request_that_does_not_pass(repository: Repository, limit: str, code: int, verdict: str) -> None:
    """The last step fails with the check's exit code; on the default branch nothing becomes the baseline."""
    policy = repository.folder / "strict.toml"
    policy.write_text(f"[limits]\nmax_flip_share = {limit}\n")
    inputs = repository.inputs | {"policy": str(policy), "output": "others"}
    other = replace(repository, inputs=inputs, branch="main", outputs={"compare": {"code": "0"}})
    (repository.folder / ".harness-baseline" / "check.json").touch()
    before = (repository.folder / ".harness-baseline" / "check.json").stat().st_mtime_ns
    assert other.act("Check", "Keep the default branch's record", "Verdict")[0] == code
    assert other.outputs["check"]["verdict"] == verdict
    assert (repository.folder / ".harness-baseline" / "check.json").stat().st_mtime_ns == before


def test_a_baseline_of_another_model(repository: Repository) -> None:
    """The default branch's is not compared, and that is said; one named by the user must fit."""
    other = repository.folder / "earlier"
    shutil.copytree(repository.folder / ".harness-baseline", other)
    content = json.loads((other / "check.json").read_text())
    content["model"]["sha256"] = "0" * 64
    (other / "check.json").write_text(json.dumps(content))
    named = replace(repository, inputs=repository.inputs | {"baseline": "earlier/check.json"}, outputs={})
    assert named.act("Compare")[0] == 0
    assert named.outputs["compare"]["code"] == "2"
    shutil.copytree(other, repository.folder / ".harness-baseline", dirs_exist_ok=True)
    assert repository.act("Compare", "Verdict")[0] == 0
    assert "different models" in (repository.folder / "runs" / "compare.txt").read_text()


def test_a_wrong_input_stops_the_action(repository: Repository) -> None:
    other = replace(repository, inputs=repository.inputs | {"data": "no/such/folder"})
    code, printed = other.act("Check", "Verdict")
    assert code == 2
    assert "no/such/folder" in printed


def test_gitlabs_job(repository: Repository) -> None:
    """Its lines, in order, as a runner runs them; tests/converters has the conversion's."""
    job: dict[str, Any] = yaml.safe_load((ROOT / "gitlab-ci.yml").read_text())[".harness"]
    own = {"MODEL": "model.keras", "MODELS": "variants", "DATA": repository.inputs["data"], "VARIANTS": "int8"}
    environment = job["variables"] | own | {"CHECK_FLAGS": f"--no-latency --policy {FEW_IMAGES_POLICY}"}
    lines = [line for line in job["script"] if not line.startswith("harness convert")]
    done = repository.run("\n".join([*job["before_script"], *lines, *job["after_script"]]), environment)
    assert done.returncode == 0, done.stderr
    assert (repository.folder / job["artifacts"]["reports"]["junit"]).exists()
