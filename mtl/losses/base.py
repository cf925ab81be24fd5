"""The interface of a loss, and the masked mean that the element-wise ones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl.errors import TaskError

__all__ = ["ElementwiseLoss", "Loss"]


class Loss(nn.Module, ABC):
    """A loss of one task: the mean over the labelled elements of a batch, and their number."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Average the loss over the labelled elements.

        Args:
            prediction: The output of the task's head.
            target: The task's target.

        Returns:
            A scalar. If nothing is labelled, a zero that still belongs to the prediction's graph
            (its gradient is zero everywhere), never NaN.
        """

    @abstractmethod
    def count(self, target: Tensor) -> Tensor:
        """Count the labelled elements that `forward` averages over.

        Args:
            target: The task's target.

        Returns:
            An int64 scalar on the target's device, found without a host synchronisation.
        """

    def each(
        self, predictions: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Loss and count of several tasks that share this loss; a subclass may do all at once.

        Args:
            predictions: One a task.
            targets: One a task.

        Returns:
            What `forward` and `count` give, one pair a task.
        """
        pairs = zip(predictions, targets, strict=True)
        return [(self(prediction, target), self.count(target)) for prediction, target in pairs]


class ElementwiseLoss(Loss):
    """A loss that is a masked mean of one value per element (pixel, sample, component).

    Subclasses write `elementwise` and `valid`. Unlabelled targets are replaced by `filler` before
    `elementwise` sees them, so that they can cause NaN neither in the value nor in the gradient.
    Predictions in half precision are raised to float32 first: a sum over pixels overflows float16.

    Attributes:
        filler: Target value at which `elementwise` is finite and differentiable.
    """

    filler: ClassVar[float] = 0.0

    @abstractmethod
    def elementwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every element, labelled or not.

        Args:
            prediction: The output of the task's head, at least float32.
            target: The target, with `filler` in place of what is unlabelled.
        """

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """Return booleans of the shape of `elementwise`'s result: True where labelled.

        The shape may lack the target's dimension 1, if the elements are vectors along it.
        """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Average `elementwise` over the elements that are `valid`; see `Loss.forward`.

        Raises:
            TaskError: Prediction and target do not fit together.
        """
        return self._evaluate(prediction, target)[0]

    def each(
        self, predictions: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """`forward` and `count` of several tasks, with what is valid found once."""
        return list(map(self._evaluate, predictions, targets))

    def _evaluate(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if prediction.dtype in (torch.float16, torch.bfloat16):
            prediction = prediction.float()
        valid = self.valid(target)
        known = valid if valid.dim() == target.dim() else valid.unsqueeze(1)
        values = self.elementwise(prediction, target.masked_fill(~known, self.filler))
        if values.shape != valid.shape:
            raise TaskError(
                f"{type(self).__name__}: expected elementwise and valid to have the same shape, "
                f"got {list(values.shape)} and {list(valid.shape)}; correct one of the two methods"
            )
        count = valid.sum()
        return torch.where(valid, values, 0.0).sum() / count.clamp_min(1), count

    def count(self, target: Tensor) -> Tensor:
        """Count the elements that are `valid`; see `Loss.count`."""
        return self.valid(target).sum()
