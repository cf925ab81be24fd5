"""Losses of single elements: class ids, numbers, binary labels and directions."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch.nn.functional as F
from torch import Tensor

from mtl.errors import ConfigError, TaskError
from mtl.losses.base import ElementwiseLoss
from mtl.losses.labels import check_same_shape, has_direction
from mtl.losses.surprisal import surprisal

__all__ = ["L1", "MSE", "BinaryCrossEntropy", "Cosine", "CrossEntropy"]

_TINY = 1e-12  # shorter vectors are not normalised, as in F.normalize


@final
class CrossEntropy(ElementwiseLoss):
    """Cross entropy of logits [B, C] or [B, C, H, W] and class ids [B] or [B, H, W].

    A negative class id means unlabelled. Value in nats, >= 0.

    Args:
        label_smoothing: Weight in [0, 1] of the uniform distribution in the target.

    Raises:
        ConfigError: label_smoothing is outside [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ConfigError(
                f"label_smoothing: expected a number in [0, 1], got {label_smoothing}; "
                "0 turns smoothing off"
            )
        self.label_smoothing = label_smoothing

    def elementwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return -log softmax(prediction)[target] per element, smoothed.

        Raises:
            TaskError: The target is not made of class ids, or its shape does not fit the logits.
        """
        shape = prediction.shape[:1] + prediction.shape[2:]
        if target.is_floating_point() or target.shape != shape:
            raise TaskError(
                f"CrossEntropy: expected integer class ids of shape {list(shape)} for logits "
                f"{list(prediction.shape)}, got {target.dtype} {list(target.shape)}; "
                "use target.long() and drop a channel dimension with target.squeeze(1)"
            )
        return surprisal(prediction, target.long(), self.label_smoothing)

    def valid(self, target: Tensor) -> Tensor:
        """Return where the class id is not negative."""
        return target >= 0


class _Regression(ElementwiseLoss):
    """Base of the losses whose prediction and target have the same shape."""

    def __init__(self, invalid: float | None = None) -> None:
        super().__init__()
        self.invalid = invalid

    @abstractmethod
    def compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every element of two tensors of one shape and dtype."""

    def elementwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return `compare` of the two after checking their shapes."""
        check_same_shape(type(self).__name__, prediction, target)
        return self.compare(prediction, target.to(prediction.dtype))

    def valid(self, target: Tensor) -> Tensor:
        """Return where the target is neither NaN nor `invalid`."""
        known = ~target.isnan()
        return known if self.invalid is None else known & (target != self.invalid)


@final
class L1(_Regression):
    """Absolute error |p - t|, in the target's unit; a NaN target is unlabelled.

    Args:
        invalid: A further target value that means unlabelled, as 0 does in depth maps.
    """

    def compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return |prediction - target|."""
        return F.l1_loss(prediction, target, reduction="none")


@final
class MSE(_Regression):
    """Squared error (p - t)^2, in the target's unit squared; a NaN target is unlabelled.

    Args:
        invalid: A further target value that means unlabelled, as 0 does in depth maps.
    """

    def compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return (prediction - target)^2."""
        return F.mse_loss(prediction, target, reduction="none")


@final
class BinaryCrossEntropy(_Regression):
    """Binary cross entropy of logits and targets in [0, 1], in nats.

    A NaN target is unlabelled, and so is a negative target of an integer type.

    Args:
        invalid: A further target value that means unlabelled, such as -1 in float targets.
    """

    def compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return -t log s(p) - (1 - t) log s(-p) with the logistic function s."""
        return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")

    def valid(self, target: Tensor) -> Tensor:
        """Return where the target is neither NaN, nor `invalid`, nor a negative integer."""
        known = super().valid(target)
        return known if target.is_floating_point() else known & (target >= 0)


@final
class Cosine(ElementwiseLoss):
    """Cosine distance 1 - <p/|p|, n> over dimension 1, in [0, 2] for unit targets n.

    The prediction is normalised and the target is taken as it is, as in LibMTL. A target vector
    that is all zero or has a NaN or infinite component is unlabelled.
    """

    def elementwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return 1 - <p/|p|, n> per vector."""
        check_same_shape("Cosine", prediction, target)
        square = prediction.square().sum(1).clamp_min(_TINY**2)
        return 1.0 - (prediction * target).sum(1) * square.rsqrt()

    def valid(self, target: Tensor) -> Tensor:
        """Return where the target has a direction."""
        return has_direction(target)
