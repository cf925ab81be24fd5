"""Any loss function of whole samples, applied to the labelled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from mtl.errors import ConfigError, TaskError
from mtl.losses.base import Loss
from mtl.losses.labels import labelled

__all__ = ["SampleLoss"]


@final
class SampleLoss(Loss):
    """Any loss function that returns a mean over samples, applied to the labelled samples.

    Unlabelled samples (see `labelled`) are taken out of the batch. If every sample is labelled, the
    function receives the very tensors. One host synchronisation a call finds that out, unless the
    target is boolean. A sample that is labelled in part reaches the function as it is.

    Args:
        function: Callable (prediction, target) -> scalar mean over samples: a torch.nn loss, a
            function. A module is registered, so its buffers follow `.to(device)`.

    Raises:
        ConfigError: The function says of itself that it does not average (`reduction="sum"`).
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        reduction = getattr(function, "reduction", "mean")
        if reduction not in ("mean", "batchmean"):
            raise ConfigError(
                f"function: expected a loss with reduction='mean', got {reduction!r}; "
                "construct it with reduction='mean'"
            )
        self.function = function

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Apply the function to the labelled samples; see `Loss.forward`.

        Raises:
            TaskError: The batch sizes differ, or the function's result is not a scalar.
        """
        keep = labelled(target)
        if prediction.shape[:1] != keep.shape:
            raise TaskError(
                f"SampleLoss: expected prediction and target with the same number of samples, got "
                f"{list(prediction.shape)} and {list(target.shape)}; put the batch in dimension 0"
            )
        count = len(keep) if target.dtype == torch.bool else int(keep.sum())
        if count == 0:
            return prediction[:0].sum()
        if count < len(keep):
            prediction, target = prediction[keep], target[keep]
        value = self.function(prediction, target)
        if value.dim() != 0:
            raise TaskError(
                f"SampleLoss: expected a scalar mean from the function, got a tensor of shape "
                f"{list(value.shape)}; average over the samples in it"
            )
        return value

    def count(self, target: Tensor) -> Tensor:
        """Count the labelled samples; see `Loss.count`."""
        return labelled(target).sum()
