"""The `harness` command: one module for each verb, loaded when the verb is used.

argparse, because click alone takes longer to import than `harness --help` may take, and typer and cyclopts build on it
or take longer still.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

from harness.cli import flags
from harness.core.errors import Exit, SetupError, nearest

GROUPS = {
    "convert and look": {
        "convert": "make TFLite variants of a Keras model",
        "inspect": "show what is in a .tflite file, and what may slow it down",
        "evaluate": "measure how often a Keras or TFLite model is right, and show where it is not",
        "predict": "show which classes a model sees in images",
    },
    "check and judge": {
        "check": "judge variants against the Keras model, on this machine or on devices",
        "verdict": "derive the verdict of a stored run again, without models or images",
        "report": "show stored runs as a table, a page, Markdown, JUnit or JSON",
        "release": "compare a run with an earlier one, sign a verdict, demand a signed one",
        "app": "write images and tensors that an app must reproduce, and judge what it did",
    },
    "devices and labs": {
        "device": "list, examine and test devices, start virtual ones, pack a check for one",
        "lab": "check a fleet of devices, or offer devices to checks on other hosts",
    },
    "tools": {
        "explain": "find the layers where a variant loses its answers, or its time",
    },
}
SECOND_LEVEL = {
    "app": {
        "golden": "write a bundle of images, tensors and tests for the app's own project",
        "check": "name what an app did wrong from its dump of a bundle, and judge its answers",
    },
    "device": {
        "list": "list the devices that can be reached, and what is wrong with the others",
        "doctor": "show what on this machine would disturb latency, and what to change first",
        "virtual": "start an ARM phone or Raspberry Pi without hardware, under emulation",
        "pack": "put a check into one file, for a machine without TensorFlow",
        "clean": "remove all files of the harness from devices",
        "benchmark": "measure latency beside litert-benchmark's, in turn",
        "profile": "show where a variant's time goes, on this machine or on a device",
        "selftest": "break a working variant in every known way; none may pass on this machine",
    },
    "release": {
        "compare": "judge a run against an earlier run on the same images, as CI does",
        "attest": "state a stored run's verdict over the hashes of all its files, and sign it",
        "verify-attestation": "demand a signed verdict for the files that are released",
    },
    "lab": {
        "check": "check every device of a fleet file, with one verdict for all",
        "scheduler": "run the lab's scheduler, which hands out jobs; one for each lab",
        "worker": "offer this host's devices to a lab; one for each host",
    },
}
VERBS = {verb: does for group in GROUPS.values() for verb, does in group.items()}
# Verbs of two words that one word calls.
SHORT = {
    "golden": ("app", "golden"),
    "profile": ("device", "profile"),
    "selftest": ("device", "selftest"),
    **{name: ("release", name) for name in SECOND_LEVEL["release"]},
}
MODULES = {"inspect": "inspect_file"}  # `inspect` is a module of the standard library
EXIT_CODES = "exit codes: 0 PASS, 1 FAIL, 2 usage or set-up error, 3 INCONCLUSIVE, 130 interrupted"
VerbPath = tuple[str, ...]  # of a verb, such as ("check",) and ("device", "list")
SHELLS = ("bash", "zsh", "tcsh")


def paths() -> Iterator[VerbPath]:
    """Every verb that runs."""
    for verb in VERBS:
        yield from ((verb, second) for second in SECOND_LEVEL[verb]) if verb in SECOND_LEVEL else ((verb,),)


def module(path: VerbPath) -> Any:
    """The module of a verb: its EXAMPLE, add_flags(parser) and run(options)."""
    return import_module(f"harness.cli.{'_'.join(MODULES.get(word, word) for word in path).replace('-', '_')}")


def parser(verb: str | None = None) -> argparse.ArgumentParser:
    """All verbs, with the flags of one of them; None: of all."""
    top = _Top(prog="harness", allow_abbrev=False)
    top.add_argument("--version", action=_Version, nargs=0, help="show the versions of the harness and the runtimes")
    top.add_argument("--completion", action=_Completion, choices=SHELLS, help="print a shell's completion script")
    _add_verbs(top, VERBS, (), verb)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = in_full(sys.argv[1:] if arguments is None else list(arguments))
    name, options = "harness", argparse.Namespace(verbose=False)
    try:
        options, unknown = parser(next((word for word in words if word in VERBS), "")).parse_known_args(words)
        name = options.parser.prog
        if unknown:
            options.parser.refuse(unknown[0])
        if options.verbose:
            from harness.output.terminal import progress

            progress.verbose = True
        code: int = options.run(options)
    except SetupError as error:
        if options.verbose:
            import traceback

            traceback.print_exc()
        print(error if isinstance(error, UsageError) else f"{name}: {error}", file=sys.stderr)
        return Exit.SETUP
    except BrokenPipeError:  # the reader of standard output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.SETUP
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; no file is left half-written", file=sys.stderr)
        return Exit.INTERRUPTED
    return code


def in_full(words: list[str]) -> list[str]:
    """The words of a command line, a short form written out: `profile`, and `app DUMP` for `app check DUMP`."""
    if words and words[0] in SHORT:
        return [*SHORT[words[0]], *words[1:]]
    if words[:1] == ["app"] and words[1:] and words[1] not in (*SECOND_LEVEL["app"], "--help", "-h"):
        return ["app", "check", *words[1:]]
    return words


class UsageError(SetupError):
    """A command line that cannot be understood; the message begins with the command."""


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (-\S+):(?= \S+: (?:expected|unknown))", r"\1", message)
        message = re.sub(r"^argument (?!VERB)", "", message)
        if wrong := re.fullmatch(r"(?:argument )?(.*): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            message = _unknown("verb" if wrong[1] == "VERB" else wrong[1], wrong[2], re.findall(r"[\w-]+", wrong[3]))
        if message.endswith("required: VERB"):
            verbs = next(action.choices for action in self._actions if action.metavar == "VERB")
            message = f"expected a verb: {', '.join(verbs or ())}"
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help)")

    def refuse(self, word: str) -> NoReturn:
        """Report a word that is no flag of this verb."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        self.error(_unknown("flag", word, flags) if word.startswith("-") else f"unexpected {word!r}")


