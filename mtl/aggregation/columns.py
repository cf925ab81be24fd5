"""Rules that look at the Jacobian column by column, without copies of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mtl.distributed import Held, all_reduce

_CACHED = 2**13  # columns: what a rule makes of 40 rows of them stays in a processor's cache
_LAUNCHED = 2**20  # on accelerators, where every operation costs a launch


def blocks_of_columns(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same columns of each part, block after block; at least one, if of none.

    Args:
        parts: Tensors whose last dimension is the n columns.
    """
    size = _CACHED if parts[0].device.type == "cpu" else _LAUNCHED
    return zip(*(part.split(size, -1) for part in parts), strict=True)


def by_columns(rule: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """What a rule gives, block after block, `[n]`.

    Args:
        rule: From the same columns of each part to one number a column.
        parts: Tensors whose last dimension is the n columns.
    """
    return torch.cat([rule(*block) for block in blocks_of_columns(*parts)])


def over_all_columns(sums: Tensor, held: Held | None) -> Tensor:
    """Sums over the columns that this process holds, added up over the processes, in place.

    Args:
        sums: Of any shape; the fewer numbers the better.
        held: The columns; `None`: all, and the sums are as they should be.
    """
    return sums if held is None else all_reduce(sums)
