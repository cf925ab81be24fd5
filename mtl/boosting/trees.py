"""Symmetric trees, many at once.

All nodes of a level of a symmetric (oblivious) tree share one split, so that a leaf is found by
`depth` comparisons of whole columns; a tree of depth one is the ordinary stump.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mtl.boosting.binning import Codes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Growth:
    """How trees grow.

    Args:
        depth: Number of levels.
        min_leaf: Rows a leaf needs; one with fewer takes the value of its parent.
        l2: Added to the curvature of every leaf.
        scale: Factor of the leaf values (the learning rate).
    """

    depth: int
    min_leaf: int
    l2: float
    scale: float


@dataclass
class Trees:
    """Q trees of the same depth with K outputs.

    A row goes right at a level if its bin of `feature` lies outside `low..high`; with categorical
    features, if `right` says so.

    Attributes:
        feature: int [Q, depth]; low, high: bins [Q, depth].
        right: bool [Q, depth, bins], or None without categorical features.
        leaves: float [Q, K, 2**depth], already times the learning rate.
        gain: float [Q, depth], decrease of the loss's quadratic model by each split.
    """

    feature: NDArray[np.int32]
    low: NDArray
    high: NDArray
    right: NDArray[np.bool_] | None
    leaves: Floats
    gain: Floats

    @property
    def stumps(self) -> bool:
        """Whether the trees have one level and no categorical features."""
        return self.feature.shape[1] == 1 and self.right is None

    def leaf(self, codes: NDArray, tree: Ints | int) -> Ints:
        """The leaf [n] of every row in its tree, a tree for all or one for each row [n]."""
        leaf = np.zeros(codes.shape[1], dtype=np.int64)
        for level in range(self.feature.shape[1]):
            leaf <<= 1
            leaf |= self.goes_right(codes, tree, level)
        return leaf

    def goes_right(self, codes: NDArray, tree: Ints | int, level: int) -> NDArray[np.bool_]:
        """Which rows [n] leave the interval of the level's split."""
        feature = self.feature[tree, level]
        rows = slice(None) if np.ndim(tree) == 0 else np.arange(codes.shape[1])
        code = codes[feature, rows]
        if self.right is not None:
            return self.right[tree, level, code]
        return (code < self.low[tree, level]) | (code > self.high[tree, level])

    def refined(self, width: Ints, fine: Codes) -> Trees:
        """The same trees on the bins of `fine`, of which `width` [d] had been merged into one."""
        if (width == 1).all():
            return self
        dtype = fine.values.dtype
        high = np.minimum(self.high * width[self.feature], np.iinfo(dtype).max).astype(dtype)
        right = self.right
        if right is not None:
            codes = np.arange(fine.sizes.max())
            outside = (codes < self.low[..., None]) | (codes > high[..., None])
            known = np.minimum(codes, right.shape[-1] - 1)
            right = np.where(fine.categorical[self.feature][..., None], right[..., known], outside)
        return replace(self, high=high, right=right)

    def predict(self, codes: NDArray, tree: Ints | int) -> Floats:
        """Values [K, n] of rows."""
        leaf = self.leaf(codes, tree)
        if np.ndim(tree) == 0:
            return self.leaves[tree].take(leaf, axis=1)
        return self.leaves[tree, :, leaf].T
