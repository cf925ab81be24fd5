"""Krum: the gradient nearest to its neighbours."""

from typing import Literal

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Weighting


class KrumWeighting(Weighting):
    """The mean of the `num_selected` gradients that lie nearest to their neighbours.

    Each gradient is scored by the sum of its squared distances to its `m - f - 2` nearest others;
    those with the lowest scores are kept (Krum: one; several: Multi-Krum), with equal weights.

    Args:
        num_byzantine: `f`, how many gradients may be outliers, >= 0.
        num_selected: How many are kept, >= 1.
        like: `paper`: squared distances. `torchjd`: distances.

    Where fewer tasks are present than `f + 3` (TorchJD raises), one neighbour counts; no more are
    kept than there are. Of equal scores the first task wins.

    References:
        Blanchard, El Mhamdi, Guerraoui, Stainer. Machine Learning with Adversaries: Byzantine
        Tolerant Gradient Descent. NeurIPS 2017. https://arxiv.org/abs/1703.02757
    """

    def __init__(
        self,
        *,
        num_byzantine: int = 0,
        num_selected: int = 1,
        like: Literal["paper", "torchjd"] = "paper",
    ) -> None:
        super().__init__()
        if num_byzantine < 0:
            raise ConfigError(f"`num_byzantine` should be 0 or more. Got {num_byzantine}.")
        if num_selected < 1:
            raise ConfigError(f"`num_selected` should be 1 or more. Got {num_selected}.")
        if like not in ("paper", "torchjd"):
            raise ConfigError(f"`like` should be paper or torchjd. Got {like!r}.")
        self.num_byzantine = num_byzantine
        self.num_selected = num_selected
        self.like = like

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: on the simplex."""
        count = len(gramian)
        squares = gramian.diagonal()
        distances = (squares + squares[:, None] - 2 * gramian).clamp_min(0.0)
        if self.like == "torchjd":
            distances = distances.sqrt()
        distances.fill_diagonal_(0.0)
        neighbours = min(max(count - self.num_byzantine - 2, 1), count - 1)
        scores = distances.sort(1).values[:, 1 : neighbours + 1].sum(1)
        kept = scores.argsort(stable=True)[: self.num_selected]
        weights = torch.zeros_like(squares)
        weights[kept] = 1 / len(kept)
        return weights
