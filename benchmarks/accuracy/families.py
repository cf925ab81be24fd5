"""Gradients of the kinds that methods meet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FAMILIES = (
    "gauss", "aligned", "conflict", "spread10", "spread100", "spread1e4", "low rank",
)  # fmt: skip
COUNTS = (2, 3, 10, 40)


def rows_of(family: str, count: int, seed: int = 0, width: int = 100) -> Tensor:
    """Gradients of one family.

    Args:
        family: `gauss`: normal entries. `aligned`: a common vector and noise of 0.05.
            `conflict`: 0.9 of the mean taken away. `spreadX`: norms from 1 to X in geometric
            steps. `low rank`: half as many dimensions as gradients, rounded up.
        count: Number of gradients, m.
        seed: Of the draws.
        width: Number of entries, n.

    Returns:
        `[m, n]` in float64.
    """
    rows = _normal(count, width, seed=seed)
    if family == "aligned":
        rows = 0.05 * rows + _normal(width, seed=seed + 1)
    elif family == "conflict":
        rows = rows - 0.9 * rows.mean(0)
    elif family.startswith("spread"):
        exponent = math.log10(float(family.removeprefix("spread")))
        rows = rows * torch.logspace(0, exponent, count, dtype=rows.dtype)[:, None]
    elif family == "low rank":
        rank = max(1, (count + 1) // 2)
        rows = _normal(count, rank, seed=seed + 1) @ rows[:rank]
    return rows


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
