"""What weights cost once the Gramian is there: `python -m benchmarks.speed.weights`."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.accuracy.families import rows_of
from mtl import aggregation
from mtl.linalg import gramian
from mtl.parts import Weighting

WEIGHTINGS: dict[str, Callable[[], Weighting]] = {
    "mgda": aggregation.MGDAWeighting,
    "sdmgrad": aggregation.SDMGradWeighting,
    "upgrad": aggregation.UPGradWeighting,
    "dualproj": aggregation.DualProjWeighting,
    "cagrad": aggregation.CAGradWeighting,
    "nash_mtl": aggregation.NashMTLWeighting,
    "fairgrad": lambda: aggregation.FairGradWeighting(alpha=2.0),
    "imtl_g": aggregation.IMTLGWeighting,
    "aligned_mtl": aggregation.AlignedMTLWeighting,
    "config": aggregation.ConFIGWeighting,
    "pcgrad": lambda: aggregation.PCGradWeighting(seed=0),
    "gradvac": lambda: aggregation.GradVacWeighting(40, seed=0),
    "krum": aggregation.KrumWeighting,
}
CASES = [("gauss", 3), ("gauss", 40), ("low rank", 3), ("low rank", 40)]


def main() -> None:
    """Prints a Markdown table of CPU milliseconds: median and largest over draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10, help="seeds 0, 1, ... of each family")
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread\n")
    print(f"| method | {' | '.join(f'{family}, T = {count}' for family, count in CASES)} |")
    print("|---" * (len(CASES) + 1) + "|")
    for name, make in WEIGHTINGS.items():
        cells = []
        for family, count in CASES:
            grams = [gramian(rows_of(family, count, s, 500).float()) for s in range(draws)]
            times = [milliseconds(make(), gram) for gram in grams]
            cells.append(f"{statistics.median(times):.2f} ({max(times):.2f})")
        print(f"| `{name}` | {' | '.join(cells)} |")


def milliseconds(weighting: Weighting, gram: torch.Tensor, calls: int = 5) -> float:
    """Median CPU time of a call."""
    weighting(gram)
    times = []
    for _ in range(calls):
        started = time.process_time()
        weighting(gram)
        times.append(1000 * (time.process_time() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
