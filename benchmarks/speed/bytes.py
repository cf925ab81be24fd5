"""Bytes that each process sends in a step: `python -m benchmarks.speed.bytes [--processes 2 4]`.

Counted where they leave: Gloo writes to sockets, and Linux counts what a process writes.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table
from torch import nn

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import DBMTL, GradDrop, NashMTLWeighting, PCGradWeighting, TrimmedMean

TASKS = 3
_WIDTH = 400
_STEPS = 3
_FLOAT = 4

METHODS: dict[str, Callable[[], Balancer]] = {
    "ew": Balancer,
    "pcgrad": lambda: Balancer(PCGradWeighting()),
    "nash_mtl": lambda: Balancer(NashMTLWeighting()),
    "graddrop": lambda: Balancer(GradDrop()),
    "trimmed_mean": lambda: Balancer(TrimmedMean()),
    "pcgrad at the representation": lambda: Balancer(PCGradWeighting(), level="representation"),
    "db_mtl": lambda: Balancer(DBMTL(TASKS)),
}
WITH_MEMORY = ("db_mtl",)
"""Every process keeps whole rows there: any of them can save, and any number resume."""


class Sent(NamedTuple):
    """Bytes a step and process.

    Attributes:
        measured: What was written to sockets.
        needed: What the scheme takes.
    """

    measured: float
    needed: float


def measure(processes: int) -> dict[str, Sent]:
    """Runs all methods in so many processes on this machine.

    Raises:
        OSError: The system does not count what a process writes.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, (folder, processes), nprocs=processes)
        measured = torch.load(Path(folder) / "sent.pt", weights_only=True)
    return {name: Sent(measured[name], _needed(name, processes)) for name in METHODS}


def _needed(name: str, processes: int) -> float:
    """Bytes of the scheme: rows reduced and scattered, T x T products, one vector gathered.

    Where every process needs the sum of n numbers, it sends `2 (N-1)/N n` of them; where it needs
    one part of the sum, or has one part of what all need, `(N-1)/N n`.
    """
    groups = _model()[0].parameter_groups()
    shared = sum(p.numel() for p in groups.shared)
    heads = sum(p.numel() for own in groups.specific.values() for p in own)
    small = 2 * 8 * (2 * TASKS + TASKS**2)
    vectors = 2 if name == "ew" or name.endswith("representation") else TASKS + 1
    return (processes - 1) / processes * (_FLOAT * (vectors * shared + 2 * heads) + small)


def _model() -> tuple[MultiTaskModel, list[Task]]:
    torch.manual_seed(0)
    layers = [nn.Linear(_WIDTH, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, _WIDTH), nn.Tanh()]
    tasks = [Task(f"task{i}", nn.Linear(_WIDTH, 1), nn.MSELoss()) for i in range(TASKS)]
    return MultiTaskModel(nn.Sequential(*layers), tasks), tasks


def _process(rank: int, folder: str, processes: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    counts = torch.tensor([_sent_in_a_step(make()) for make in METHODS.values()])
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    if rank == 0:
        torch.save(dict(zip(METHODS, counts.tolist(), strict=True)), Path(folder) / "sent.pt")
    dist.destroy_process_group()


def _sent_in_a_step(balancer: Balancer) -> float:
    model, tasks = _model()
    inputs = torch.randn(8, _WIDTH)
    batch = inputs, {task.name: inputs[:, i, None].sin() for i, task in enumerate(tasks)}

    def steps() -> None:
        for _ in range(_STEPS):
            balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))

    steps()
    dist.barrier()
    before = _written()
    steps()
    return (_written() - before) / _STEPS


def _written() -> int:
    found = re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())
    if found is None:
        raise OSError("Expected the line `wchar` in /proc/self/io.")
    return int(found[1])


def main() -> None:
    """Prints a table for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    for processes in parser.parse_args().processes:
        table = Table(title=f"KiB that each of {processes} processes sends in a step")
        for column in ("method", "sent", "the scheme needs", "ratio"):
            table.add_column(column, justify="left" if column == "method" else "right")
        for name, (measured, needed) in measure(processes).items():
            numbers = f"{measured / 1024:.1f}", f"{needed / 1024:.1f}", f"{measured / needed:.3f}"
            table.add_row(name, *numbers)
        Console().print(table)


if __name__ == "__main__":
    main()
