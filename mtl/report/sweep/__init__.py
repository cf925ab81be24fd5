"""From the folders of many runs to one verdict: tables, statistics, pictures and a page."""

from mtl.report.sweep.comparison import Comparison, Method, Metric
from mtl.report.sweep.gather import compare
from mtl.report.sweep.runs import Failure, Note, Run, Runs, read_runs
from mtl.report.sweep.verdict import Verdict, judge

__all__ = [
    "Comparison",
    "Failure",
    "Method",
    "Metric",
    "Note",
    "Run",
    "Runs",
    "Verdict",
    "compare",
    "judge",
    "read_runs",
]
