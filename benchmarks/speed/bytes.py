"""Bytes that each process sends in a step: `python -m benchmarks.speed.bytes`.

Counted where they leave: Gloo writes to sockets, and Linux counts what a process writes. All
presets that take gradients of single tasks, at both levels, beside `ew`.
"""

from __future__ import annotations

import argparse
import copy
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from torch import nn

from benchmarks.speed.methods import OURS, preset, preset_names
from benchmarks.speed.tables import Table, rewrite
from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.errors import MTLError
from mtl.step import Level

TASKS = 6
PROCESSES = (2, 4)
_WIDTH = 200
_STEPS = 4
_FLOAT = 4

Case = tuple[str, str]
"""Preset and level."""


class Sent(NamedTuple):
    """Bytes a step and process.

    Attributes:
        measured: What was written to sockets.
        needed: What the scheme takes; `None` with a sharpness, which evaluates the batch again.
    """

    measured: float
    needed: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over needed."""
        return None if self.needed is None else self.measured / self.needed


def measure(processes: int) -> dict[Case, Sent]:
    """Runs all cases in so many processes on this machine.

    Raises:
        OSError: The system does not count what a process writes.
    """
    balancers = _balancers()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, (folder, processes, balancers), nprocs=processes)
        measured = torch.load(Path(folder) / "sent.pt", weights_only=True)
    return {
        case: Sent(sent, _needed(balancers[case], compared, processes))
        for case, (sent, compared) in measured.items()
    }


def tables() -> Iterator[Table]:
    """One for both numbers of processes."""
    found = [measure(processes) for processes in PROCESSES]
    columns = ["preset", "level"]
    for processes in PROCESSES:
        columns += [f"{processes} processes: KiB sent", "needed", "ratio"]
    rows = [
        [f"`{name}`", level, *(cell for sent in found for cell in _cells(sent[name, level]))]
        for name, level in found[0]
    ]
    shared = sum(p.numel() for p in _model()[0].parameter_groups().shared)
    title = f"Sent by each process in a step; {TASKS} tasks, P = {shared:,}"
    yield Table("bytes", title, columns, rows)


def _cells(sent: Sent) -> list[str]:
    if sent.needed is None:
        return [f"{sent.measured / 1024:.0f}", "", ""]
    return [f"{sent.measured / 1024:.0f}", f"{sent.needed / 1024:.0f}", f"{sent.ratio:.3f}"]


def _balancers() -> dict[Case, Balancer]:
    """Of the presets that compare gradients, and `ew`."""
    found: dict[Case, Balancer] = {}
    for name in preset_names():
        for level in OURS:
            with suppress(MTLError):
                balancer = preset(name, TASKS, cast("Level", level))
                if balancer.combine.compares or (name, level) == ("ew", "parameters"):
                    found[name, level] = balancer
    return found


def _needed(balancer: Balancer, compared: float, processes: int) -> float | None:
    """Bytes of the scheme: rows reduced and scattered, T x T products, one vector gathered.

    Where every process needs the sum of n numbers, it sends `2 (N-1)/N n` of them; where it needs
    one part of the sum, or has one part of what all need, `(N-1)/N n`.

    Args:
        balancer: That it is the scheme of.
        compared: Share of the steps that take gradients of single tasks.
        processes: N.
    """
    if balancer.sharpness is not None:
        return None
    model, tasks = _model()
    groups = model.parameter_groups()
    shared = sum(p.numel() for p in groups.shared)
    heads = sum(p.numel() for own in groups.specific.values() for p in own)
    rows = len(balancer.clusters([task.name for task in tasks]))
    small = 2 * 8 * (2 * TASKS + rows**2)
    vectors = 2 + (rows - 1) * compared * (balancer.level == "parameters")
    return (processes - 1) / processes * (_FLOAT * (vectors * shared + 2 * heads) + small)


def _model() -> tuple[MultiTaskModel, list[Task]]:
    torch.manual_seed(0)
    layers = [nn.Linear(_WIDTH, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, _WIDTH), nn.Tanh()]
    tasks = [Task(f"task{i}", nn.Linear(_WIDTH, 1), nn.MSELoss()) for i in range(TASKS)]
    return MultiTaskModel(nn.Sequential(*layers), tasks), tasks


def _process(rank: int, folder: str, processes: int, balancers: dict[Case, Balancer]) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    sent: dict[Case, tuple[float, float]] = {}
    for case, balancer in balancers.items():
        sent[case] = _sent_in_a_step(copy.deepcopy(balancer))  # its tensors are shared
    counts = torch.tensor(list(sent.values()))
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    if rank == 0:
        torch.save(dict(zip(sent, counts.tolist(), strict=True)), Path(folder) / "sent.pt")
    dist.destroy_process_group()


def _sent_in_a_step(balancer: Balancer) -> tuple[float, float]:
    """Bytes of an average step, and the share of the steps that compare gradients."""
    model, tasks = _model()
    inputs = torch.randn(8, _WIDTH)
    batch = inputs, {task.name: inputs[:, i, None].sin() for i, task in enumerate(tasks)}

    def steps() -> int:
        compared = 0
        for _ in range(_STEPS):
            compared += balancer.combine.compares
            balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
        return compared

    steps()
    dist.barrier()
    before = _written()
    compared = steps()
    return (_written() - before) / _STEPS, compared / _STEPS


def _written() -> int:
    found = re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())
    if found is None:
        raise OSError("Expected the line `wchar` in /proc/self/io.")
    return int(found[1])


def main() -> None:
    """Prints the table, or writes it into a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.bytes", description=__doc__)
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="rewrite the table that stands in FILE between `<!-- speed: bytes -->` marks",
    )
    arguments = parser.parse_args()
    for table in tables():
        if arguments.write:
            rewrite(arguments.write, table.name, f"\n{table.markdown()}\n")
        else:
            table.show(Console())


if __name__ == "__main__":
    main()
