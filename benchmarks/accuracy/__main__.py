"""Prints how far directions are from their definition, ours beside TorchJD's.

`python -m benchmarks.accuracy [--csv FILE]`
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.accuracy.families import COUNTS, FAMILIES
from benchmarks.accuracy.measure import Result, measure
from benchmarks.accuracy.methods import METHODS


def main() -> None:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ", ".join(f"{name} {method.draws}" for name, method in METHODS.items())
    parser.add_argument(
        "--draws", type=int, help=f"seeds 0, 1, ... of each family; default: {default}"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--tasks", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--width", type=int, default=500, help="entries of a gradient")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "float64"], choices=["float32", "float64"]
    )
    parser.add_argument("--csv", type=Path, help="file for all rows: method, family, T, errors")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtypes = [getattr(torch, name) for name in options.dtypes]
    results = list(
        measure(
            options.methods,
            options.families,
            options.tasks,
            dtypes,
            draws=options.draws,
            width=options.width,
        )
    )
    print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores; "
        f"{_draws(options.draws, options.methods)}, T in {options.tasks}, "
        f"{options.width} entries a gradient"
    )
    for dtype in dtypes:
        chosen = [result for result in results if result.dtype == dtype]
        print(f"\nWorst error over draws and T, ours / TorchJD's; Jacobian of {dtype}\n")
        print(summary(chosen))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(results[0].row))
            writer.writeheader()
            writer.writerows(result.row for result in results)


def _draws(chosen: int | None, methods: Sequence[str]) -> str:
    """How many draws each of the methods has, in words."""
    counts = {name: METHODS[name].draws if chosen is None else chosen for name in methods}
    most = max(counts.values())
    fewer = [f"{name} {count}" for name, count in counts.items() if count < most]
    return f"{most} draws" + (f" ({', '.join(fewer)})" if fewer else "")


def summary(results: Sequence[Result]) -> str:
    """A Markdown table, methods by families."""
    cells: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for result in results:
        ours, theirs = cells[result.method, result.family]
        ours.extend(result.ours)
        theirs.extend(result.theirs)
    methods = list(dict.fromkeys(result.method for result in results))
    families = list(dict.fromkeys(result.family for result in results))
    lines = [f"| method | {' | '.join(families)} |", "|---" * (len(families) + 1) + "|"]
    for method in methods:
        row = [" / ".join(_worst(errors) for errors in cells[method, f]) for f in families]
        lines.append(f"| `{method}` | {' | '.join(row)} |")
    return "\n".join(lines)


def _worst(errors: Sequence[float]) -> str:
    return f"{max(errors):.0e}" if errors else "-"


if __name__ == "__main__":
    main()
