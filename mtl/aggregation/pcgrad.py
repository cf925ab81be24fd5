"""Gradient surgery: project conflicting gradients."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Stochastic, Weighting


class PCGradWeighting(Weighting, Stochastic):
    """Each gradient is projected off those that it conflicts with, one after the other (Alg. 1).

    For each task i, over the other tasks j in random order: if `<v_i, g_j> < 0` then
    `v_i <- v_i - <v_i, g_j> / |g_j|^2 g_j`; the update is `sum_i v_i`. All of it happens in the
    coordinates of the gradients, so that only the Gramian is needed:
    `v_i = V_i J`, `<v_i, g_j> = V_i G_j`.

    Args:
        reduction: `sum` over the tasks, as in the paper and its code, LibMTL and TorchJD; or the
            `mean`, an option of nash-mtl.
        seed: See `Stochastic`; it decides the orders.

    LibMTL and nash-mtl also visit `j = i`, which changes nothing.

    References:
        Yu, Kumar, Gupta, Levine, Hausman, Finn. Gradient Surgery for Multi-Task Learning.
        NeurIPS 2020. https://arxiv.org/abs/2001.06782
    """

    def __init__(
        self, *, reduction: Literal["sum", "mean"] = "sum", seed: int | None = None
    ) -> None:
        super().__init__(seed)
        if reduction not in ("sum", "mean"):
            raise ConfigError(f"`reduction` should be sum or mean. Got {reduction!r}.")
        self.reduction = reduction

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: non-negative; of a sum, at least one each."""
        # On the CPU in float64: m sequential projections of m numbers each.
        gram = gramian.detach().cpu().double().numpy()
        count = len(gram)
        scores = torch.rand(count, count, generator=self.generator(torch.device("cpu"))).numpy()
        np.fill_diagonal(scores, 2.0)
        orders = scores.argsort(1)[:, :-1]  # each row: the other tasks
        norms = np.where(gram.diagonal() > 0, gram.diagonal(), np.inf)  # zero conflicts with none
        coordinates = np.eye(count)
        every = np.arange(count)
        for others in orders.T:
            products = (coordinates * gram[others]).sum(1)
            coordinates[every, others] -= products.clip(max=0) / norms[others]
        weights = coordinates.sum(0) if self.reduction == "sum" else coordinates.mean(0)
        return torch.from_numpy(weights).to(gramian)
