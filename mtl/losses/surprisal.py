"""Cross entropy of single elements, whose second derivative takes few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["surprisal"]


def surprisal(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """`-sum_c q_c log p_c`, p the softmax of the logits and q the target; twice differentiable.

    `q` is 1 at the target's class, smoothed: `(1 - smoothing) + smoothing / C` there and
    `smoothing / C` elsewhere. With g the gradient by the result::

        gradient by the logits            (p - q) g
        its derivative along a tangent u  p (u - sum_c p_c u_c) g  by the logits
                                          sum_c (p_c - q_c) u_c    by g

    Args:
        logits: `[B, C, ...]`.
        target: Class ids, `[B, ...]`, int64.
        smoothing: In [0, 1].

    Returns:
        `[B, ...]`, in nats.
    """
    return _Surprisal.apply(logits, target.unsqueeze(1), smoothing).squeeze(1)


class _Surprisal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        logs = torch.log_softmax(logits, 1)
        if logs.stride() != logits.stride():  # channels last: so that the head's gradient is, too
            logs = torch.empty_like(logits).copy_(logs)
        ctx.save_for_backward(logits, logs, target)
        ctx.smoothing = smoothing
        picked = logs.gather(1, target)
        if smoothing:
            picked = torch.lerp(picked, logs.mean(1, keepdim=True), smoothing)
        return -picked

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _SurprisalByLogits.apply(gradients[0], *ctx.saved_tensors, ctx.smoothing), None, None


class _SurprisalByLogits(torch.autograd.Function):
    """A function of the gradient and of the logits; their logarithmic shares are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        logits: Tensor,  # noqa: ARG004 - what backward differentiates by
        logs: Tensor,
        target: Tensor,
        smoothing: float,
    ) -> Tensor:
        shares = logs.exp()
        ctx.save_for_backward(gradient, shares, target)
        ctx.smoothing = smoothing
        result = shares * gradient
        if smoothing:
            result -= gradient * (smoothing / shares.shape[1])
        return result.scatter_add_(1, target, gradient * (smoothing - 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *tangents: Tensor) -> Any:
        (tangent,) = tangents
        gradient, shares, target = ctx.saved_tensors
        weighted = shares * tangent
        mean = weighted.sum(1, keepdim=True)
        by_gradient = mean - (1 - ctx.smoothing) * tangent.gather(1, target)
        if ctx.smoothing:
            by_gradient -= ctx.smoothing * tangent.mean(1, keepdim=True)
        by_logits = weighted.addcmul_(shares, mean, value=-1).mul_(gradient)
        return by_gradient, by_logits, None, None, None
