"""Gradient vaccine: gradients are turned towards each other to a target cosine."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import equilibrate
from mtl.parts import Stochastic, Weighting

_CLOSEST = 1 - 1e-8


class GradVacWeighting(Weighting, Stochastic):
    """Gradients are turned until their cosines reach a moving average of past ones.

    For each task i, over the other tasks j in random order, with `p = cos(v_i, g_j)`, the target
    `t = t_ij`, and `r(x) = sqrt(1 - x^2)`: if `p < t` then

        `v_i <- v_i + |v_i| (t r(p) - p r(t)) / (|g_j| r(t)) g_j`

    which makes the cosine `t`; then `t_ij <- (1 - beta) t + beta p`. The update is
    `sum_i v_i`. Targets start at zero, where the first step is PCGrad's. All of it happens in the
    coordinates of unit gradients, so that only the Gramian is needed.

    Args:
        num_tasks: Number of tasks.
        beta: Rate of the moving average, in [0, 1]. The paper's is 0.01; LibMTL and TorchJD take
            0.5.
        like: `paper` and `torchjd`: targets move in each comparison. `libmtl`: only where the
            gradient was turned.
        seed: See `Stochastic`; it decides the orders.

    Gradients are compared as a whole (the paper also does so by layer). Targets are kept `1e-8`
    away from 1 and -1, where the formula divides by zero. Gradients of zero are left out, and so
    are tasks without labels: their targets stay.

    References:
        Wang, Tsvetkov, Firat, Cao. Gradient Vaccine: Investigating and Improving Multi-task
        Optimization in Massively Multilingual Models. ICLR 2021. https://arxiv.org/abs/2010.05874
    """

    targets: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: float = 0.01,
        like: Literal["paper", "libmtl", "torchjd"] = "paper",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not 0 <= beta <= 1:
            raise ConfigError(f"`beta` should be in [0, 1]. Got {beta}.")
        if like not in ("paper", "libmtl", "torchjd"):
            raise ConfigError(f"`like` should be paper, libmtl or torchjd. Got {like!r}.")
        self.beta = beta
        self.like = like
        self.register_buffer("targets", torch.zeros(num_tasks, num_tasks))

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`, and a step of the targets."""
        count = len(gramian)
        scores = torch.rand(count, count, generator=self.generator(torch.device("cpu"))).numpy()
        scaled = equilibrate(gramian)
        gram, rows = scaled.cosines, scaled.rows
        scores = scores[np.ix_(rows, rows)]
        np.fill_diagonal(scores, 2.0)
        orders = scores.argsort(1)[:, :-1]  # each row: the other tasks

        places = torch.arange(len(self.targets), device=self.targets.device)[self.present]
        places = places[torch.from_numpy(rows).to(places.device)]
        state = self.targets[places[:, None], places].cpu().double().numpy()

        coordinates = np.eye(len(rows))  # v_i / |g_i| by the unit gradients
        products = gram.copy()  # of v_i / |g_i| with the unit gradients
        every = np.arange(len(rows))
        for others in orders.T:
            lengths = np.sqrt((coordinates * products).sum(1).clip(min=0.0))
            cosine = products[every, others] / np.where(lengths > 0, lengths, 1.0)
            cosine = cosine.clip(-1.0, 1.0)
            target = state[every, others].clip(-_CLOSEST, _CLOSEST)
            turned = (cosine < target) & (lengths > 0)
            sine, target_sine = np.sqrt(1 - cosine**2), np.sqrt(1 - target**2)
            factor = lengths * (target * sine - cosine * target_sine) / target_sine
            factor = np.where(turned, factor, 0.0)
            coordinates[every, others] += factor
            products += factor[:, None] * gram[others]
            moves = turned if self.like == "libmtl" else lengths > 0
            state[every, others] += np.where(moves, self.beta * (cosine - state[every, others]), 0)
        self.targets[places[:, None], places] = torch.from_numpy(state).to(self.targets)
        return scaled.expand(scaled.norms @ coordinates / scaled.norms, 1.0)
