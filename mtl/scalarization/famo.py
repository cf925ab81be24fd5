"""Fast adaptive multitask optimization."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Needs, Scalarizer
from mtl.scalarization.adam import TaskAdam
from mtl.scalarization.checks import check_above
from mtl.step import Step

_EPS = 1e-8  # keeps the logarithm finite at the bound, as in the official code


class FAMO(Scalarizer):
    """All losses fall at the same relative rate, at the cost of one more forward pass.

    With `D_i = L_i - b_i + 1e-8` and `z = softmax(xi)` the step is along the gradient of
    `c sum_i z_i log D_i`, `c = 1 / sum_i (z_i / D_i)`: a convex combination of the tasks'
    gradients. When the optimizer has stepped, the losses of the same batch are evaluated again and
    Adam moves the logits `xi` along `d^T dz/dxi + gamma xi`,
    `d_i = log D_i(before) - log D_i(after)`: tasks that improved little gain weight.

    Args:
        num_tasks: Number of tasks.
        lr: Step size of the logits, > 0; 0.025 in the official code.
        weight_decay: `gamma`, 0 or more. The paper and LibMTL have 1e-3; the official class has
            0.01 and its scripts 1e-5.
        min_losses: Lower bounds `b`, one number a task. Default: zeros.

    The second forward pass has the same random draws as the first and does not touch buffers; in
    the official code and in LibMTL it updates running statistics once more. The official code also
    clips the gradient to norm 1: give `trainer.gradient_clip_val=1` for that. Under accumulation
    the losses of the last micro-batch are compared. Tasks that are absent from a step keep their
    logit; where a loss is not finite after the step, the logits stay. The rule compares plain
    losses: leave the slot of transforms empty. Losses in half precision, where 1e-8 is zero, are
    combined in float32.

    Raises:
        ConfigError: A loss is below its bound.

    References:
        Liu, Feng, Stone, Liu. FAMO: Fast Adaptive Multitask Optimization. NeurIPS 2023.
        https://arxiv.org/abs/2306.03792
    """

    needs: ClassVar[Needs] = Needs.AFTER_STEP

    logits: Tensor
    min_losses: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        min_losses: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        bounds = [0.0] * num_tasks if min_losses is None else [float(b) for b in min_losses]
        if len(bounds) != num_tasks:
            raise ConfigError(
                f"`min_losses` should be {num_tasks} numbers, one a task. Got {min_losses}."
            )
        self.adam = TaskAdam(num_tasks, lr=lr, weight_decay=weight_decay)
        self.register_buffer("logits", torch.zeros(num_tasks))
        self.register_buffer("min_losses", torch.tensor(bounds), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Combines the losses, `[k]`."""
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        bounds = self.min_losses[self.present].to(losses)
        check_above("FAMO with these `min_losses`", losses, bounds)
        margins = losses - bounds + _EPS
        weights = self.logits[self.present].softmax(0).to(losses)
        weights = weights / (weights / margins.detach()).sum()
        return (weights * margins.log()).sum()

    def after_step(self, step: Step) -> None:
        """Moves the logits by how much each loss fell in the optimizer's step."""
        bounds = self.min_losses[self.present].to(step.values)
        now = step.values_now()
        fall = (step.values - bounds + _EPS).log() - (now - bounds + _EPS).log()
        if not bool(fall.isfinite().all()):
            return
        weights = self.logits[self.present].softmax(0).to(fall)
        gradient = weights * (fall - (weights * fall).sum())
        self.adam.update(self.logits, gradient, self.present)
