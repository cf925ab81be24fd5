"""Sums of trees over all iterations; those of stumps by looking up one table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.boosting.binning import Codes
from mtl.boosting.trees import Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LARGEST = 1 << 22


class StumpTable:
    """A sum of stumps is a sum of functions of one feature each: a value a bin and a task.

    What a prediction costs then does not depend on the number of iterations.

    Args:
        sizes: Number of bins of each feature [d].
        tasks: T; tasks that are not known have the row after the last.
        start: Constant [K].
    """

    def __init__(self, sizes: Ints, tasks: int, start: Floats) -> None:
        self._sizes, self._tasks = sizes, tasks
        self._offset = np.cumsum(sizes + 1) - (sizes + 1)
        self._cells = int((sizes + 1).sum())
        self._constant = np.repeat(start[:, None], tasks + 1, axis=1)
        self._values: Floats | None = None

    def absorb(self, block: list[Trees], *shares: Floats) -> list[Trees]:
        """Adds a block of stumps, unless the table would be too large.

        Args:
            block: Trees of each iteration.
            shares: Factors [T + 1] of the iterations' trees 0, 1, ...; without them, the trees
                are one a task.

        Returns:
            The trees that are not in the table: all of the block or none.
        """
        size = (self._tasks + 1) * self._cells * len(self._constant)
        if not block or not block[0].stumps or size > _LARGEST:
            return block
        if self._values is None:
            self._values = np.zeros((len(self._constant), self._tasks + 1, self._cells))
        values, constant = self._sum(block)
        if not shares:
            self._values[:, :-1] += values
            self._constant[:, :-1] += constant
        for tree, share in enumerate(shares):
            self._values += share[:, None] * values[:, tree, None]
            self._constant += share * constant[:, tree, None]
        return []

    def _sum(self, block: list[Trees]) -> tuple[Floats, Floats]:
        """What each bin adds [K, Q, cells] to a constant [K, Q], for each of Q trees."""
        feature = np.array([trees.feature[:, 0] for trees in block])
        low = np.array([trees.low[:, 0] for trees in block], dtype=np.int64)
        high = np.array([trees.high[:, 0] for trees in block], dtype=np.int64)
        leaves = np.array([trees.leaves for trees in block])
        inside = leaves[..., 0] - leaves[..., 1]
        _, trees, outputs = inside.shape
        first = np.arange(trees) * self._cells + self._offset[feature]
        steps = np.zeros((trees * self._cells, outputs))
        np.add.at(steps, first + low, inside)
        np.subtract.at(steps, first + np.minimum(high + 1, self._sizes[feature]), inside)
        values = steps.reshape(trees, self._cells, outputs).cumsum(axis=1)
        return values.transpose(2, 0, 1), leaves[..., 1].sum(0).T

    def predict(self, codes: Codes, task: Ints) -> Floats:
        """The constant and all stumps in the table: [K, n]; task -1 is not known."""
        result = self._constant[:, task]
        if self._values is not None:
            row = task % (self._tasks + 1) * self._cells
            place = (codes.values + self._offset[:, None]) + row
            flat = self._values.reshape(len(result), -1)
            result += flat.take(place.ravel(), axis=1).reshape(len(result), *place.shape).sum(1)
        return result


def total(block: list[Trees], codes: NDArray, tree: Ints | int) -> Floats:
    """Sum [K, n] of the trees of a block, one tree for all rows or one for each row [n]."""
    result = block[0].predict(codes, tree)
    for trees in block[1:]:
        result += trees.predict(codes, tree)
    return result
