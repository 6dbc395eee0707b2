"""What a person sees on the terminal: steps and bars on standard error, results on standard output."""

from harness.terminal.check import flips as flips
from harness.terminal.check import runs as runs
from harness.terminal.check import table as table
from harness.terminal.check import tables as tables
from harness.terminal.evaluation import by_class as by_class
from harness.terminal.evaluation import comparison as comparison
from harness.terminal.evaluation import evaluation as evaluation
from harness.terminal.evaluation import predictions as predictions
from harness.terminal.explanation import cases as cases
from harness.terminal.explanation import explanation as explanation
from harness.terminal.fleet import fleet as fleet
from harness.terminal.progress import Bars as Bars
from harness.terminal.progress import step as step
from harness.terminal.variants import converted as converted
from harness.terminal.variants import inspected as inspected
