"""Angles between predicted and true surface normals over all valid pixels of the whole set."""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from mtl.errors import ConfigError
from mtl.losses import check_same_shape, has_direction

__all__ = ["MeanAngle", "MedianAngle", "WithinAngle"]

_BINS_PER_DEGREE = 100
_BINS = 180 * _BINS_PER_DEGREE


def _angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the angles in degrees between the vectors along dimension 1, in float64.

    float32 would resolve small angles to 0.02 degrees only. The target is normalised as well, so
    that its own float32 rounding does not appear as an angle.
    """
    cosine = (F.normalize(prediction.double(), dim=1) * F.normalize(target.double(), dim=1)).sum(1)
    # Rounding can carry the cosine of two unit vectors past 1, where acos is undefined.
    return torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0)))


class _AngleMetric(Metric):
    """Base of the normal metrics: a histogram of the angles with bins of 0.01 degrees, their sum.

    All of them have the same states, so a `MetricCollection` updates the histogram once. The last
    entry of the histogram counts undefined angles (the prediction is NaN or infinite): one of them
    makes every metric NaN. A prediction of exactly zero counts as 90 degrees.
    """

    is_differentiable = False
    full_state_update = False
    histogram: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        bins = torch.zeros(_BINS + 1, dtype=torch.int64)
        self.add_state("histogram", default=bins, dist_reduce_fx="sum")
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: Vectors [B, 3, ...] of any length.
            target: Vectors [B, 3, ...]; an all-zero or non-finite one is unlabelled.

        Raises:
            TaskError: The shapes differ.
        """
        check_same_shape(type(self).__name__, prediction, target)
        angle = _angles(prediction, target)[has_direction(target)]
        # The last bin is closed: it takes 180 degrees too.
        bins = (angle * _BINS_PER_DEGREE).floor().clamp(max=_BINS - 1)
        bins = bins.masked_fill(angle.isnan(), _BINS).long()
        self.histogram = self.histogram + torch.bincount(bins, minlength=_BINS + 1)
        self.total = self.total + angle.sum()

    def _undefined_is_nan(self, value: Tensor) -> Tensor:
        """Return the value, or NaN if an angle was undefined."""
        return torch.where(self.histogram[-1] > 0, torch.nan, value)


@final
class MeanAngle(_AngleMetric):
    """Mean angle in degrees, 0..180, lower is better.

    The angle of a pixel is acos(<p/|p|, n/|n|>). NaN if no pixel is valid.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return self.total / self.histogram.sum()


@final
class MedianAngle(_AngleMetric):
    """Median angle in degrees, 0..180, lower is better; correct to 0.01 degrees.

    It is the median over all pixels (some papers average the medians of batches), interpolated
    linearly inside its bin. Of an even number of angles it is the lower one of the two in the
    middle, as in `torch.median`. NaN if no pixel is valid.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the median, a float64 scalar."""
        reached = self.histogram[:-1].cumsum(0)
        half = reached[-1].double() / 2
        index = torch.searchsorted(reached.double(), half)
        inside = self.histogram[index]
        share = (half - (reached[index] - inside)) / inside
        return self._undefined_is_nan((index + share) / _BINS_PER_DEGREE)


@final
class WithinAngle(_AngleMetric):
    """Share of the angles below a threshold, in 0..1, higher is better. NaN without valid pixels.

    Args:
        threshold: Angle in degrees in (0, 180], a multiple of the histogram's 0.01, so that the
            share is exact. Usual: 11.25, 22.5 and 30.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ConfigError: The threshold is out of range or not a multiple of 0.01.
    """

    higher_is_better = True

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        bins = threshold * _BINS_PER_DEGREE
        if not (0 < threshold <= 180 and math.isclose(bins, round(bins), rel_tol=1e-9)):
            raise ConfigError(
                f"threshold: expected degrees in (0, 180], a multiple of {1 / _BINS_PER_DEGREE}, "
                f"got {threshold}; round it, or use one of 11.25, 22.5, 30"
            )
        self.threshold = threshold
        self._bins = round(bins)

    def compute(self) -> Tensor:
        """Return the share, a float64 scalar."""
        below = self.histogram[: self._bins].sum().double()
        return self._undefined_is_nan(below / self.histogram.sum())
