"""Errors of depth maps over all valid pixels of the whole set."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.losses import check_same_shape

__all__ = ["AbsoluteError", "RelativeError"]


class _DepthMetric(Metric):
    """Base of the depth metrics: float64 sums over the valid pixels, and their number.

    Both metrics carry both sums. torchmetrics puts metrics whose states are equal after the first
    batch into one group and updates one of them from then on; with one sum each, a first batch
    without valid pixels would make the two share a sum that means different things.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    absolute: Tensor
    relative: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("absolute", default=zero, dist_reduce_fx="sum")
        self.add_state("relative", default=zero, dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: Depth of any shape.
            target: Depth of the same shape; a pixel is valid if it is above 0 and finite.

        Raises:
            TaskError: The shapes differ.
        """
        check_same_shape(type(self).__name__, prediction, target)
        valid = (target > 0) & target.isfinite()
        depth = torch.where(valid, target, 1).double()
        error = torch.where(valid, (prediction.double() - depth).abs(), 0.0)
        self.absolute = self.absolute + error.sum()
        self.relative = self.relative + (error / depth).sum()
        self.count = self.count + valid.sum()


@final
class AbsoluteError(_DepthMetric):
    """Mean of |p - g| over the valid pixels, in the target's unit, >= 0, lower is better.

    NaN if no pixel is valid. Every pixel of the whole set has the same weight, as in LibMTL.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return self.absolute / self.count


@final
class RelativeError(_DepthMetric):
    """Mean of |p - g| / g over the valid pixels, without unit, >= 0, lower is better.

    A fraction, not per cent. NaN if no pixel is valid. Every pixel of the whole set has the same
    weight, as in LibMTL.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return self.relative / self.count
