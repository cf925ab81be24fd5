"""The few collectives that the engine needs; every one is a no-op in a single process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together (1 without a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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
