"""How steep the loss of every task is around a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from mtl.sharpness.perturbation import perturbed

Losses = Callable[[], Tensor]
"""Losses of all tasks at the present parameters, `[m]`; with graph where gradients are on."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Landscape:
    """Losses of every task around the parameters of a model.

    Args:
        model: Is left as it was.
        losses: What is measured.
        seed: Of the random directions; the same for all models that are to be compared.
    """

    def __init__(self, model: nn.Module, losses: Losses, *, seed: int = 0) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._losses = losses
        self._generator = torch.Generator().manual_seed(seed)
        self._directions = [self._random_direction() for _ in range(2)]

    def line(self, distances: Sequence[float]) -> Tensor:
        """Losses along a random direction, `[points, m]`; see `plane`."""
        return torch.stack([self._at(x, 0.0) for x in distances])

    def plane(self, distances: Sequence[float]) -> Tensor:
        """Losses on a grid along two random directions, `[points, points, m]`, second one first.

        Directions are normalized by filter: each row of a weight is as long as that of the model,
        vectors (biases, normalization) do not move. A distance of 1 moves every filter by its own
        length, so that models of different scale can be compared.

        References:
            Li, Xu, Taylor, Studer, Goldstein. Visualizing the Loss Landscape of Neural Nets.
            NeurIPS 2018. https://arxiv.org/abs/1712.09913
        """
        return torch.stack([torch.stack([self._at(x, y) for x in distances]) for y in distances])

    def uphill(self, radii: Sequence[float]) -> Tensor:
        """Each task's loss at that distance along its own gradient, `[radii, m]`."""
        count = len(self._losses().detach())
        rows = []
        for task in range(count):
            slopes = torch.autograd.grad(
                self._losses()[task], self._parameters, allow_unused=True, materialize_grads=True
            )
            unit = self._unit(slopes)
            rows.append(torch.stack([self._moved(unit, rho)[task] for rho in radii]))
        return torch.stack(rows, 1)

    def around(self, radii: Sequence[float], draws: int = 5) -> Tensor:
        """Mean loss at that distance in random directions, `[radii, m]`."""
        units = [self._unit([self._normal(p) for p in self._parameters]) for _ in range(draws)]
        return torch.stack(
            [torch.stack([self._moved(unit, rho) for unit in units]).mean(0) for rho in radii]
        )

    def _at(self, x: float, y: float) -> Tensor:
        first, second = self._directions
        offsets = [x * a + y * b for a, b in zip(first, second, strict=True)]
        return self._moved(offsets, 1.0)

    def _moved(self, direction: Sequence[Tensor], distance: float) -> Tensor:
        pairs = zip(self._parameters, direction, strict=True)
        moves = [(p, d, torch.as_tensor(distance).to(d)) for p, d in pairs]
        with perturbed(moves), torch.no_grad():
            return self._losses()

    def _random_direction(self) -> list[Tensor]:
        direction = []
        for parameter in self._parameters:
            if parameter.dim() < 2:
                direction.append(torch.zeros_like(parameter))
                continue
            draw = self._normal(parameter)
            sizes = parameter.detach().flatten(1).norm(dim=1) / draw.flatten(1).norm(dim=1)
            direction.append(draw * sizes.view(-1, *[1] * (parameter.dim() - 1)))
        return direction

    def _normal(self, parameter: Tensor) -> Tensor:
        return torch.randn(parameter.shape, generator=self._generator).to(parameter)

    @staticmethod
    def _unit(direction: Sequence[Tensor]) -> list[Tensor]:
        length = torch.stack([d.norm() for d in direction]).norm()
        return [d / torch.where(length > 0, length, 1.0) for d in direction]


def draw_lines(
    path: Path, tasks: Sequence[str], distances: Sequence[float], lines: Mapping[str, Tensor]
) -> None:
    """One panel a task with a curve a model.

    Args:
        path: The picture.
        tasks: Names of the tasks.
        distances: Of the points.
        lines: Model -> losses, `[points, m]`.
    """
    size = (3.6 * len(tasks), 3.0)
    figure, grid = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for i, (axes, task) in enumerate(zip(grid[0], tasks, strict=True)):
        for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
            axes.plot(distances, values[:, i], color=colour, label=name)
        axes.set(title=task, xlabel="distance", yscale="log")
    grid[0][0].set_ylabel("loss")
    grid[0][0].legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def draw_planes(
    path: Path, tasks: Sequence[str], distances: Sequence[float], planes: Mapping[str, Tensor]
) -> None:
    """Contours: a row a model, a column a task; both models on one scale.

    Args:
        path: The picture.
        tasks: Names of the tasks.
        distances: Of the points along both directions.
        planes: Model -> losses, `[points, points, m]`.
    """
    size = (3.4 * len(tasks), 2.6 * len(planes))
    figure, grid = plt.subplots(
        len(planes), len(tasks), figsize=size, squeeze=False, layout="constrained"
    )
    for i, task in enumerate(tasks):
        logs = {name: values[..., i].clamp_min(1e-12).log10() for name, values in planes.items()}
        joined = torch.stack(list(logs.values()))
        levels = np.linspace(float(joined.min()), float(joined.max()) + 1e-6, 15)
        for axes, (name, values) in zip(grid[:, i], logs.items(), strict=True):
            contours = axes.contourf(distances, distances, values, levels=levels, cmap="viridis")
            axes.plot(0, 0, "w+")
            axes.set_title(f"{name}: {task}", fontsize=9)
            axes.set_aspect("equal")
        figure.colorbar(contours, ax=grid[:, i], label="log10 loss", shrink=0.8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
