"""From a finished run to what people look at: results, tables and curves."""

from mtl.report.baseline import Baseline, find_baseline
from mtl.report.best import best_epoch
from mtl.report.cost import describe_cost
from mtl.report.curves import draw_curves
from mtl.report.memory import PeakMemory
from mtl.report.results import FAILURE, FILE, Results, protocol_of
from mtl.report.table import print_table

__all__ = [
    "FAILURE",
    "FILE",
    "Baseline",
    "PeakMemory",
    "Results",
    "best_epoch",
    "describe_cost",
    "draw_curves",
    "find_baseline",
    "print_table",
    "protocol_of",
]
