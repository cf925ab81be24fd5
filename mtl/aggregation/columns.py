"""Rules that look at one column of the Jacobian at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 2**13  # columns: 40 rows of them, and what a rule makes of these, stay in the cache


def by_columns(rule: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """A rule on blocks of columns: a copy of a block in memory rather than of the whole.

    Args:
        rule: From blocks of the parts to `[b]`, column by column.
        parts: Tensors whose last dimension is the n columns.

    Returns:
        `[n]`.
    """
    blocks = zip(*(part.split(BLOCK, -1) for part in parts), strict=True)
    return torch.cat([rule(*block) for block in blocks])
