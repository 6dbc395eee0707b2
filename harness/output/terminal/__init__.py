"""What a person sees on the terminal: steps and bars on standard error, results on standard output."""

from harness.output.terminal.app import app as app
from harness.output.terminal.app import bundle as bundle
from harness.output.terminal.check import flips as flips
from harness.output.terminal.check import runs as runs
from harness.output.terminal.check import table as table
from harness.output.terminal.check import tables as tables
from harness.output.terminal.evaluation import by_class as by_class
from harness.output.terminal.evaluation import comparison as comparison
from harness.output.terminal.evaluation import evaluation as evaluation
from harness.output.terminal.evaluation import predictions as predictions
from harness.output.terminal.explanation import cases as cases
from harness.output.terminal.explanation import explanation as explanation
from harness.output.terminal.explanation import finding as finding
from harness.output.terminal.fleet import fleet as fleet
from harness.output.terminal.op_profile import profile as profile
from harness.output.terminal.progress import Bars as Bars
from harness.output.terminal.progress import step as step
from harness.output.terminal.tools import advice as advice
from harness.output.terminal.tools import benchmark as benchmark
from harness.output.terminal.variants import converted as converted
from harness.output.terminal.variants import inspected as inspected
