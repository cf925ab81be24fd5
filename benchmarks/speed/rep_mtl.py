"""What Rep-MTL costs, beside other balancers: `python -m benchmarks.speed.rep_mtl`.

Needs the extra `[vision]` for the DeepLab network.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.base import Batch
from benchmarks.speed.gradients import GradientCost
from benchmarks.speed.methods import preset
from benchmarks.speed.parts import ModelFactory, parts
from benchmarks.speed.tables import Table, ratios, rewrite
from benchmarks.speed.timing import interleave, timed
from mtl import Balancer, MultiTaskModel, Task
from mtl.losses import L1, Cosine, CrossEntropy
from mtl.models import DeepLabHead, DenseHead, DilatedResNet, UNet
from mtl.parts import Needs
from mtl.regularizers import csa

BALANCERS = ("ew", "ew_log", "rep_mtl", "pcgrad", "nash_mtl")
_TASKS = 3
SALIENCY = (_TASKS, 8, 2048, 36 * 48)
HeadFactory = Callable[[int, int], nn.Module]
Problem = tuple[ModelFactory, Batch]


def convolutional_head(channels: int, out_channels: int) -> nn.Module:
    """3x3 convolution, BatchNorm, ReLU, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, out_channels, 1),
    )


def problem(
    backbone: Callable[[], nn.Module], head: HeadFactory, samples: int, height: int, width: int
) -> Problem:
    """NYUv2's three tasks on random pictures."""
    torch.manual_seed(0)
    batch: Batch = (
        torch.randn(samples, 3, height, width),
        {
            "segmentation": torch.randint(0, 13, (samples, height, width)),
            "depth": torch.rand(samples, 1, height, width) + 0.5,
            "normal": functional.normalize(torch.randn(samples, 3, height, width), dim=1),
        },
    )

    def model() -> tuple[MultiTaskModel, list[Task]]:
        torch.manual_seed(0)
        trunk: Any = backbone()
        channels: int = trunk.out_channels
        tasks = [
            Task("segmentation", head(channels, 13), CrossEntropy()),
            Task("depth", head(channels, 1), L1(invalid=0.0)),
            Task("normal", head(channels, 3), Cosine()),
        ]
        return MultiTaskModel(trunk, tasks), tasks

    return model, batch


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "U-Net, 1x1 heads, batch 16, 64x64": lambda: problem(UNet, DenseHead, 16, 64, 64),
    "U-Net, convolutional heads, batch 16, 64x64": lambda: problem(
        UNet, convolutional_head, 16, 64, 64
    ),
    "dilated ResNet-50, DeepLab heads, batch 2, 96x128": lambda: problem(
        DilatedResNet, DeepLabHead, 2, 96, 128
    ),
}


def straightforward() -> Balancer:
    """The same with the second derivatives of the layers as PyTorch has them."""
    result = preset("rep_mtl", _TASKS)
    for part in result.regularizers.values():
        part.needs = Needs.REPRESENTATION  # type: ignore[assignment]
    return result


# ------------------------------------------------------------------------------- memory of CSA


def naive(saliency: Tensor, temperature: float = 0.1) -> Tensor:
    """Equations 7 to 9 with all C x C matrices."""
    samples = saliency.shape[1]
    maps = functional.normalize((saliency @ saliency.mT).flatten(2), dim=2)
    columns = saliency.mean(3).permute(1, 2, 0)
    anchors = functional.normalize((columns @ columns.mT).flatten(1), dim=1)
    positive = (anchors * maps).sum(2) / temperature
    same = torch.eye(samples, dtype=torch.bool)
    negative = (anchors @ anchors.T / temperature).masked_fill(same, -torch.inf).logsumexp(1)
    return (negative - positive).mean()


def memory(form: str) -> float:
    """MiB beyond saliency and its gradient that the term needs, forward and backward."""
    command = [sys.executable, "-m", "benchmarks.speed.rep_mtl", "--memory-of", form]
    return float(subprocess.check_output(command, text=True))


def print_memory(form: str) -> None:
    """Prints the peak of this process above what the inputs take."""
    torch.manual_seed(0)
    saliency = torch.randn(SALIENCY, requires_grad=True)
    saliency.grad = torch.zeros_like(saliency).fill_(0.0)
    small = torch.randn(3, 2, 8, 8, requires_grad=True)
    terms = {"naive": naive, "csa": csa}
    terms[form](small).backward()  # libraries are loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (gradient,) = torch.autograd.grad(terms[form](saliency), saliency)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del gradient
    own = saliency.numel() * saliency.element_size() / 1024
    print((after - before - own) / 1024)


def tables(title: str, problem: Problem, rounds: int) -> Iterator[Table]:
    """Whole steps as ratios to `ew`: median and quartiles; and where their time goes."""
    cost = GradientCost(*problem)
    contenders = {name: cost.balanced(preset(name, _TASKS)) for name in BALANCERS}
    contenders["rep_mtl, PyTorch's derivatives"] = cost.balanced(straightforward())
    runs = {name: timed(run) for name, run in contenders.items()}
    yield ratios(title, interleave(runs, rounds=rounds), "ew")
    combiners = {name: preset(name, _TASKS).combine for name in BALANCERS[-2:]}
    yield parts(title, problem, combiners, rounds)


def main() -> None:
    """Prints tables of time and memory, and profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--problem", default="", help="only those with this in their name")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="rewrite the tables that stand in FILE between `<!-- speed: ... -->` marks",
    )
    parser.add_argument("--memory-of", choices=["naive", "csa"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print_memory(options.memory_of)
        return
    console = Console()
    note = (
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPU cores, one thread, "
        f"CPU time, {options.rounds} rounds."
    )
    console.print(note)
    for title, make in PROBLEMS.items():
        if options.problem in title:
            for table in tables(title, make(), options.rounds):
                if options.write:
                    rewrite(options.write, table.name, f"\n{table.markdown()}\n\n{note}\n")
                table.show(console)
    if not options.problem or options.problem in "memory":
        ours, theirs = memory("csa"), memory("naive")
        console.print(
            f"CSA on {list(SALIENCY)}, beyond saliency and its gradient: {ours:.0f} MiB, with "
            f"C x C matrices {theirs:.0f} MiB, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
