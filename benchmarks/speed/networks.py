"""Small networks on random data: the workloads W1, W2 and W3, and two with more parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.base import Batch
from benchmarks.speed.gradients import GradientCost
from mtl import MultiTaskModel, Task
from mtl.losses import MSE


def mlp(num_tasks: int, samples: int, width: int = 512) -> GradientCost:
    """Trunk of three layers, 256 to `width`, with linear heads."""

    def backbone() -> nn.Module:
        pairs = itertools.pairwise((256, width, width, width))
        return nn.Sequential(*(m for i, o in pairs for m in (nn.Linear(i, o), nn.ReLU())))

    return _problem(backbone, width, num_tasks, torch.randn(samples, 256))


def cnn(num_tasks: int, samples: int) -> GradientCost:
    """ResNet-like trunk of 0.9 M parameters on 3x64x64."""

    def backbone() -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        blocks = [_Block(32, 32), _Block(32, 64), _Block(64, 128), _Block(128, 160)]
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return _problem(backbone, 160, num_tasks, torch.randn(samples, 3, 64, 64))


def wide_cnn(num_tasks: int, samples: int) -> GradientCost:
    """Convolutions of many channels, 2.7 M parameters, on maps of 4x4: parameters outweigh maps."""

    def backbone() -> nn.Module:
        pairs = itertools.pairwise((64, 512, 512))
        convolutions = [m for i, o in pairs for m in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())]
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return _problem(backbone, 512, num_tasks, torch.randn(samples, 64, 4, 4))


NETWORKS: dict[str, tuple[str, Callable[[], GradientCost]]] = {
    "W1": ("MLP 256-512-512-512, 3 tasks, batch 256", lambda: mlp(3, 256)),
    "W2": ("CNN, 0.9 M parameters, 3 tasks, batch 32", lambda: cnn(3, 32)),
    "W3": ("the MLP, 40 tasks, batch 128", lambda: mlp(40, 128)),
    "W5": ("wide CNN, 2.7 M parameters, 10 tasks, batch 4", lambda: wide_cnn(10, 4)),
    "W6": ("MLP 256-2048-2048-2048, 10 tasks, batch 32", lambda: mlp(10, 32, 2048)),
}
"""Name -> description and problem. (W4 is `combine`, which has no network.)"""


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
