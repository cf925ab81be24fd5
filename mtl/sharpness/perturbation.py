"""How far and where to: the perturbation of parameters, and the way back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mtl.errors import ConfigError, UnsupportedError
from mtl.linalg import lengths
from mtl.rows import Gradients
from mtl.step import Step

Norm = Literal["separate", "joint"]
Move = tuple[Tensor, Tensor, Tensor]
"""A parameter, a direction, and how many times that it goes there."""


@dataclass(frozen=True)
class Ball:
    """The largest perturbation, and its direction from a gradient.

    `e = rho g / |g|`, or with `adaptive`, by element, `e = rho p^2 g / | |p| g |`.

    Args:
        rho_shared: Radius for the shared parameters, 0 or more.
        rho_task: Radius for the parameters of a head, 0 or more.
        adaptive: Radii are relative to the parameters.
        norm: `separate`: one norm for the shared parameters, one for each head; `joint`: one norm
            for both together.

    Raises:
        ConfigError: A radius is negative or not finite, or `norm` is unknown.
    """

    rho_shared: float
    rho_task: float
    adaptive: bool = False
    norm: Norm = "separate"

    def __post_init__(self) -> None:
        for name in ("rho_shared", "rho_task"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"`{name}` should be a radius, 0 or more. Got {getattr(self, name)}."
                )
        if self.norm not in ("separate", "joint"):
            raise ConfigError(f'`norm` should be "separate" or "joint". Got {self.norm!r}.')

    def __bool__(self) -> bool:
        """Whether anything is perturbed."""
        return self.rho_shared > 0 or self.rho_task > 0

    @torch.no_grad()
    def moves(self, shared: Gradients, *heads: Gradients) -> list[Move]:
        """Where each parameter goes.

        Args:
            shared: Shared parameters with the gradient that says where to.
            heads: The same of each head; every one has its own norm, or all have one.
        """
        radii = [self.rho_shared, *[self.rho_task] * len(heads)]
        groups = [(g, rho) for g, rho in zip([shared, *heads], radii, strict=True) if g]
        if not groups:
            return []
        norms = lengths([self._values(group) for group, _ in groups], groups[0][0][0][1])
        if self.norm == "joint":
            norms = lengths([[norms]], norms).expand(len(groups))
        return [
            (p, p.square() * g if self.adaptive else g, factor)
            for (group, rho), norm in zip(groups, norms, strict=True)
            if rho > 0
            for factor in [torch.where(norm > 0, rho / norm, 0.0)]
            for p, g in group
        ]

    def _values(self, group: Gradients) -> list[Tensor]:
        """What the radius is measured by."""
        return [p.abs() * g for p, g in group] if self.adaptive else [g for _, g in group]


class Excursion:
    """Takes parameters to other points, and back to where they were by copy, also after an error.

    In place and without `.data`: a backward pass through a graph that was made before raises.

        with Excursion(parameters) as excursion:
            excursion.go(moves)
            ...

    Args:
        parameters: Those that move.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._clean = {id(p): (p, p.detach().clone()) for p in parameters}
        self._away: set[int] = set()

    def __enter__(self) -> Excursion:
        return self

    def __exit__(self, *error: object) -> None:
        self.go([])

    @torch.no_grad()
    def go(self, moves: Sequence[Move]) -> None:
        """To the point that lies so far from the start; parameters that are not named go back."""
        named = {id(p) for p, _, _ in moves}
        left = self._away - named
        self._away |= named
        for parameter, direction, factor in moves:
            clean = self._clean[id(parameter)][1]
            if direction.dtype == clean.dtype:
                torch.addcmul(clean, direction, factor.to(clean.dtype), out=parameter)
            else:
                torch.add(clean, (direction * factor).to(clean.dtype), out=parameter)
        for key in left:
            parameter, clean = self._clean[key]
            parameter.copy_(clean)
        self._away -= left


@contextmanager
def perturbed(moves: Sequence[Move]) -> Iterator[None]:
    """Is at that distance, and then back."""
    with Excursion([p for p, _, _ in moves]) as excursion:
        excursion.go(moves)
        yield


def check_mode(step: Step) -> None:
    """Refuses a model in evaluation mode.

    Raises:
        UnsupportedError: It is.
    """
    if not step.training:
        raise UnsupportedError(
            "The model should be in train mode: gradients at two points are compared, and running "
            "statistics are only learned there. Got a model in evaluation mode. Call model.train()."
        )


def check_owners(step: Step) -> None:
    """Refuses parameters that are neither shared by all tasks nor one head's.

    Raises:
        UnsupportedError: There are some.
    """
    owned = [id(p) for ps in (step.shared, *step.specific.values()) for p in ps]
    if step.tied or len(set(owned)) < len(owned):
        raise UnsupportedError(
            "Every parameter should be shared by all tasks or belong to one head: it has one "
            "radius. Got parameters that heads share among themselves. Move them into the "
            "backbone, give each head its own, or use joint_sam."
        )


def relative_size(moves: Sequence[Move]) -> Tensor:
    """Length of a perturbation, relative to that of the parameters."""
    lengths = [
        (f * d.norm(dtype=torch.float32), p.detach().norm(dtype=torch.float32)) for p, d, f in moves
    ]
    moved, whole = (torch.stack(parts).norm() for parts in zip(*lengths, strict=True))
    return moved / whole


def rises(names: Sequence[str], before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Perturbed minus clean loss by task, to log."""
    rise = after - before
    return {f"sharpness/rise/{name}": rise[i] for i, name in enumerate(names)}
