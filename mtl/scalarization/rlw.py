"""Random loss weighting."""

import torch
from torch import Tensor

from mtl.parts import Scalarizer, Stochastic


class RandomLossWeighting(Scalarizer, Stochastic):
    """Fresh random weights in every step, `w = softmax(z)`, `z ~ N(0, 1)^m`.

    All processes draw the same weights. They sum to one, as in the paper; LibMTL does the same.

    Args:
        seed: See `Stochastic`.

    References:
        Lin, Ye, Zhang, Tsang. Reasonable Effectiveness of Random Weighting: A Litmus Test for
        Multi-Task Learning. TMLR 2022. https://arxiv.org/abs/2111.10603
    """

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__(seed)

    def forward(self, losses: Tensor) -> Tensor:
        """Weighs the losses, `[k]`, at random."""
        # Drawn on the CPU: the same weights on every kind of device.
        normal = torch.randn(len(losses), generator=self.generator(torch.device("cpu")))
        return (normal.softmax(0).to(losses) * losses).sum()
