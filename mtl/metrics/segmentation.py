"""Metrics of semantic segmentation (and of classification) from one global confusion matrix."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.errors import ConfigError, TaskError

__all__ = ["MeanIoU", "PixelAccuracy"]


class _ConfusionMetric(Metric):
    """Base of the metrics that are functions of the confusion matrix of everything seen.

    All of them have the same single state, so a `MetricCollection` updates it once. Rows are
    targets, columns predictions; counts are int64, so no number of pixels loses precision.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise ConfigError(
                f"num_classes: expected an integer of at least 2, got {num_classes}; "
                "give the number of channels of the task's head"
            )
        self.num_classes = num_classes
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: Logits or probabilities [B, C, ...].
            target: Class ids [B, ...] in 0..C-1; a negative id is unlabelled.

        Raises:
            TaskError: The shapes do not fit the number of classes, the ids are not
                integers, or an id is C or more.
        """
        classes, name = self.num_classes, type(self).__name__
        shape = prediction.shape[:1] + prediction.shape[2:]
        fits = prediction.shape[1:2] == (classes,) and target.shape == shape
        if not fits or target.is_floating_point():
            raise TaskError(
                f"{name}: expected logits [B, {classes}, ...] and integer class ids [B, ...], got "
                f"{list(prediction.shape)} and {target.dtype} {list(target.shape)}; correct "
                "num_classes or the head, drop a channel dimension with target.squeeze(1)"
            )
        ids = target.long()
        # Slot 0 takes the unlabelled elements; a class id that is too large lengthens the result.
        cells = torch.where(ids < 0, 0, 1 + ids * classes + prediction.argmax(1))
        counts = torch.bincount(cells.flatten(), minlength=1 + classes**2)
        if len(counts) > 1 + classes**2:
            raise TaskError(
                f"{name}: expected class ids below num_classes = {classes}, got "
                f"{int(ids.max())}; correct num_classes, or mark such pixels -1 (unlabelled)"
            )
        self.confusion = self.confusion + counts[1:].view(classes, classes)


@final
class MeanIoU(_ConfusionMetric):
    """Mean intersection over union, in 0..1, higher is better.

    IoU_c = M_cc / (sum_j M_cj + sum_i M_ic - M_cc) with the confusion matrix M of the whole set,
    averaged over the classes. A class that no labelled element has as target or as prediction is
    left out. NaN if nothing is labelled.

    Args:
        num_classes: Number of classes C >= 2.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ConfigError: num_classes < 2.
    """

    def compute(self) -> Tensor:
        """Return the mean over the classes, a float64 scalar."""
        matrix = self.confusion.double()
        hit = matrix.diagonal()
        return (hit / (matrix.sum(0) + matrix.sum(1) - hit)).nanmean()


@final
class PixelAccuracy(_ConfusionMetric):
    """Share of the labelled elements whose class is right, in 0..1, higher is better.

    sum_c M_cc / sum_ij M_ij with the confusion matrix M of the whole set. NaN if nothing is
    labelled. With targets [B] it is the accuracy of a classifier.

    Args:
        num_classes: Number of classes C >= 2.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ConfigError: num_classes < 2.
    """

    def compute(self) -> Tensor:
        """Return the share, a float64 scalar."""
        matrix = self.confusion.double()
        return matrix.trace() / matrix.sum()
