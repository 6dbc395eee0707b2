"""Figures and pages for people. Needs the extra `report`; all else runs without it."""

from harness.core.errors import SetupError

try:
    import jinja2 as jinja2
    import matplotlib as matplotlib
except ModuleNotFoundError as error:
    raise SetupError(f"{error}; figures and pages need it: pip install 'tflite-harness[report]'") from error
