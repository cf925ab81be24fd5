"""Least-squares stumps of all rows, for which all but the gradients is known beforehand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mtl.boosting.binning import Codes
from mtl.boosting.trees import Growth, Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ENTRIES = 1 << 20
_CELLS = 1 << 23
_NEAR = 1 - 1e-9


class LeastSquaresStumps:
    """Grows the stumps that `grow` does, for curvature one, no `l2` and all rows, in less time.

    With G_L the sum of the gradients left of a boundary, less their mean in the root times the
    n_L rows there, a split gains G_L^2 n / (n_L n_R). The rows of each cell (root, feature, bin)
    and all counts stay the same from one iteration to the next: what is left to do is one product
    with a sparse matrix of ones, one cumulative sum (centred gradients sum to zero over each
    feature, so that it starts afresh by itself) and one maximum.

    Args:
        codes: Binned features of n rows, sorted by root, without missing values and categories.
        growth: Limits of the leaves; depth 1 and no `l2`.
        first: First row of each root [R].
    """

    @staticmethod
    def suit(codes: Codes, growth: Growth, roots: int) -> bool:
        """Whether these stumps can be grown here, and the matrix is small."""
        plain = not (codes.categorical.any() or codes.missing.any())
        small = codes.values.size <= _ENTRIES and roots * codes.sizes.sum() <= _CELLS
        return bool(growth.depth == 1 and growth.l2 == 0 and plain and small)

    def __init__(self, codes: Codes, growth: Growth, first: Ints) -> None:
        self._values, self._scale, self._first = codes.values, growth.scale, first
        self._rows = np.diff(first, append=len(codes))
        features, n = codes.values.shape
        bins = int(codes.sizes.sum())
        offset = np.cumsum(codes.sizes) - codes.sizes
        key = codes.values + offset[:, None]
        key += np.repeat(bins * np.arange(len(first)), self._rows)
        entries = np.ones(key.size), (key.ravel(), np.tile(np.arange(n), features))
        whole = sparse.csr_array(entries, shape=(bins * len(first), n))
        counts = np.diff(whole.indptr)
        occupied = np.flatnonzero(counts)
        self._ones = sparse.csr_array(
            (whole.data, whole.indices, np.append(whole.indptr[occupied], len(whole.data))),
            shape=(len(occupied), n),
        )
        self._root, place = np.divmod(occupied, bins)
        self._begin = np.searchsorted(self._root, np.arange(len(first)))
        feature = np.searchsorted(offset, place, side="right") - 1
        rows = self._rows[self._root]
        left = np.cumsum(counts[occupied]) - features * first[self._root] - feature * rows
        right = rows - left
        self._per_left, self._per_right = 1 / left, 1 / np.maximum(right, 1)
        fits = (left >= growth.min_leaf) & (right >= growth.min_leaf)
        self._factor = np.where(fits, rows * self._per_left * self._per_right, 0.0)
        low = np.where(left >= right, 0, 1)
        bin_ = place - offset[feature]
        high = (bin_ + np.append(bin_[1:], 0) - 1) // 2
        self._splits = np.stack([feature, low, high])
        self._all = np.arange(n)
        self._leaf = 2 * np.arange(len(first)).repeat(self._rows)

    def grow(self, grad: Floats) -> tuple[Trees, Floats]:
        """Grows F * R stumps from negative gradients [F, K, n].

        Returns:
            The stumps, all roots of the first family first, and their values [F, K, n].
        """
        families, outputs, n = grad.shape
        roots, cells = len(self._first), len(self._root)
        mean = np.add.reduceat(grad, self._first, axis=2) / self._rows
        centred = grad - mean.repeat(self._rows, axis=2)
        left = np.empty((families, outputs, cells))
        for sums, row in zip(left.reshape(-1, cells), centred.reshape(-1, n), strict=True):
            (self._ones @ row).cumsum(out=sums)
        cell, gain = self._best(left[:, 0] ** 2 if outputs == 1 else (left**2).sum(1))
        channel = np.arange(families * outputs).reshape(families, outputs, 1)
        moved = left.take(cell[:, None] + cells * channel)
        moved *= (gain > 0)[:, None]
        leaves = np.empty((*mean.shape, 2))
        leaves[..., 0] = mean + moved * self._per_left[cell][:, None]
        leaves[..., 1] = mean - moved * self._per_right[cell][:, None]
        leaves *= self._scale
        feature, low, high = self._splits[:, cell]
        code = self._values.take((n * feature).repeat(self._rows, axis=1) + self._all)
        leaf = self._leaf + (code > high.repeat(self._rows, axis=1))
        values = leaves.take(leaf[:, None] + 2 * roots * channel)
        dtype = self._values.dtype
        trees = Trees(
            feature=feature.reshape(-1, 1),
            low=low.reshape(-1, 1).astype(dtype),
            high=high.reshape(-1, 1).astype(dtype),
            right=None,
            leaves=leaves.swapaxes(1, 2).reshape(-1, outputs, 2),
            gain=gain.reshape(-1, 1),
        )
        return trees, values

    def _best(self, squares: Floats) -> tuple[Ints, Floats]:
        """The first cell of largest gain in each root and that gain, [F, R] both.

        Gains are equal up to rounding, so that the order of additions decides nothing.
        """
        gain = squares * self._factor
        largest = np.maximum.reduceat(gain, self._begin, axis=1)
        near = np.flatnonzero(gain >= (largest * _NEAR).take(self._root, axis=1))
        family = len(self._root) * np.arange(len(gain))[:, None]
        return near[near.searchsorted(self._begin + family)] - family, largest
