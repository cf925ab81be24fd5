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
        self._feature = np.searchsorted(offset, place, side="right") - 1
        rows = self._rows[self._root]
        seen = features * first[self._root] + self._feature * rows
        self._left = np.cumsum(counts[occupied]) - seen
        self._right = np.maximum(rows - self._left, 1)
        fits = (self._left >= growth.min_leaf) & (rows - self._left >= growth.min_leaf)
        self._factor = np.where(fits, rows / (self._left * self._right), 0.0)
        bin_ = place - offset[self._feature]
        self._high = (bin_ + np.append(bin_[1:], 0) - 1) // 2
        self._low = np.where(2 * self._left >= rows, 0, 1)

    def grow(self, grad: Floats) -> tuple[Trees, Floats]:
        """Grows F * R stumps from negative gradients [F, K, n].

        Returns:
            The stumps, all roots of the first family first, and their values [F, K, n].
        """
        grown = [self._grow(family) for family in grad]
        feature, low, high, leaves, gain, values = map(np.concatenate, zip(*grown, strict=True))
        bins = self._values.dtype
        trees = Trees(
            feature=feature.astype(np.int32)[:, None],
            low=low.astype(bins)[:, None],
            high=high.astype(bins)[:, None],
            right=None,
            leaves=leaves,
            gain=gain[:, None],
        )
        return trees, values.reshape(grad.shape)

    def _grow(self, grad: Floats) -> tuple[Ints, Ints, Ints, Floats, Floats, Floats]:
        """Feature, low, high [R], leaves [R, K, 2], gain [R] and values [K, n] of one family."""
        mean = np.add.reduceat(grad, self._first, axis=1) / self._rows
        centred = grad - np.repeat(mean, self._rows, axis=1)
        left = np.array([(self._ones @ row).cumsum() for row in centred])
        cell, gain = self._best(np.square(left).sum(0) * self._factor)
        moved = left[:, cell] * (gain > 0)
        sides = np.stack([mean + moved / self._left[cell], mean - moved / self._right[cell]])
        sides *= self._scale
        feature = np.where(gain > 0, self._feature[cell], 0)
        low = np.where(gain > 0, self._low[cell], 0)
        high = np.where(gain > 0, self._high[cell], self._values.max(initial=0))
        row = np.repeat(feature * self._values.shape[1], self._rows) + np.arange(grad.shape[1])
        outside = self._values.take(row) > np.repeat(high, self._rows)
        values = np.where(outside, *np.repeat(sides[::-1], self._rows, axis=2))
        return feature, low, high, sides.transpose(2, 1, 0), gain, values

    def _best(self, gain: Floats) -> tuple[Ints, Floats]:
        """The first cell of largest gain in each root, and that gain [R].

        Gains are equal up to rounding, so that the order of additions decides nothing.
        """
        largest = np.maximum.reduceat(gain, self._begin)
        near = np.flatnonzero(gain >= (largest * _NEAR)[self._root])
        return near[np.searchsorted(near, self._begin)], largest
