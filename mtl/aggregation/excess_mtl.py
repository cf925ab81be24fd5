"""Robust weights by excess risks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mtl.aggregation.columns import blocks_of_columns, over_all_columns
from mtl.aggregation.memory import GradientMemory
from mtl.errors import ConfigError
from mtl.parts import Combiner, Needs

if TYPE_CHECKING:
    from mtl.distributed import Held
    from mtl.engine import Combined, Objectives

_EPS = 1e-7
_LARGEST = 1e30


class ExcessMTL(Combiner):
    """Larger weights for tasks that are far from their optimum, not for those that are noisy.

    The excess risk of a task is estimated by `e_i = g_i^T H_i^(-1) g_i` with the diagonal
    `H_i = sqrt(sum_t g_i(t)^2 + 1e-7)` (Eq. 6 and 7), and divided by its first value; then
    `w_i <- w_i exp(step_size e_i)`, normalized (Eq. 9).

    Args:
        num_tasks: Number of tasks.
        step_size: > 0; 1 in the official code.
        like: `paper`: weights sum to one. `libmtl`: to the number of tasks, as in the official
            code.

    As in the official code the first value is that of the first step with the task; the paper's
    average over the first three epochs is not available. The first step has equal weights. Heads
    are weighted too. The state is as large as the Jacobian: m numbers a shared parameter. Tasks
    without labels in a step keep their weight; those of the others are normalized among themselves.

    References:
        He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao. Robust Multi-Task Learning with Excess
        Risks. ICML 2024. https://arxiv.org/abs/2402.02009
    """

    needs: ClassVar[Needs] = Needs.JACOBIAN
    head_grad = "weighted"
    held: Held | None = None  # which columns `forward` sees, where it does not see all
    log_weights: Tensor
    first: Tensor

    def __init__(
        self, num_tasks: int, *, step_size: float = 1.0, like: Literal["paper", "libmtl"] = "paper"
    ) -> None:
        super().__init__()
        if step_size <= 0:
            raise ConfigError(f"`step_size` should be positive. Got {step_size}.")
        if like not in ("paper", "libmtl"):
            raise ConfigError(f"`like` should be paper or libmtl. Got {like!r}.")
        self.step_size = step_size
        self.like = like
        self.register_buffer("log_weights", torch.zeros(num_tasks))
        self.register_buffer("first", torch.zeros(num_tasks))
        self.memory = GradientMemory(num_tasks)

    def combine(self, objectives: Objectives) -> Combined:
        """Weighs the gradients."""
        objectives.gramian  # noqa: B018 - raises where a row is not finite
        self.held = objectives.held
        return objectives.weigh(self(objectives.columns))

    def forward(self, jacobian: Tensor) -> Tensor:
        """Weights `[m]` from the Jacobian `[m, n]`, and a step of the state."""
        sums = self.memory.like(jacobian, self.held)
        present = sums[self.present]  # in place where all tasks are present
        parts = [_excess(*block) for block in blocks_of_columns(jacobian, present)]
        excess = over_all_columns(torch.stack(parts).sum(0), self.held).to(self.first)
        sums[self.present] = present
        first = self.first[self.present]
        known = first > 0
        ratio = torch.where(known, excess / torch.where(known, first, 1.0), 0.0)
        ratio = ratio.clamp_max(_LARGEST)  # a first value near zero: the task has all the weight
        self.first[self.present] = torch.where(known, first, excess)
        logs = self.log_weights[self.present] + self.step_size * ratio
        self.log_weights[self.present] = logs
        self.log_weights -= self.log_weights.max()
        weights = logs.softmax(0)
        return weights * len(weights) if self.like == "libmtl" else weights


def _excess(rows: Tensor, sums: Tensor) -> Tensor:
    """Part of the excess risks, `[m]`, that some columns give; adds to the sums of squares."""
    squares = rows.square()
    sums += squares
    return (squares / (sums + _EPS).sqrt()).sum(1)
