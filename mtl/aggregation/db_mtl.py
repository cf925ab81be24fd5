"""Dual balancing."""

import torch
from torch import Tensor

from mtl.aggregation.memory import GradientMemory
from mtl.errors import ConfigError
from mtl.parts import Aggregator


class DBMTL(Aggregator):
    """Moving averages of the tasks' gradients, all made as long as the longest.

    `e_i <- g_i + beta_t (e_i - g_i)` with `beta_t = beta / t^decay`; the update is
    `sum_i (max_j |e_j| / |e_i|) e_i`. With the transform `log` this is DB-MTL; the preset has it.

    Args:
        num_tasks: Number of tasks.
        beta: Weight of the past in the moving average, in [0, 1); 0 keeps no memory.
        decay: How fast that weight falls with the step t = 1, 2, ..., >= 0.

    As in the official code and LibMTL. The state is as large as the Jacobian: m numbers a shared
    parameter. A task without labels in a step keeps its average, and takes no part. An average of
    zero stays zero.

    References:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok. Dual-Balancing for Multi-Task Learning. 2023.
        https://arxiv.org/abs/2308.12029
    """

    def __init__(self, num_tasks: int, *, beta: float = 0.9, decay: float = 0.5) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise ConfigError(f"`beta` should be in [0, 1). Got {beta}.")
        if decay < 0:
            raise ConfigError(f"`decay` should be 0 or more. Got {decay}.")
        self.beta = beta
        self.decay = decay
        self.memory = GradientMemory(num_tasks)

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`, and a step of the averages."""
        averages = jacobian
        if self.beta:
            rows = self.memory.like(jacobian)
            self.memory.steps += 1
            averages = rows[self.present]  # in place where all tasks are present
            averages.lerp_(jacobian, 1 - self.beta / self.memory.steps**self.decay)
            rows[self.present] = averages
        norms = averages.norm(dim=1, dtype=torch.promote_types(jacobian.dtype, torch.float32))
        factors = torch.where(norms > 0, norms.max() / norms.where(norms > 0, 1.0), 0.0)
        return factors.to(jacobian) @ averages
