"""Train or fine-tune the network: `python -m models.train [CONFIG.toml] [--epochs N ...]`.

Stopped at any moment, the same command continues from the last epoch's checkpoint.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.core.errors import Exit, SetupError
from models import config


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path, help="TOML file; keys as in models/config.py")
    config.add_flags(parser)
    options = vars(parser.parse_args(arguments))
    try:
        settings = config.from_flags(options.pop("config"), options)
        _choose_backend(settings)
        with _quiet():
            from models.training import train  # imports Keras, on the backend chosen
        train(settings)
    except SetupError as error:
        print(f"models.train: {error}", file=sys.stderr)
        return Exit.SETUP
    except KeyboardInterrupt:
        print("models.train: interrupted; the same command continues", file=sys.stderr)
        return Exit.INTERRUPTED
    return Exit.PASS


def _choose_backend(settings: config.TrainConfig) -> None:
    """Raises SetupError where this process has already imported Keras on another backend."""
    if settings.backend == "jax":
        os.environ.setdefault("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "gloo")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = settings.backend
        return
    import keras

    if keras.backend.backend() != settings.backend:
        raise SetupError(
            f"backend = {settings.backend!r}: this process already runs Keras on {keras.backend.backend()}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow's start-up lines come from C++, past any Python redirection."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
