"""Geometric loss strategy."""

import torch
from torch import Tensor

from mtl.parts import Scalarizer
from mtl.scalarization.checks import check_above


class GeometricMean(Scalarizer):
    """The geometric mean of the losses, `(prod_i L_i)^(1/m)` (GLS).

    The weight of task i is `mean / (m L_i)`, so that every loss has the same relative influence,
    whatever its scale.

    The product is taken as `exp(mean_i log L_i)`: the product itself, as in LibMTL, leaves the
    range of float32 for 40 losses. TorchJD computes the same. A loss of exactly zero counts as the
    smallest normal number and has a weight of zero, where the formula would give NaN.

    Raises:
        ConfigError: A loss is negative.

    References:
        Chennupati, Sistu, Yogamani, Rawashdeh. MultiNet++: Multi-Stream Feature Aggregation and
        Geometric Loss Strategy for Multi-Task Learning. CVPR Workshops 2019.
        https://arxiv.org/abs/1904.08492
    """

    def forward(self, losses: Tensor) -> Tensor:
        """The mean of the losses, `[k]`."""
        check_above("A geometric mean", losses, 0.0)
        return losses.clamp_min(torch.finfo(losses.dtype).tiny).log().mean().exp()
