"""The probability simplex."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(point: Tensor) -> Tensor:
    """The nearest point with non-negative entries of sum one.

    A shift of all entries changes nothing, so the largest is brought to zero: what is kept lies
    within one of it, and no digit of that is lost, however large the entries are. In float64 on
    the CPU.

    Args:
        point: `[m]`, finite, m at least 1.

    Returns:
        `[m]`, in the point's dtype and device.

    References:
        Held, Wolfe, Crowder. Validation of subgradient optimization. Math. Programming 6, 1974.
    """
    shifted = point.detach().cpu().double()
    shifted = shifted - shifted.max()
    descending = shifted.sort(descending=True).values
    excess = descending.cumsum(0) - 1
    counts = torch.arange(1, len(point) + 1)
    kept = int((descending * counts > excess).sum())
    return (shifted - excess[kept - 1] / kept).clamp_min(0).to(point)
