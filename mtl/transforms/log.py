"""Logarithm of the losses."""

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Transform


class Log(Transform):
    """`log(L_i + eps)`: gradients become relative, so that the scale of a loss does not matter.

    Args:
        eps: Keeps the logarithm finite at a loss of zero; 1e-8 as in DB-MTL.

    Losses must not be negative: the logarithm gives NaN, and the step is skipped by the balancer's
    rule for non-finite losses. Those in half precision, where 1e-8 is zero, are taken to float32.

    References:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok. Dual-Balancing for Multi-Task Learning.
        https://arxiv.org/abs/2308.12029
    """

    elementwise = True

    def __init__(self, *, eps: float = 1e-8) -> None:
        super().__init__()
        if eps < 0:
            raise ConfigError(f"`eps` should be 0 or more. Got {eps}.")
        self.eps = eps

    def forward(self, losses: Tensor) -> Tensor:
        """Logarithms of the losses, `[a] -> [a]`, in float32 at least."""
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        return torch.log(losses + self.eps)
