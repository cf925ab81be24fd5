"""Gradients of the tasks that a wrapper takes and combines itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mtl.distributed import HeldEvenly, all_reduce, all_reduce_list, world_size
from mtl.errors import NonFiniteError
from mtl.linalg import gramian, lengths
from mtl.rows import Gradients, finite_products, weigh_heads
from mtl.step import Step


class TaskGradients:
    """Gradients of every present task by the shared parameters and those of its head.

    They are of this process's samples until `reduce` sums them over the processes.

    Args:
        step: Its present tasks have a row each.

    Attributes:
        rows: `[a, n]` by the shared parameters, times the step's scale; float32 at least.
        used: Whether some task depends on it, one entry a shared parameter.
    """

    def __init__(self, step: Step) -> None:
        self.shared = step.shared
        self.names = step.present
        dtype = step.values.dtype
        for parameter in self.shared:
            dtype = torch.promote_types(dtype, parameter.dtype)
        width = sum(p.numel() for p in self.shared)
        self.rows = step.values.new_empty(len(self.names), width, dtype=dtype)
        self.used = [False] * len(self.shared)
        self._own = [list(step.specific[name]) for name in self.names]
        self._heads: list[list[Tensor | None]] = [[None] * len(own) for own in self._own]

    def take(
        self,
        step: Step,
        tasks: Sequence[int] | None = None,
        minus: tuple[Tensor, float] | None = None,
        *,
        retain_graph: bool = False,
    ) -> None:
        """Takes the gradients of some tasks in a step, one backward pass each.

        Args:
            step: Its present tasks are these tasks.
            tasks: Their rows. Default: all.
            minus: `[a, n]` and the share of it that is subtracted from the rows.
            retain_graph: Keep the graph behind the last pass.
        """
        cotangents = step.cotangents()
        places = range(len(self.names)) if tasks is None else tasks
        for position, row in enumerate(places):
            last = position + 1 == len(places) and not retain_graph
            own = self._own[row]
            gradients = step.differentiate(
                cotangents, [*self.shared, *own], among=[position], retain_graph=not last
            )
            shared, self._heads[row] = gradients[: len(self.shared)], gradients[len(self.shared) :]
            self.used = [u or g is not None for u, g in zip(self.used, shared, strict=True)]
            self._write(row, shared, minus)

    def _write(
        self, row: int, gradients: list[Tensor | None], minus: tuple[Tensor, float] | None
    ) -> None:
        sizes = [p.numel() for p in self.shared]
        targets = self.rows[row].split(sizes)
        others = targets if minus is None else minus[0][row].split(sizes)
        for target, other, gradient in zip(targets, others, gradients, strict=True):
            flat = target.new_zeros(()) if gradient is None else gradient.reshape(-1).to(target)
            if minus is None:
                target.copy_(flat)
            else:
                torch.sub(flat, other, alpha=minus[1], out=target)

    def reduce(self) -> TaskGradients:
        """Sums over the processes, in place."""
        all_reduce(self.rows)
        if world_size() > 1:  # another process may have used what this one did not
            self.used = [True] * len(self.used)
        self._heads = [
            all_reduce_list(gradients, own)
            for gradients, own in zip(self._heads, self._own, strict=True)
        ]
        return self

    def check_heads(self) -> None:
        """Raises `NonFiniteError` where the gradient of a head is NaN or infinite."""
        norms = lengths([[g for _, g in head] for head in self.heads], self.rows)
        bad = (~norms.isfinite()).tolist()
        if any(bad):
            raise NonFiniteError(*(n for n, b in zip(self.names, bad, strict=True) if b))

    def of_shared(self, row: int | None = None) -> Gradients:
        """Shared parameters with the gradient of a task, or of the sum of all losses."""
        flat = self.rows.sum(0) if row is None else self.rows[row]
        return cut(flat, self.shared)

    def of_head(self, row: int) -> Gradients:
        """Parameters of a head with their gradient."""
        pairs = zip(self._own[row], self._heads[row], strict=True)
        return [(p, g) for p, g in pairs if g is not None]

    @property
    def heads(self) -> list[Gradients]:
        """The same of all tasks."""
        return [self.of_head(row) for row in range(len(self.names))]


class GivenRows:
    """Rows for a combiner that were not made by differentiating the step: see `mtl.rows.Rows`.

    Args:
        step: Its scale is in the rows.
        jacobian: `[r, n]`.
        heads: For each row its head's gradients. Default: none.
        used: Which of the shared parameters get a gradient. Default: all.
        factor: The combiner sees the rows times this; what it makes of them is divided by it.

    Attributes:
        held: The columns that this process passes to an aggregator; `None`: all.
    """

    def __init__(
        self,
        step: Step,
        jacobian: Tensor,
        *,
        heads: Sequence[Gradients] = (),
        used: Sequence[bool] | None = None,
        factor: Tensor | float = 1.0,
    ) -> None:
        self._step = step
        self._rows = jacobian
        self._factor = factor
        self._heads = heads
        self._used = used or [True] * len(step.shared)
        self.held = HeldEvenly.here(jacobian.shape[1])

    def times(self, factor: Tensor | float) -> GivenRows:
        """The same rows, seen on another scale."""
        moved = GivenRows(self._step, self._rows, heads=self._heads, used=self._used, factor=factor)
        moved.__dict__["_products"] = self._products
        return moved

    @property
    def jacobian(self) -> Tensor:
        """What an aggregator sees: `[r, n]`, or the held columns, times the step's scale."""
        rows = self._rows if self.held is None else self.held.of(self._rows)
        return rows * self._factor

    @cached_property
    def _products(self) -> Tensor:
        products = finite_products(
            lambda precise: gramian(self._rows, precise=precise), self._step.present
        )
        return products / self._step.scale**2

    @property
    def norms(self) -> Tensor:
        """Norms of the rows themselves, `[r]`, without scale and factor, float64.

        Raises:
            NonFiniteError: A row is not finite.
        """
        return self._products.diagonal().clamp_min(0).sqrt()

    @property
    def gramian(self) -> Tensor:
        """What a weighting sees, `[r, r]`, float64, without the step's scale.

        Raises:
            NonFiniteError: A row is not finite.
        """
        return self._products * self._factor**2

    def unscaled(self, factors: Tensor | None = None) -> Tensor:
        """`jacobian` without the step's scale, times a factor a row."""
        rows = self.jacobian / self._step.scale
        return rows if factors is None else rows.mul_(factors.to(rows)[:, None])

    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """Gradients of the shared parameters for `weights @ rows`, and of the heads, weighted."""
        assert not extra  # regularizers are taken at the clean point, apart
        return self.weighted(weights) + self._weigh_heads(heads)

    def weighted(self, weights: Tensor) -> Gradients:
        """Gradients of the shared parameters for `weights @ rows`."""
        return self._cut(weights.to(self._rows) @ self._rows)

    def follow(
        self,
        direction: Tensor,
        heads: Tensor | None,
        extra: Sequence[Tensor] = (),
        *,
        held: bool = False,
    ) -> Gradients:
        """Gradients of all parameters for a direction in the columns of `jacobian`."""
        assert not extra
        if held and self.held is not None:
            direction = self.held.all_gather(direction)
        return self._cut(direction / self._factor) + self._weigh_heads(heads)

    def _weigh_heads(self, weights: Tensor | None) -> Gradients:
        return weigh_heads(self._heads, weights) if self._heads else []

    def _cut(self, direction: Tensor) -> Gradients:
        pairs = cut(direction, self._step.shared)
        return [pair for pair, used in zip(pairs, self._used, strict=True) if used]


