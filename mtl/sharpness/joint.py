"""One perturbation for all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mtl.distributed import all_reduce_list
from mtl.engine import Combined, Objectives
from mtl.errors import NonFiniteError
from mtl.parts import Scalarizer, Sharpness
from mtl.rows import Gradients
from mtl.sharpness.perturbation import Ball, Move, Norm, check_mode, perturbed, rises
from mtl.sharpness.rows import length
from mtl.step import Step

if TYPE_CHECKING:
    from mtl.balancer import Balancer


class JointSAM(Sharpness):
    """Sharpness-aware minimization: the balancer's gradients at `p + rho g / |g|`.

    `g` is the gradient of the sum of the losses by all parameters; where a scalarizer weighs the
    losses, of its weighted sum. All that depends on the values of the losses (weights, transforms,
    regularizers) is of the clean point; only the tasks' gradients are of the perturbed one. With
    MTL methods that combine gradients it is called G-SAM. Cost: one forward and one backward pass
    more than the balancer alone, whatever the number of tasks.

    Args:
        rho: Radius for the shared parameters, 0 or more; 0 switches it off.
        rho_task: Radius for the heads, 0 or more. Default: `rho`.
        adaptive: Radii relative to the parameters, by element (ASAM); about 10 times larger ones
            are usual.
        norm: `joint`: `|g|` over all parameters, single-task SAM on the sum; `separate`: one norm
            for the shared parameters, one for each head.
        sync_perturbation: With several processes, `g` of the global batch, so that the update is
            what one process computes on it. `False`: each process has a perturbation of its own,
            as SAM's authors do (their m-sharpness), and saves an exchange of gradients.

    References:
        Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for Efficiently Improving
        Generalization. ICLR 2021. https://arxiv.org/abs/2010.01412
        Kwon, Kim, Park, Choi. ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
        Learning of Deep Neural Networks. ICML 2021. https://arxiv.org/abs/2102.11600
    """

    def __init__(
        self,
        *,
        rho: float = 0.05,
        rho_task: float | None = None,
        adaptive: bool = False,
        norm: Norm = "joint",
        sync_perturbation: bool = True,
    ) -> None:
        super().__init__()
        self.ball = Ball(rho, rho if rho_task is None else rho_task, adaptive, norm)
        self.sync_perturbation = sync_perturbation

    def forward(self, step: Step, balancer: Balancer) -> Combined:
        """The balancer's gradients at the perturbed point."""
        if not self.ball:
            return balancer.gradients(step)
        check_mode(step)
        objectives = balancer.objectives(step)
        try:
            return ascend(step, balancer, objectives, self.ball, sync=self.sync_perturbation).whole
        finally:
            step.release()


class Ascent(NamedTuple):
    """Gradients with a joint perturbation.

    Attributes:
        whole: With all that belongs to them.
        loss: The part of the clean point, where it was computed.
        flat: What the perturbation changed in it.
    """

    whole: Combined
    loss: Gradients
    flat: Gradients


def ascend(
    step: Step, balancer: Balancer, objectives: Objectives, ball: Ball, *, sync: bool
) -> Ascent:
    """The balancer's gradients at one perturbed point for all tasks.

    Args:
        step: At the clean point.
        balancer: Combines.
        objectives: Of the step.
        ball: How far.
        sync: Whether processes have the perturbation in common.
    """
    extra = objectives.take_extra()
    linear = _weigh_losses(balancer, objectives)
    weights = torch.ones_like(step.values) if linear is None else linear.weights
    local = step.differentiate(step.cotangents(weights), step.parameters, retain_graph=False)
    clean = local if linear is None and not sync else all_reduce_list(local, step.parameters)
    with perturbed(_moves(step, clean if sync else local, ball)):
        again = step.recompute()
        again.check_finite()
        if linear is None:
            combined = balancer.combined(objectives.at(again))
            flat: Gradients = []
        else:
            gradients = _pairs(step, again.gradient(weights))
            if not bool(length(gradients, step.values).isfinite()):
                raise NonFiniteError(*step.present)
            combined = Combined(linear.gradients + gradients, weights=weights)
            flat = _difference(gradients, _pairs(step, clean))
        again.release()
    scalars = combined.scalars | objectives.scalars | rises(step.present, step.values, again.values)
    whole = Combined(combined.gradients + extra, combined.weights, combined.gramian, scalars)
    return Ascent(whole, [] if linear is None else _pairs(step, clean), flat)


def _weigh_losses(balancer: Balancer, objectives: Objectives) -> Combined | None:
    """Weights that do not depend on gradients, if the balancer's are such."""
    if objectives.single:
        return objectives.slopes(objectives.values.sum())
    if isinstance(balancer.combine, Scalarizer):
        return objectives.slopes(balancer.combine(objectives.values))
    return None


def _moves(step: Step, gradients: list[Tensor | None], ball: Ball) -> list[Move]:
    found = {id(p): (p, g) for p, g in _pairs(step, gradients)}
    heads = [step.specific[name] for name in step.present]
    return ball.moves(
        *([found[id(p)] for p in ps if id(p) in found] for ps in (step.shared, *heads))
    )


def _pairs(step: Step, gradients: list[Tensor | None]) -> Gradients:
    return [(p, g) for p, g in zip(step.parameters, gradients, strict=True) if g is not None]


def _difference(left: Gradients, right: Gradients) -> Gradients:
    return left + [(p, -g) for p, g in right]
