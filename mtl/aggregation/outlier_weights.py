"""Tasks whose gradients agree with few others lose their say in the shared parameters."""

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import cosines
from mtl.parts import Weighting

_LEAST_AGREEMENT = 0.05


class OutlierWeighting(Weighting):
    """`w_t = (1 - s_t) m / sum_u (1 - s_u)`, `s_t = sigmoid(theta_t)`: the gate on one trunk.

    `C` is a moving average of the cosines between the tasks' gradients. A task's agreement is
    its mean cosine with the others, weighted by how far they are in themselves,

        `a_t = sum_(u != t) (1 - s_u) C_tu / sum_(u != t) (1 - s_u)`,

    and its gate moves to where the agreement stands against half the median `a` of all:

        `theta_t <- (1 - rate) theta_t + rate * sharpness * (a / 2 - a_t) / max(a, 0.05)`.

    The bar moves with the median, and the weights sum to m: all tasks cannot leave. Heads follow
    their own losses. This is a cheap relative of `mtl.models.OutlierGate`: it helps the related
    tasks, gives the outliers up, and detects reliably only tasks with opposed gradients.

    Args:
        num_tasks: Number of tasks.
        decay: Of the moving average of the cosines, in [0, 1).
        rate: Of the gates, in (0, 1].
        sharpness: Slope of the gate in the relative agreement, > 0.

    A task without labels in a step is left out of it and keeps its gate.

    References:
        The damping of outlier tasks follows Emami, Martínez-Muñoz, Hernández-Lobato. Robust
        Multi-Task Gradient Boosting. 2025. https://arxiv.org/abs/2507.11411; the rule is ours.
    """

    theta: Tensor
    agreement: Tensor
    weight: Tensor

    def __init__(
        self, num_tasks: int, *, decay: float = 0.9, rate: float = 0.1, sharpness: float = 10.0
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f"`decay` should be in [0, 1). Got {decay}.")
        if not 0 < rate <= 1:
            raise ConfigError(f"`rate` should be in (0, 1]. Got {rate}.")
        if not sharpness > 0:
            raise ConfigError(f"`sharpness` should be positive. Got {sharpness}.")
        self.decay = decay
        self.rate = rate
        self.sharpness = sharpness
        self.register_buffer("theta", torch.zeros(num_tasks))
        self.register_buffer("agreement", torch.zeros(num_tasks, num_tasks))
        self.register_buffer("weight", torch.zeros(num_tasks, num_tasks))

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`, and a step of the gates."""
        tasks = torch.arange(len(self.theta), device=self.theta.device)[self.present]
        pairs = tasks[:, None], tasks
        self.agreement[pairs] *= self.decay
        self.agreement[pairs] += (1 - self.decay) * cosines(gramian).to(self.agreement)
        self.weight[pairs] = self.decay * self.weight[pairs] + (1 - self.decay)
        mean = self.agreement[pairs] / self.weight[pairs]

        inside = (-self.theta[tasks]).sigmoid()
        others = inside * (1 - torch.eye(len(tasks)).to(inside))
        agreement = (others * mean).sum(1) / others.sum(1).clamp_min(torch.finfo(inside.dtype).tiny)
        middle = agreement.quantile(0.5)
        aim = self.sharpness * (middle / 2 - agreement) / middle.clamp_min(_LEAST_AGREEMENT)
        self.theta[tasks] += self.rate * (aim - self.theta[tasks])
        inside = (-self.theta[tasks]).sigmoid()
        return (inside * len(tasks) / inside.sum()).to(gramian)
