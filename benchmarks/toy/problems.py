"""The two-task surface of CAGrad and Nash-MTL, and a pair of quadratics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtl import Balancer, Step


@dataclass(frozen=True)
class Problem:
    """Two losses of a point in the plane.

    Attributes:
        losses: From points `[..., 2]` to losses `[..., 2]`.
        starts: Points from which methods are started.
        window: `(x0, x1, y0, y1)`, what a picture shows.
        front: Points of the Pareto set, `[n, 2]`.
    """

    losses: Callable[[Tensor], Tensor]
    starts: tuple[tuple[float, float], ...]
    window: tuple[float, float, float, float]
    front: Tensor


def descend(
    problem: Problem,
    balancer: Balancer,
    start: tuple[float, float],
    *,
    steps: int,
    learning_rate: float = 0.01,
    decay: bool = False,
) -> Tensor:
    """Follows a balancer's gradients with Adam.

    The papers take 50,000 small steps. Adam remembers squares for 50 steps here instead of 1000:
    after the steep ridges of the surface it would stand still for most of a shorter run.

    Args:
        problem: The losses.
        balancer: Turns them into gradients.
        start: First point.
        steps: Number of steps.
        learning_rate: Adam's.
        decay: Let the rate fall linearly to zero.

    Returns:
        The points, `[steps + 1, 2]`.
    """
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    learned = [p for p in balancer.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [point]}, {"params": learned}]
    optimizer = torch.optim.Adam(groups, lr=learning_rate, betas=(0.9, 0.98))
    path = [point.detach().clone()]

    def evaluate() -> Step:
        first, second = problem.losses(point).unbind()
        return Step({"first": first, "second": second}, shared=[point], recompute=evaluate)

    for index in range(steps):
        if decay:
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - index / steps)
        balancer.on_epoch_start(index)
        optimizer.zero_grad()
        step = evaluate()
        balancer.backward(step)
        optimizer.step()
        balancer.after_step(step)
        path.append(point.detach().clone())
    return torch.stack(path)


def surface(points: Tensor, scale: float = 1.0) -> Tensor:
    """Two valleys that conflict, with flat and steep parts.

    Raised by 30, so that methods for positive losses apply; gradients are the published ones.

    Args:
        points: `[..., 2]`.
        scale: Factor on the first loss; 0.1 in Nash-MTL, where the sum follows the second.

    Returns:
        Losses `[..., 2]`.

    References:
        Liu et al. Conflict-Averse Gradient Descent for Multi-task Learning. NeurIPS 2021,
        Appendix. https://arxiv.org/abs/2110.14048
    """
    x, y = points[..., 0], points[..., 1]
    upper, lower = torch.tanh(0.5 * y).clamp_min(0), torch.tanh(-0.5 * y).clamp_min(0)
    bowls = [((-x + s * 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20 for s in (1, -1)]
    ridges = [
        torch.log((0.5 * (-x - 7) - torch.tanh(-y)).abs().clamp_min(5e-6)) + 6,
        torch.log((0.5 * (-x + 3) + torch.tanh(-y) + 2).abs().clamp_min(5e-6)) + 6,
    ]
    first, second = (upper * r + lower * b for r, b in zip(ridges, bowls, strict=True))
    return torch.stack([scale * first, second], -1) + 30


def quadratics(points: Tensor) -> Tensor:
    """Squared distances to (-1, 0) and (1, 0), the second four times steeper."""
    left = points - torch.tensor([-1.0, 0.0], dtype=points.dtype)
    right = points - torch.tensor([1.0, 0.0], dtype=points.dtype)
    return torch.stack([left.square().sum(-1), 4 * right.square().sum(-1)], -1)


def _segment(left: float, right: float, height: float) -> Tensor:
    x = torch.linspace(left, right, 200, dtype=torch.float64)
    return torch.stack([x, torch.full_like(x, height)], -1)


PROBLEMS = {
    "surface": Problem(
        losses=surface,
        starts=((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)),
        window=(-10.0, 10.0, -10.0, 10.0),
        front=_segment(-7.0, 7.0, -8.35),
    ),
    "unequal": Problem(
        losses=partial(surface, scale=0.1),
        starts=((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)),
        window=(-10.0, 10.0, -10.0, 10.0),
        front=_segment(-7.0, 7.0, -8.35),
    ),
    "quadratics": Problem(
        losses=quadratics,
        starts=((-2.0, 2.0), (0.5, 2.5), (2.5, -1.5)),
        window=(-3.0, 3.0, -3.0, 3.0),
        front=_segment(-1.0, 1.0, 0.0),
    ),
}
