"""Balancing on small networks beside TorchJD: `python -m benchmarks.speed.peers [--rounds N]`."""

from __future__ import annotations

import argparse
import itertools
import os
import platform
from collections.abc import Callable

import torch
import torchjd.aggregation
from rich.console import Console
from torch import Tensor, nn

from benchmarks.base import Batch
from benchmarks.speed.__main__ import show
from benchmarks.speed.gradients import Contender, GradientCost
from benchmarks.speed.timing import interleave
from mtl import Balancer, MultiTaskModel, Task
from mtl.aggregation import MGDAWeighting, PCGradWeighting, UPGradWeighting
from mtl.losses import MSE

_OPTIONS = {"default": (None, False), "chunk 1, gramian": (1, True)}


def mlp(num_tasks: int, samples: int) -> GradientCost:
    """Trunk 256-512-512-512 with linear heads; W1 (3 tasks, 256) and W3 (40 tasks, 128)."""

    def backbone() -> nn.Module:
        widths = (256, 512, 512, 512)
        pairs = itertools.pairwise(widths)
        return nn.Sequential(*(m for i, o in pairs for m in (nn.Linear(i, o), nn.ReLU())))

    return _problem(backbone, 512, num_tasks, torch.randn(samples, 256))


def cnn(num_tasks: int, samples: int) -> GradientCost:
    """ResNet-like trunk of 0.9 M parameters on 3x64x64; W2 (3 tasks, 32)."""

    def backbone() -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        blocks = [_Block(32, 32), _Block(32, 64), _Block(64, 128), _Block(128, 160)]
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return _problem(backbone, 160, num_tasks, torch.randn(samples, 3, 64, 64))


class _Block(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.skip = nn.Conv2d(before, after, 1, 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.body(features) + self.skip(features))


def _problem(
    backbone: Callable[[], nn.Module], width: int, num_tasks: int, inputs: Tensor
) -> GradientCost:
    names = [f"task{i}" for i in range(num_tasks)]

    def model() -> tuple[MultiTaskModel, list[Task]]:
        torch.manual_seed(0)
        tasks = [Task(name, nn.Linear(width, 10), MSE()) for name in names]
        return MultiTaskModel(backbone(), tasks), tasks

    batch: Batch = (inputs, {name: torch.randn(len(inputs), 10) for name in names})
    return GradientCost(model, batch)


def contenders(problem: GradientCost) -> dict[str, Contender]:
    """Ours, TorchJD's, and what both are measured by."""
    result = {
        "ew, bare backward": problem.plain_backward(),
        "one backward a task (floor)": problem.task_backwards(),
    }
    ours = {"pcgrad": PCGradWeighting, "mgda": MGDAWeighting, "upgrad": UPGradWeighting}
    theirs = {"pcgrad": "PCGrad", "mgda": "MGDA", "upgrad": "UPGrad"}
    for name, weighting in ours.items():
        result[name] = problem.balanced(Balancer(weighting()))
        result[f"{name}, representation"] = problem.balanced(
            Balancer(weighting(), level="representation")
        )
    for name, peer in theirs.items():
        for label, (chunk, optimize) in _OPTIONS.items():
            aggregator = getattr(torchjd.aggregation, peer)()
            result[f"TorchJD {name}, {label}"] = problem.torchjd(
                aggregator, chunk=chunk, optimize=optimize
            )
    return result


def main() -> None:
    """Times the three networks and prints a table each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console()
    console.print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread, "
        f"CPU time, {rounds} interleaved rounds; ratio to the floor: median (quartiles)"
    )
    for title, problem in (
        ("W1: MLP, 3 tasks, batch 256", mlp(3, 256)),
        ("W2: CNN, 3 tasks, batch 32", cnn(3, 32)),
        ("W3: MLP, 40 tasks, batch 128", mlp(40, 128)),
    ):
        timings = interleave(
            contenders(problem), reference="one backward a task (floor)", rounds=rounds
        )
        show(console, title, timings)


if __name__ == "__main__":
    main()
