"""The table that a run ends with."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mtl.metrics import relative_gain
from mtl.report.baseline import Baseline
from mtl.report.results import Results


def print_table(results: Results, baseline: Baseline | None, console: Console) -> None:
    """Prints a row a task and metric, and the two summaries.

    Args:
        results: The run.
        baseline: Single-task values, if known.
        console: Where to print.
    """
    table = Table(title=f"{results.dataset}, {results.balancer}, seed {results.seed}: test")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("single task", justify="right")
    table.add_column("gain", justify="right")
    for task, metrics in results.metrics.items():
        for metric, value in metrics.items():
            if metric not in results.higher_is_better[task]:
                continue
            higher = results.higher_is_better[task][metric]
            reference, gain = "-", "-"
            if baseline is not None:
                single = baseline.values[task][metric]
                reference = f"{single:.4f}"
                gain = f"{relative_gain(value, single, higher):+.2f} %"
            arrow = "↑" if higher else "↓"
            table.add_row(task, f"{metric} {arrow}", f"{value:.4f}", reference, gain)
        table.add_section()
    for name, delta, meaning in (
        ("delta_m", results.delta_m, "mean drop over all metrics, ↓"),
        ("delta_p", results.delta_p, "mean gain over tasks, ↑"),
    ):
        text = "-" if delta is None else f"{delta:+.2f} %"
        table.add_row(name, meaning, "", "", text)
    if results.best_epoch is not None:
        best = results.best_epoch
        name, text = f"after epoch {best['epoch']}", f"{best['delta_p']:+.2f} %"
        table.add_row("delta_p", f"{name}, the best on test data, ↑", "", "", text)
    console.print(table)
    if baseline is not None:
        remark = f"Single-task values: {results.baseline}."
    elif results.single:
        remark = (
            "A single-task run: runs with shared tasks and the same protocol are compared with it."
        )
    else:
        remark = (
            "No single-task runs of this protocol are known: gains are not shown. Make them with "
            "the same options and balancer=stl (or tasks=[TASK], once for each task)."
        )
    console.print(remark, markup=False, highlight=False)
