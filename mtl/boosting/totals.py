"""Sums of trees over all iterations; those of stumps by looking up tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.boosting.binning import Codes
from mtl.boosting.trees import Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LARGEST_TABLE = 1 << 23


def total(iterations: list[Trees], codes: Codes, tree: Ints | int) -> Floats | float:
    """Sum [K, n] of the trees of a block, one tree for all rows or one for each row [n].

    A sum of stumps is a sum of functions of one feature each, so that its cost does not depend on
    the number of iterations.
    """
    if not iterations:
        return 0.0
    stumps = iterations[0].feature.shape[1] == 1 and iterations[0].right is None
    trees, outputs, _ = iterations[0].leaves.shape
    cells = trees * outputs * len(codes.sizes) * (int(codes.sizes.max()) + 1)
    if stumps and cells <= _LARGEST_TABLE:
        return _look_up(*_tables(iterations, codes), codes, tree)
    result = iterations[0].predict(codes.values, tree)
    for later in iterations[1:]:
        result += later.predict(codes.values, tree)
    return result


def _tables(iterations: list[Trees], codes: Codes) -> tuple[Floats, Floats]:
    """Values [d, bins, Q, K] that each bin adds to a constant [Q, K]."""
    feature = np.stack([trees.feature[:, 0] for trees in iterations])
    low = np.stack([trees.low[:, 0] for trees in iterations]).astype(np.int64)
    high = np.stack([trees.high[:, 0] for trees in iterations]).astype(np.int64)
    leaves = np.stack([trees.leaves for trees in iterations])
    inside = leaves[..., 0] - leaves[..., 1]
    bins = int(codes.sizes.max())
    table = np.zeros((len(codes.sizes), bins + 1, *leaves.shape[1:3]))
    tree = np.arange(leaves.shape[1])
    np.add.at(table, (feature, low, tree), inside)
    np.subtract.at(table, (feature, np.minimum(high + 1, bins), tree), inside)
    return table.cumsum(axis=1), leaves[..., 1].sum(0)


def _look_up(table: Floats, constant: Floats, codes: Codes, tree: Ints | int) -> Floats:
    d, bins, trees, outputs = table.shape
    if np.ndim(tree) == 0:
        own = np.ascontiguousarray(table[:, :, tree])
        result = np.repeat(constant[tree][None], len(codes), axis=0)
        for j in range(d):
            result += own[j].take(codes.values[j], axis=0)
        return result.T
    rows = table.reshape(-1, outputs)
    result = constant[tree]
    for j in range(d):
        code = codes.values[j].astype(np.int64)
        result += rows.take((j * bins + code) * trees + tree, axis=0)
    return result.T
