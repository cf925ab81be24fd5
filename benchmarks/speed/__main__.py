"""Measures what balancing costs: `python -m benchmarks.speed PART`."""

from __future__ import annotations

import argparse
import os
import platform
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from benchmarks.speed import combine, costs, diagnose, memory, peers, sharpness, streaming, training
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.tables import Table, rewrite


class Part(NamedTuple):
    """One thing to measure."""

    help: str
    rounds: int
    tables: Callable[..., Iterable[Table]]
    networks: tuple[str, ...] = ()


PARTS = {
    "training": Part(
        "train.py beside a bare loop, and gradients beside bare backward passes, on data sets",
        7,
        training.tables,
    ),
    "diagnose": Part("a step that callbacks=diagnose records", 15, diagnose.tables),
    "peers": Part(
        "a step of every method that TorchJD has too, beside TorchJD's and the floor",
        5,
        peers.tables,
        ("W1", "W2", "W3"),
    ),
    "combine": Part(
        "W4: from a given Jacobian of 10^6 columns to the combined vector, beside TorchJD",
        7,
        combine.combine_tables,
    ),
    "weights": Part("from a given Gramian to weights, beside TorchJD", 11, combine.weights_tables),
    "memory": Part(
        "peak memory of a step beyond equal weighting, beside TorchJD",
        1,
        memory.tables,
        tuple(NETWORKS),
    ),
    "sharpness": Part(
        "PCGrad with and without task-SAM, time and peak memory",
        5,
        sharpness.tables,
        ("W1", "W2", "W3", "W2x40"),
    ),
    "streaming": Part(
        "PCGrad with few rows kept, time and peak memory", 5, streaming.tables, ("W5",)
    ),
    "costs": Part("the cost columns of the README's method table", 5, costs.tables),
}


def main() -> None:
    """Runs one part; prints its tables, or writes them into a document."""
    arguments = _arguments()
    part = PARTS[arguments.part]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = arguments.rounds or part.rounds
    networks = (arguments.networks or part.networks,) if part.networks else ()
    console = Console()
    note = _note(part, rounds)
    if not arguments.markdown:
        console.print(note)
    for table in part.tables(rounds, *networks):
        if arguments.write and arguments.part == "costs":
            costs.write(arguments.write, table)
        elif arguments.write:
            rewrite(arguments.write, table.name, f"\n{table.markdown()}\n\n{note}\n")
        elif arguments.markdown:
            print(f"{table.markdown()}\n\n{note}\n")
        else:
            table.show(console)


def _arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<10}{part.help} ({part.rounds})" for name, part in PARTS.items())
    networks = "\n".join(f"  {name:<10}{text}" for name, (text, _) in NETWORKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Measures what balancing costs: CPU time of one thread, all contenders once a "
        "round in random order, medians of ratios within a round.",
        epilog=f"parts (rounds by default):\n{listed}\n\nnetworks:\n{networks}\n\n"
        "docs/speed.md says how to read the tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=PARTS, help="what to measure")
    parser.add_argument("--rounds", type=int, help="rounds that count, at least 2")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=[*NETWORKS, "W2x40"],
        help="only these, for peers, memory and sharpness",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="rewrite the tables that stand in FILE between `<!-- speed: ... -->` marks",
    )
    return parser.parse_args()


def _note(part: Part, rounds: int) -> str:
    how = "allocations" if part.tables is memory.tables else f"CPU time, {rounds} rounds"
    return (
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPU cores, one thread, "
        f"{how}."
    )


if __name__ == "__main__":
    main()