def _unknown(what: str, word: str, known: Sequence[str]) -> str:
    return f"unknown {what} {word!r}; {nearest(word, known)}"


class _Top(_Parser):
    """`harness --help`: the verbs in groups."""

    def format_help(self) -> str:
        lines = [
            "usage: harness VERB [flags]",
            "",
            "Test whether TFLite variants answer like their Keras model.",
        ]
        for group, verbs in GROUPS.items():
            lines += ["", group, *(f"  {verb:10}{does}" for verb, does in verbs.items())]
        lines += ["", "flags", "  --version             versions of the harness and of the runtimes"]
        lines += [f"  --completion SHELL    completion script for {', '.join(SHELLS)}", ""]
        return "\n".join([*lines, "harness VERB --help shows a verb's flags and an example.", EXIT_CODES, ""])


def _add_verbs(parent: argparse.ArgumentParser, verbs: Mapping[str, str], path: VerbPath, chosen: str | None) -> None:
    subparsers = parent.add_subparsers(metavar="VERB", title="verbs", required=True, parser_class=_Parser)
    for name, does in verbs.items():
        verb = subparsers.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
        if chosen not in (None, name):
            continue
        if name in SECOND_LEVEL and not path:
            _add_verbs(verb, SECOND_LEVEL[name], (name,), None)
            continue
        loaded = module((*path, name))
        loaded.add_flags(verb)
        flags.add(verb, "--verbose")
        verb.epilog = f"example: {loaded.EXAMPLE}; {EXIT_CODES}"
        verb.set_defaults(run=loaded.run, parser=verb)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from harness.tools import versions

        print(versions.text())
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, top: argparse.ArgumentParser, _: Any, shell: Any, __: str | None = None) -> None:
        from harness.cli import completion

        print(completion.script(parser(), shell))
        top.exit()
