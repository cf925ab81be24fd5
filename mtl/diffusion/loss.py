"""Squared error of the noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.losses import Loss


class NoiseError(Loss):
    """Mean over samples and elements of `(prediction - target)^2`; every sample is labelled."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean squared error, in float32 at least."""
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        if not len(prediction):
            return prediction.sum()
        return F.mse_loss(prediction.to(dtype), target.to(dtype))

    def count(self, target: Tensor) -> Tensor:
        """Number of samples."""
        return torch.full((), len(target), device=target.device)
