"""The few collectives that the engine needs; every one is a no-op in a single process."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together (1 without a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


# The names since torch 2.14, and those before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Held(NamedTuple):
    """Which of `total` columns this process holds, where processes share them evenly."""

    columns: slice
    total: int

    @classmethod
    def here(cls, total: int) -> Held | None:
        """The share of this process; `None`, all of them, in a single process."""
        if world_size() == 1:
            return None
        size, rank = _share(total), dist.get_rank()
        return cls(slice(min(rank * size, total), min((rank + 1) * size, total)), total)

    @property
    def width(self) -> int:
        """How many there are here."""
        return self.columns.stop - self.columns.start

    def reduce_scatter(self, row: Tensor) -> Tensor:
        """These columns of the sum of `row`, `[total]`, over all processes.

        On CPUs, Gloo's own reduce-scatter is an all-reduce of which most is thrown away; exchanging
        the parts and adding them here moves half as much.
        """
        size = _share(self.total)
        parts = _padded(row, size * world_size()).view(-1, size)
        if row.device.type == "cpu":
            received = torch.empty_like(parts)
            dist.all_to_all_single(received, parts)
            result = received.sum(0)
        else:
            result = parts.new_empty(size)
            _reduce_scatter(result, parts)
        return result[: self.width]

    def all_gather(self, part: Tensor) -> Tensor:
        """All columns, `[..., total]`, from these ones, `[..., width]`, of each process."""
        part = _padded(part, _share(self.total))
        parts = part.new_empty(world_size() * part.numel())
        _all_gather(parts, part.reshape(-1))
        return parts.view(-1, *part.shape).movedim(0, -2).flatten(-2)[..., : self.total]


def _share(total: int) -> int:
    return -(-total // world_size())


def _padded(tensor: Tensor, columns: int) -> Tensor:
    missing = columns - tensor.shape[-1]
    return nn.functional.pad(tensor, (0, missing)) if missing else tensor


def all_reduce(tensor: Tensor) -> Tensor:
    """Sums `tensor` over all processes, in place, and returns it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_list(tensors: list[Tensor | None], likes: list[Tensor]) -> list[Tensor | None]:
    """Sums a list of gradients over all processes in one collective per dtype.

    Args:
        tensors: Gradients, `None` where a parameter was not used here.
        likes: The parameters, which give shape, dtype and device of the missing ones.

    Returns:
        The sums. In a single process, `tensors` as it is; otherwise without `None`, because
        another process may have used the parameter.
    """
    if world_size() == 1:
        return tensors
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(tensors, likes, strict=True)]
    for dtype in {g.dtype for g in filled}:
        members = [i for i, g in enumerate(filled) if g.dtype == dtype]
        flat = all_reduce(torch.cat([filled[i].reshape(-1) for i in members]))
        parts = flat.split([filled[i].numel() for i in members])
        for i, part in zip(members, parts, strict=True):
            filled[i] = part.view_as(likes[i])
    return list(filled)
