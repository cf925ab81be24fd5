"""What counts as labelled, and whether prediction and target fit together."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl.errors import TaskError

__all__ = ["check_same_shape", "has_direction", "labelled"]


def labelled(target: Tensor) -> Tensor:
    """Tell which samples of a batch have a label at all.

    A sample is unlabelled if its whole target is NaN (floating point) or negative (integers).
    Boolean targets are always labelled.

    Args:
        target: Targets [B, ...].

    Returns:
        Booleans [B], on the target's device, found without a host synchronisation.

    Raises:
        TaskError: The target has no batch dimension.
    """
    if target.dim() == 0:
        raise TaskError(
            "target: expected a batch [B, ...], got a scalar; add a batch dimension: target[None]"
        )
    if target.dtype == torch.bool:
        return torch.ones(target.shape[0], dtype=torch.bool, device=target.device)
    inexact = target.is_floating_point() or target.is_complex()
    present = ~target.isnan() if inexact else target >= 0
    return present if present.dim() == 1 else present.flatten(1).any(1)


def has_direction(target: Tensor) -> Tensor:
    """Tell where a field of vectors is labelled: all components finite and not all of them 0.

    Args:
        target: Vectors [B, D, ...], with the components along dimension 1.

    Returns:
        Booleans [B, ...].
    """
    return (target != 0).any(1) & target.isfinite().all(1)


def check_same_shape(name: str, prediction: Tensor, target: Tensor) -> None:
    """Refuse a prediction that would be broadcast against its target.

    Args:
        name: The loss or metric that compares the two, for the message.
        prediction: Any tensor.
        target: A tensor that must have the same shape.

    Raises:
        TaskError: The shapes differ.
    """
    if prediction.shape != target.shape:
        raise TaskError(
            f"{name}: expected prediction and target of the same shape, got "
            f"{list(prediction.shape)} and {list(target.shape)}; reshape the head's output or the "
            "target (a missing channel dimension: target.unsqueeze(1))"
        )
