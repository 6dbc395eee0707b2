"""A separate process for TensorFlow and Keras, which ends when its work is done.

Fresh, because converting twice in one process gives other bytes (Keras's automatic names count on); quiet,
because the converter prints thousands of lines from C++, past any Python redirection.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from harness.core import extras
from harness.core.errors import SetupError

P = ParamSpec("P")
R = TypeVar("R")

LOG_TAIL_CHARACTERS = 400


class KerasProcess:
    """Runs functions in one child process; use with `with`. Its output goes to a file, shown if it dies.

    preload: a package that the child imports at once, while the parent goes on.
    """

    def __init__(self, preload: str = "tensorflow") -> None:
        self._preload = preload

    def __enter__(self) -> Self:
        self._log = tempfile.NamedTemporaryFile(prefix="harness-keras-", suffix=".log")
        env = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = self.launch([self._log.name, self._preload], self._log, env)
        return self

    @staticmethod
    def launch(arguments: list[str], log: Any, env: dict[str, str]) -> Any:
        """Start the child: a subprocess.Popen, or what the tests put in its place to save the imports."""
        return subprocess.Popen(
            [sys.executable, "-m", "converters.keras_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, or the SetupError that it raised or that its process's death is."""
        return self.submit(function, *args, **kwargs)()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
        """Start a call and return a function that waits for its result. One call at a time."""

        def result() -> R:
            try:
                done, value = pickle.load(self._process.stdout)
            except EOFError as error:
                raise self._died(function) from error
            if not done:
                raise SetupError(value)
            return cast(R, value)

        try:
            pickle.dump((function, args, kwargs), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died(function) from error
        return result

    def _died(self, function: Callable[..., Any]) -> SetupError:
        code = self._process.wait()
        said = " ".join(Path(self._log.name).read_text(errors="replace").split())[-LOG_TAIL_CHARACTERS:]
        return SetupError(f"{function.__module__}: the Keras process ended with exit code {code}: {said}")


def serve(log: str, preload: str) -> None:
    """The child's side: calls from standard input, answers to what was standard output; that now goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # a short life: collecting takes a tenth of the imports' time
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 1)
        with suppress(ImportError):  # the call that needs it says so
            importlib.import_module(preload)
        while True:
            try:
                function, args, kwargs = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(_answer(function, args, kwargs), answers)
            answers.flush()


def _answer(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[bool, Any]:
    try:
        return True, function(*args, **kwargs)
    except SetupError as error:
        return False, str(error)
    except ModuleNotFoundError as error:
        return False, str(extras.missing("convert", f"{error}; this step needs TensorFlow"))
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return False, f"{function.__module__}: {type(error).__name__}: {text[:300]}"


if __name__ == "__main__":
    serve(*sys.argv[1:])
