"""Dual balancing."""

import torch
from torch import Tensor

from mtl.aggregation.columns import blocks_of_columns, over_all_columns
from mtl.aggregation.memory import GradientMemory
from mtl.errors import ConfigError
from mtl.linalg import finest
from mtl.parts import Aggregator

# Beyond these, squares of single entries leave the range of float32.
_SMALL, _LARGE = 1e-20, 1e35


class DBMTL(Aggregator):
    """Moving averages of the tasks' gradients, all made as long as the longest.

    `e_i <- g_i + beta_t (e_i - g_i)` with `beta_t = beta / t^decay`; the update is
    `sum_i (max_j |e_j| / |e_i|) e_i`. With the transform `log` this is DB-MTL; the preset has it.

    Args:
        num_tasks: Number of tasks.
        beta: Weight of the past in the moving average, in [0, 1); 0 keeps no memory.
        decay: How fast that weight falls with the step t = 1, 2, ..., >= 0.

    LibMTL, the authors' code, has the same two rates, 0.9 and 0 by default: `decay=0` is its moving
    average, with as much of the past in every step. It adds 1e-8 to the norms; here averages of
    zero, or 38 orders below the longest, take no part. The state is as large as the Jacobian: m
    numbers a shared parameter. A task without labels in a step keeps its average, and takes no
    part.

    References:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok. Dual-Balancing for Multi-Task Learning. 2023.
        https://arxiv.org/abs/2308.12029
    """

    columnwise = True

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
            rows = self.memory.like(jacobian, self.held)
            self.memory.steps += 1
            averages = rows[self.present]  # in place where all tasks are present
            averages.lerp_(jacobian, 1 - self.beta / self.memory.steps**self.decay)
            rows[self.present] = averages
        norms = self._norms(averages)
        longest = norms.max()
        nonzero = norms > longest * torch.finfo(jacobian.dtype).tiny  # the factors are finite
        factors = torch.where(nonzero, longest / norms.where(nonzero, 1.0), 0.0)
        return factors.to(jacobian) @ averages

    def _norms(self, rows: Tensor) -> Tensor:
        """Norms over the columns of all processes, `[m]`, float64."""
        dtype = finest(rows)
        single = torch.promote_types(rows.dtype, torch.float32)
        squares = rows.norm(dim=1, dtype=single).to(dtype).square()
        if not bool(((squares > _SMALL) & (squares < _LARGE)).all()):
            parts = [block.to(dtype).square().sum(1) for (block,) in blocks_of_columns(rows)]
            squares = torch.stack(parts).sum(0)
        return over_all_columns(squares, self.held).sqrt()
