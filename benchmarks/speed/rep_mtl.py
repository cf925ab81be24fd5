"""What Rep-MTL costs, beside other balancers: `python -m benchmarks.speed.rep_mtl`.

Needs the extra `[vision]` for the DeepLab network.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.base import Batch
from benchmarks.speed.gradients import GradientCost
from benchmarks.speed.methods import preset
from benchmarks.speed.tables import ratios
from benchmarks.speed.timing import interleave, timed
from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.linalg import Product
from mtl.losses import L1, Cosine, CrossEntropy
from mtl.models import DeepLabHead, DenseHead, DilatedResNet, UNet
from mtl.parts import Needs
from mtl.regularizers import csa, tsr

BALANCERS = ("ew", "ew_log", "rep_mtl", "pcgrad", "nash_mtl")
_TASKS = 3
SALIENCY = (_TASKS, 8, 2048, 36 * 48)
HeadFactory = Callable[[int, int], nn.Module]
ModelFactory = Callable[[], tuple[MultiTaskModel, list[Task]]]
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


def phases(model_and_tasks: ModelFactory, batch: Batch) -> dict[str, tuple[float, float]]:
    """CPU seconds of the parts of one step, of `ew` and of `rep_mtl`."""
    model, tasks = model_and_tasks()
    watch = _Watch()
    step = Step.evaluate(model, tasks, batch)
    heads = [p for name in step.tasks for p in step.specific[name]]
    losses = [loss for loss in step.losses.values() if loss is not None]
    (z,) = step.representation[tasks[0].name]  # type: ignore[index]
    watch.lap("forward")
    plain, *_ = torch.autograd.grad(losses, [z, *heads], [torch.ones(())] * 3, retain_graph=True)
    watch.lap("heads, backward")
    torch.autograd.grad(z, step.shared, plain)
    watch.lap("backbone, backward")
    ours = _Watch()
    step = Step.evaluate(model, tasks, batch, needs=Needs.SALIENCY)
    heads = [p for name in step.tasks for p in step.specific[name]]
    (z,) = step.representation[tasks[0].name]  # type: ignore[index]
    ours.lap("forward")
    found = [gradients[0] for gradients in step.saliencies(1e-8, factored=True).values()]
    raw = [t for s in found for t in ((s.left, s.right) if isinstance(s, Product) else (s,))]
    ours.lap("saliency")
    saliency = [s.flatten(2) for s in found]
    terms = tsr(saliency) + csa(saliency)
    ours.lap("terms, forward")
    tangents = torch.autograd.grad(terms, raw)
    ours.lap("terms, backward")
    losses = [loss for loss in step.losses.values() if loss is not None]
    factors = [*tangents, *[torch.ones(())] * 3]
    total, *_ = torch.autograd.grad([*raw, *losses], [z, *heads], factors, retain_graph=True)
    ours.lap("heads, backward")
    torch.autograd.grad(z, step.shared, total)
    ours.lap("backbone, backward")
    return {name: (watch.laps.get(name, 0.0), own) for name, own in ours.laps.items()}


class _Watch:
    """CPU seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.laps[name], self._last = now - self._last, now


def show_profile(console: Console, title: str, problem: Problem, rounds: int) -> None:
    """Where a step of `rep_mtl` spends more time than one of `ew`."""
    found = [phases(*problem) for _ in range(rounds + 1)][1:]
    table = Table(title=f"{title}: parts of a step, CPU ms (median)")
    for column in ("part", "ew", "rep_mtl"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name in found[0]:
        pairs = [run[name] for run in found]
        table.add_row(
            name, *(f"{1000 * statistics.median(v):.1f}" for v in zip(*pairs, strict=True))
        )
    console.print(table)


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


def main() -> None:
    """Prints tables of time and memory, and profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--problem", default="", help="only those with this in their name")
    parser.add_argument("--memory-of", choices=["naive", "csa"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print_memory(options.memory_of)
        return
    console = Console()
    console.print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread, "
        f"CPU time, {options.rounds} interleaved rounds; ratio to ew: median (quartiles)"
    )
    for title, make in PROBLEMS.items():
        if options.problem in title:
            made = make()
            cost = GradientCost(*made)
            contenders = {name: cost.balanced(preset(name, _TASKS)) for name in BALANCERS}
            contenders["rep_mtl, PyTorch's derivatives"] = cost.balanced(straightforward())
            runs = {name: timed(run) for name, run in contenders.items()}
            ratios(title, interleave(runs, rounds=options.rounds), "ew").show(console)
            show_profile(console, title, made, options.rounds)
    if not options.problem or options.problem in "memory":
        ours, theirs = memory("csa"), memory("naive")
        console.print(
            f"CSA on {list(SALIENCY)}, beyond saliency and its gradient: {ours:.0f} MiB, with "
            f"C x C matrices {theirs:.0f} MiB, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
