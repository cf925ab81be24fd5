"""Multi-objective gradient correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mtl.aggregation.columns import over_all_columns
from mtl.aggregation.memory import GradientMemory
from mtl.errors import ConfigError
from mtl.linalg import finest, project_simplex
from mtl.parts import Aggregator

if TYPE_CHECKING:
    from mtl.engine import Combined, Objectives


class MoCo(Aggregator):
    """Moving averages of the gradients, combined by slowly changing weights.

    With the averages `y_i <- y_i - beta_t (y_i - g_i)` from zero, the weights move towards those of
    the shortest combination, `w <- P(w - gamma_t (Y Y^T + rho I) w)`, `P` the projection on the
    simplex; the update is `w Y`. At the step t = 1, 2, ... `beta_t = beta / t^beta_decay` and
    `gamma_t = gamma / t^gamma_decay`.

    Args:
        num_tasks: Number of tasks.
        beta: Rate of the averages, in (0, 1].
        beta_decay: >= 0.
        gamma: Rate of the weights, > 0.
        gamma_decay: >= 0.
        rho: Regularization towards equal weights, >= 0.
        like: `paper`: the algorithm above. `libmtl`: each gradient is as long as its loss,
            `L_i g_i / |g_i|` in the place of `g_i`, and a softmax takes the place of the
            projection, as in the code that the authors shared with LibMTL.

    The rates are LibMTL's defaults. `gamma` has the scale of an inverse squared gradient norm: with
    gradients far from length one, change it. The state is as large as the Jacobian. A task without
    labels in a step keeps its average and weight; the weights of the others are projected among
    themselves, times their sum.

    References:
        Fernando, Shen, Liu, Chaudhury, Murugesan, Chen. Mitigating Gradient Bias in
        Multi-objective Learning: A Provably Convergent Approach. ICLR 2023.
        https://arxiv.org/abs/2210.12624
    """

    columnwise = True
    weights: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: float = 0.5,
        beta_decay: float = 0.5,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
        like: Literal["paper", "libmtl"] = "paper",
    ) -> None:
        super().__init__()
        if not 0 < beta <= 1:
            raise ConfigError(f"`beta` should be in (0, 1]. Got {beta}.")
        if gamma <= 0:
            raise ConfigError(f"`gamma` should be positive. Got {gamma}.")
        for name, value in (("beta_decay", beta_decay), ("gamma_decay", gamma_decay), ("rho", rho)):
            if value < 0:
                raise ConfigError(f"`{name}` should be 0 or more. Got {value}.")
        if like not in ("paper", "libmtl"):
            raise ConfigError(f"`like` should be paper or libmtl. Got {like!r}.")
        self.like = like
        self.beta, self.beta_decay = beta, beta_decay
        self.gamma, self.gamma_decay = gamma, gamma_decay
        self.rho = rho
        self.memory = GradientMemory(num_tasks)
        self.register_buffer("weights", torch.full((num_tasks,), 1 / num_tasks))

    def combine(self, objectives: Objectives) -> Combined:
        """Follows the direction."""
        if self.like == "paper":
            return super().combine(objectives)
        norms = objectives.gramian.diagonal().clamp_min(0).sqrt()
        sizes = objectives.values.detach() / torch.where(norms > 0, norms, 1.0)
        self.held = objectives.held
        columns = objectives.columns
        return objectives.follow(self(columns * sizes.to(columns)[:, None]), held=True)

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`, and a step of the state.

        Args:
            jacobian: For `like=libmtl` with rows as long as their losses.
        """
        rows = self.memory.like(jacobian, self.held)
        self.memory.steps += 1
        time = self.memory.steps
        averages = rows[self.present]  # in place where all tasks are present
        averages.lerp_(jacobian, self.beta / time**self.beta_decay)
        rows[self.present] = averages
        weights = self.weights[self.present].to(jacobian.device, finest(jacobian))
        share = weights.sum()
        weights = weights / torch.where(share > 0, share, 1.0)
        slopes = self._slopes(averages, weights) + self.rho * weights
        moved = weights - self.gamma / time**self.gamma_decay * slopes
        weights = project_simplex(moved) if self.like == "paper" else moved.softmax(0)
        self.weights[self.present] = (share * weights).to(self.weights)
        return weights.to(jacobian) @ averages

    def _slopes(self, averages: Tensor, weights: Tensor) -> Tensor:
        """`Y Y^T w` over the columns of all processes, `[m]`, float64.

        The second factor is divided by its length: products of two entries may leave float32.
        """
        combination = weights.to(averages) @ averages
        length = combination.norm(p=1)
        combination /= torch.where(length > 0, length, 1.0)
        slopes = (averages @ combination).to(weights) * length.to(weights)
        return over_all_columns(slopes, self.held)
