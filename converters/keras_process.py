"""A process of its own for TensorFlow and Keras: quiet, fresh, and gone when done.

Fresh, because converting twice in one process gives other bytes (Keras's automatic names count on); quiet,
because the converter prints thousands of lines from C++, past any Python redirection.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from harness.errors import SetupError

P = ParamSpec("P")
R = TypeVar("R")


class KerasProcess:
    """Runs functions in one child process; use with `with`. Its output goes to a file, shown if it dies."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._log = tempfile.NamedTemporaryFile(prefix="harness-keras-", suffix=".log")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._log.name), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()
        self._log.close()

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, or what it raised; SetupError where the process died."""
        try:
            self._connection.send((function, args, kwargs))
            done, value = self._connection.recv()
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            self._process.join()
            lines = Path(self._log.name).read_text(errors="replace").split("\n")
            tail = " | ".join(line.strip() for line in lines if line.strip())[-400:]
            raise SetupError(
                f"{function.__module__}: the Keras process ended with exit code {self._process.exitcode}: {tail}"
            ) from error
        if not done:
            raise value
        return value  # type: ignore[no-any-return]


def _serve(connection: Connection, log: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = True, function(*args, **kwargs)
        except ModuleNotFoundError as error:
            answer = False, SetupError(f"{error}; this step needs TensorFlow: pip install 'tflite-harness[convert]'")
        except SetupError as error:
            answer = False, error
        except Exception as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            answer = False, SetupError(f"{function.__module__}: {type(error).__name__}: {text[:300]}")
        connection.send(answer)