def cut(direction: Tensor, parameters: Sequence[Tensor]) -> Gradients:
    """Pieces of a vector `[n]` in the shapes of the parameters."""
    parts = direction.split([p.numel() for p in parameters])
    return [(p, part.view_as(p).to(p.dtype)) for p, part in zip(parameters, parts, strict=True)]


def length(gradients: Gradients, like: Tensor) -> Tensor:
    """Norm of several gradients together, on the device of `like`; zero where there is none."""
    return lengths([[g for _, g in gradients]], like)[0]


def unite(gradients: Gradients, parameters: Sequence[Tensor]) -> Gradients:
    """One gradient for each of the parameters that have some; the sum where there are several."""
    known = {id(p) for p in parameters}
    sums: dict[int, tuple[Tensor, Tensor]] = {}
    for parameter, gradient in gradients:
        key = id(parameter)
        if key in sums:
            sums[key] = (parameter, sums[key][1] + gradient)
        elif key in known:
            sums[key] = (parameter, gradient)
    return list(sums.values())


def join(gradients: Gradients, parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The sum of gradients by some parameters as one vector `[n]`; zero where there is none."""
    found = {id(p): g for p, g in unite(gradients, parameters)}
    return torch.cat(
        [
            found[id(p)].reshape(-1).to(dtype)
            if id(p) in found
            else p.new_zeros(p.numel(), dtype=dtype)
            for p in parameters
        ]
    )
