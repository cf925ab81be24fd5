"""Squared error of the noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.losses import Loss


class NoiseError(Loss):
    """Mean over samples and elements of `(prediction - target)^2`; every sample is labelled."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean squared error, in float32 at least."""
        if not len(prediction):
            return prediction.sum()
        return _squares(prediction, target).mean()

    def count(self, target: Tensor) -> Tensor:
        """Number of samples."""
        return torch.full((), len(target), device=target.device)

    def each(
        self, predictions: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """The mean squared errors of several tasks, by a few operations on all samples."""
        sizes = torch.tensor([len(target) for target in targets])
        task = torch.arange(len(sizes))
        means = (task.repeat_interleave(sizes) == task[:, None]) / sizes[:, None].clamp_min(1)
        errors = _squares(torch.cat([*predictions]), torch.cat([*targets])).flatten(1).mean(1)
        losses = (means.to(errors) * errors).sum(1)
        return list(zip(losses.unbind(), sizes.to(errors.device).unbind(), strict=True))


def _squares(prediction: Tensor, target: Tensor) -> Tensor:
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return F.mse_loss(prediction.to(dtype), target.to(dtype), reduction="none")
