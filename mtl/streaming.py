"""Rows that are not kept: the Gramian of the tasks' gradients a few of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtl.distributed import all_reduce, all_reduce_list
from mtl.linalg import inner_products
from mtl.rows import Gradients, Products, Rows, weigh_heads

if TYPE_CHECKING:
    from mtl.step import Step


class StreamedRows(Products):
    """What `mtl.rows.Rows` gives to a weighting, with at most `limit` rows and one in the making.

    Rows are differentiated block by block, and those after a block once more beside it, for the
    products of both. With r rows and b in a block that takes `r + (r - b) + (r - 2b) + ...`
    backward passes (`passes`), and one for the combination.

    Args:
        step: The losses and the shared parameters.
        basis: `[r, a]`, row j is the sum of losses that pass j differentiates.
        limit: Rows in a block, 1 or more.
        retain_graph: Keep the graph behind the last pass.
    """

    def __init__(self, step: Step, basis: Tensor, *, limit: int, retain_graph: bool) -> None:
        super().__init__(step)
        self._basis = basis
        self._limit = limit
        self._retain_graph = retain_graph

    def _products(self, precise: bool) -> Tensor:
        count = len(self._basis)
        self.heads = []
        block = upper = torch.empty(0)
        for start in range(0, count, self._limit):
            for j in range(start, count):
                rows = Rows(self.step, "parameters", self._basis[j : j + 1], retain_graph=True)
                if start == 0:
                    self.heads += rows.heads
                row = rows.jacobian
                if j == 0:
                    block = row.new_empty(self._limit, row.shape[1])
                    upper = inner_products(row, row).new_zeros(count, count)
                if j < start + self._limit:
                    block[j - start] = row[0]
                before = block[: j - start + 1]  # of those after the block, all of it
                products = inner_products(before, row, precise=precise)
                upper[start : start + len(before), j] = products[:, 0]
        result = all_reduce(upper)
        return result + result.triu(1).T

    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """See `Products.combine`."""
        assert not extra  # they share a pass at the representation only
        return self.weighted(weights) + weigh_heads(self.heads, heads)

    def weighted(self, weights: Tensor) -> Gradients:
        """Gradients of the shared parameters for `weights @ rows`, by one backward pass."""
        shared = self.step.shared
        on_losses = weights.to(self._basis) @ self._basis
        gradients = self.step.differentiate(
            self.step.cotangents(on_losses), shared, retain_graph=self._retain_graph
        )
        reduced = all_reduce_list(gradients, shared)
        return [(p, g) for p, g in zip(shared, reduced, strict=True) if g is not None]


def passes(rows: int, limit: int) -> int:
    """Backward passes through the backbone for so many rows, `limit` kept at a time."""
    if rows <= limit:
        return rows
    return sum(range(rows, 0, -limit)) + 1
