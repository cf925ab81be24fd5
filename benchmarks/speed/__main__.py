"""Prints the speed tables: `python -m benchmarks.speed [--rounds N]`."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import warnings
from collections.abc import Mapping

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.workloads import Workload
from mtl import Balancer
from mtl.aggregation import MGDAWeighting, PCGradWeighting

_COMBINERS = {"pcgrad": PCGradWeighting, "mgda": MGDAWeighting}


def main() -> None:
    """Times the built-in data sets and prints a table each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    rounds = parser.parse_args().rounds
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    console = Console()
    console.print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread, "
        f"CPU time, {rounds} interleaved rounds; ratio: median (quartiles)"
    )
    for name, steps in (("scenes", 20), ("multimnist", 60)):
        workload = Workload(name, steps)
        training = interleave(
            {"bare loop": workload.bare_loop, "train.py": workload.lightning_loop},
            reference="bare loop",
            rounds=rounds,
            warmup=1,
        )
        show(console, f"{name}: equal weighting, {steps} steps of training", training)
        gradients = workload.gradients()
        floor = {"one backward a task (floor)": gradients.task_backwards()}
        for method, combiner in _COMBINERS.items():
            floor[method] = gradients.balanced(Balancer(combiner()))
        reference = "one backward a task (floor)"
        show(
            console,
            f"{name}: gradients at parameter level",
            interleave(floor, reference=reference, rounds=2 * rounds),
        )
        plain = {"ew, bare backward": gradients.plain_backward()}
        for method, combiner in _COMBINERS.items():
            plain[method] = gradients.balanced(Balancer(combiner(), level="representation"))
        show(
            console,
            f"{name}: gradients at representation level",
            interleave(plain, reference="ew, bare backward", rounds=2 * rounds),
        )


def show(console: Console, title: str, timings: Mapping[str, Timing]) -> None:
    """Prints a table of timings."""
    table = Table(title=title)
    table.add_column("what")
    table.add_column("CPU ms", justify="right")
    table.add_column("ratio", justify="right")
    for name, timing in timings.items():
        spread = f"{timing.ratio:.3f} ({timing.low:.3f} to {timing.high:.3f})"
        table.add_row(name, f"{timing.milliseconds:.1f}", spread)
    console.print(table)


if __name__ == "__main__":
    main()
