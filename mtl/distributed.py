"""The few collectives that the engine needs; every one is a no-op in a single process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together (1 without a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


# The names since torch 2.14, and those before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Held(Protocol):
    """Which columns this process holds, where several share them."""

    @property
    def total(self) -> int:
        """Number of columns of all processes."""

    @property
    def width(self) -> int:
        """How many there are here."""

    @property
    def up_to_date(self) -> bool:
        """Whether the processes are still those that share the columns."""

    def of(self, tensor: Tensor) -> Tensor:
        """These columns, `[..., width]`, of all, `[..., total]`."""

    def all_gather(self, part: Tensor) -> Tensor:
        """All columns, `[..., total]`, from these ones, `[..., width]`, of each process."""


@dataclass(frozen=True)
class HeldEvenly:
    """As many columns in each process, but for the last ones."""

    columns: slice
    total: int

    @classmethod
    def here(cls, total: int) -> HeldEvenly | None:
        """The share of this process; `None`, all of them, in a single process."""
        if world_size() == 1:
            return None
        size, rank = _share(total), dist.get_rank()
        return cls(slice(min(rank * size, total), min((rank + 1) * size, total)), total)

    @property
    def width(self) -> int:
        """How many there are here."""
        return self.columns.stop - self.columns.start

    @property
    def up_to_date(self) -> bool:
        """See `Held.up_to_date`."""
        return self == HeldEvenly.here(self.total)

    def of(self, tensor: Tensor) -> Tensor:
        """See `Held.of`."""
        return tensor[..., self.columns]

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
        """See `Held.all_gather`."""
        return _gathered(part, _share(self.total)).flatten(-2)[..., : self.total]


@dataclass(frozen=True)
class HeldSamples:
    """The elements of some tensors that belong to the samples of this process.

    Columns are tensor after tensor, and in each process after process: as where one process has all
    samples, those of the first process first.
    """

    widths: tuple[tuple[int, ...], ...]  # [processes][tensors]
    rank: int

    @classmethod
    def here(cls, tensors: Sequence[Tensor]) -> HeldSamples | None:
        """The columns of this process's tensors; `None`, all of them, in a single process."""
        if world_size() == 1:
            return None
        own = torch.tensor([t.numel() for t in tensors], device=tensors[0].device)
        every = _gathered(own, len(tensors)).tolist()
        return cls(tuple(map(tuple, every)), dist.get_rank())

    @property
    def total(self) -> int:
        """Number of columns of all processes."""
        return sum(map(sum, self.widths))

    @property
    def width(self) -> int:
        """How many there are here."""
        return sum(self.widths[self.rank])

    @property
    def up_to_date(self) -> bool:
        """See `Held.up_to_date`."""
        return world_size() == len(self.widths) and dist.get_rank() == self.rank

    def of(self, tensor: Tensor) -> Tensor:
        """See `Held.of`."""
        parts = tensor.split(self._in_order(), -1)
        return torch.cat(parts[self.rank :: len(self.widths)], -1)

    def all_gather(self, part: Tensor) -> Tensor:
        """See `Held.all_gather`."""
        gathered = _gathered(part, max(map(sum, self.widths))).unbind(-2)
        pieces = [
            whole[..., : sum(widths)].split(widths, -1)
            for whole, widths in zip(gathered, self.widths, strict=True)
        ]
        return torch.cat([p for of_tensor in zip(*pieces, strict=True) for p in of_tensor], -1)

    def _in_order(self) -> list[int]:
        return [width for of_tensor in zip(*self.widths, strict=True) for width in of_tensor]


def _gathered(part: Tensor, columns: int) -> Tensor:
    """`[..., processes, columns]` from each process's part, which may be narrower."""
    part = _padded(part, columns)
    parts = part.new_empty(world_size() * part.numel())
    _all_gather(parts, part.reshape(-1))
    return parts.view(-1, *part.shape).movedim(0, -2)


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
