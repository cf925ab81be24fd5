"""Random loss weighting."""

from typing import Literal

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Scalarizer, Stochastic


class RandomLossWeighting(Scalarizer, Stochastic):
    """Fresh random weights in every step, positive and of sum one.

    Args:
        distribution: `normal`: `w = softmax(z)`, `z ~ N(0, 1)^m`. `dirichlet`:
            `w ~ Dir(1, ..., 1)`, uniform on the simplex.
        seed: See `Stochastic`; all processes draw the same weights.

    Normal weights are those of LibMTL (by authors of the paper), nash-mtl and TorchJD. The first
    version of LibMTL had Dirichlet as an option as well, but took the softmax of the draw, so that
    no weight is more than e times another. Here the draw, which is on the simplex, is the weights.

    References:
        Lin, Ye, Zhang, Tsang. Reasonable Effectiveness of Random Weighting: A Litmus Test for
        Multi-Task Learning. TMLR 2022. https://arxiv.org/abs/2111.10603
    """

    def __init__(
        self,
        *,
        distribution: Literal["normal", "dirichlet"] = "normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if distribution not in ("normal", "dirichlet"):
            raise ConfigError(
                f"`distribution` should be normal or dirichlet. Got {distribution!r}."
            )
        self.distribution = distribution

    def forward(self, losses: Tensor) -> Tensor:
        """Weighs the losses, `[k]`, at random."""
        return (self._draw(len(losses)).to(losses) * losses).sum()

    def _draw(self, count: int) -> Tensor:
        # Drawn on the CPU: the same weights on every kind of device.
        generator = self.generator(torch.device("cpu"))
        if self.distribution == "normal":
            return torch.randn(count, generator=generator).softmax(0)
        waiting = torch.empty(count).exponential_(generator=generator)
        return waiting / waiting.sum()
