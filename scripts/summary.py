"""Prints mean and standard deviation over the seeds of finished runs, a line a balancer and metric.

python scripts/summary.py multirun/2026-01-01_12-00-00
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from mtl.errors import DataError
from mtl.report import Results

Key = tuple[str, str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads every `metrics.json` below the folders and prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs")
    values: dict[Key, list[float]] = defaultdict(list)
    for folder in parser.parse_args(arguments).folders:
        for path in sorted(folder.rglob("metrics.json")):
            try:
                collect(Results.read(path), values)
            except DataError as error:
                print(f"Left out: {error}", file=sys.stderr)
    if not values:
        print("No finished run there: expected metrics.json files below.", file=sys.stderr)
        return 2
    table = Table("dataset, protocol", "balancer", "metric", "mean", "standard deviation", "runs")
    for (group, balancer, metric), own in values.items():
        spread = f"{statistics.stdev(own):.4g}" if len(own) > 1 else "-"
        mean = f"{statistics.mean(own):.4g}"
        table.add_row(group, balancer, metric, mean, spread, str(len(own)))
    Console().print(table)
    return 0


def collect(results: Results, values: dict[Key, list[float]]) -> None:
    """Adds the metrics and summaries of one run; runs of other tasks are kept apart."""
    group = f"{results.dataset}, {results.protocol}"
    balancer = results.balancer if len(results.metrics) > 1 else "single task"
    for task, metrics in results.metrics.items():
        for name in results.higher_is_better[task]:
            values[group, balancer, f"{task} {name}"].append(metrics[name])
    for name, delta in (("delta_m", results.delta_m), ("delta_p", results.delta_p)):
        if delta is not None and len(results.metrics) > 1:
            values[group, balancer, name].append(delta)


if __name__ == "__main__":
    sys.exit(main())
