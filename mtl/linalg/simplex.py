"""The probability simplex."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(point: Tensor) -> Tensor:
    """The nearest point with non-negative entries of sum one.

    Args:
        point: `[m]`.

    Returns:
        `[m]`.

    References:
        Held, Wolfe, Crowder. Validation of subgradient optimization. Math. Programming 6, 1974.
    """
    descending = point.sort(descending=True).values
    excess = descending.cumsum(0) - 1
    counts = torch.arange(1, len(point) + 1, device=point.device)
    kept = int((descending * counts > excess).sum())
    return (point - excess[kept - 1] / kept).clamp_min(0)
