"""Grows symmetric trees from histograms, those of all tasks and gated functions in one pass."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from mtl.boosting.binning import MISSING, Bundle, Codes
from mtl.boosting.trees import Growth, Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CELLS = 1 << 21
_TINY = 1e-300
_NEAR = 1 - 1e-9


def grow(
    codes: Codes,
    grad: Floats,
    hess: Floats | None,
    growth: Growth,
    *,
    weight: Floats | None = None,
    rows: Ints | None = None,
    root: Ints | None = None,
    roots: int = 1,
    features: Ints | None = None,
) -> tuple[Trees, Ints]:
    """Grows F * R trees in one pass, one for each family of gradients and each root.

    Every tree lowers sum_i (-g_i v + h_i v^2 / 2) + l2 v^2 / 2 over its leaf values v, by the
    greedy choice of one split a level; K outputs share the splits and have vector leaves.

    Args:
        codes: Binned features of n rows.
        grad: Negative gradients [F, K, n].
        hess: Curvatures [F, 1 or K, n], or None for one a row.
        growth: Depth and limits of the leaves.
        weight: How often each row counts towards `min_leaf` [n]; None for once.
        rows: Rows that count; None for all. The others only get a leaf.
        root: Root of each row [n], below `roots`; None with a single root.
        roots: R.
        features: Features that may split; None for all.

    Returns:
        The trees, all roots of the first family first, and the leaf of every row [F, n].
    """
    return _Grower(codes, grad, hess, growth, weight, rows, root, roots, features).run()


class _Grower:
    """The state while trees grow; sums are [channels + 1, F, nodes, ...], counts last."""

    def __init__(
        self,
        codes: Codes,
        grad: Floats,
        hess: Floats | None,
        growth: Growth,
        weight: Floats | None,
        rows: Ints | None,
        root: Ints | None,
        roots: int,
        features: Ints | None,
    ) -> None:
        self.codes, self.growth, self.rows = codes, growth, rows
        self.root, self.roots = root, roots
        features = np.arange(len(codes.sizes)) if features is None else features
        self._wanted = set(features.tolist())
        self.families, self.outputs, n = grad.shape
        channels = grad if hess is None else np.concatenate([grad, hess], axis=1)
        self.channels = channels if rows is None else channels[:, :, rows]
        self.weight = weight if weight is None or rows is None else weight[rows]
        self.path = np.zeros((self.families, n), dtype=np.int64)
        trees, depth, dtype = self.families * roots, growth.depth, codes.values.dtype
        categories = codes.categorical[features].any()
        self.trees = Trees(
            feature=np.zeros((trees, depth), np.int32),
            low=np.zeros((trees, depth), dtype),
            high=np.full((trees, depth), np.iinfo(dtype).max),
            right=np.zeros((trees, depth, codes.sizes.max()), bool) if categories else None,
            leaves=np.zeros((trees, self.outputs, 1 << depth)),
            gain=np.zeros((trees, depth)),
        )

    def run(self) -> tuple[Trees, Ints]:
        for level in range(self.growth.depth):
            width = 1 << level
            nodes = self._nodes(width)
            for bundles in self._chunks(width):
                self._split(level, bundles, nodes)
            for family, path in enumerate(self.path):
                tree = family if self.root is None else family * self.roots + self.root
                path <<= 1
                path |= self.trees.goes_right(self.codes.values, tree, level)
        self._fill_leaves()
        return self.trees, self.path

    def _nodes(self, width: int) -> list[Ints | None]:
        """Node of every counting row in each family; None where there is only one."""
        if width == 1 and self.root is None:
            return [None] * self.families
        nodes = self.path if self.root is None else self.root * width + self.path
        return list(nodes if self.rows is None else nodes[:, self.rows])

    def _chunks(self, width: int) -> list[list[Bundle]]:
        """Groups of bundles whose histograms fit into the cache together."""
        nodes = width * self.families * self.roots
        chunks: list[list[Bundle]] = []
        cells = _CELLS
        for bundle in self.codes.bundles:
            if not self._wanted.isdisjoint(bundle.features):
                more = sum(bundle.bins) * nodes
                cells += more
                if cells > _CELLS:
                    chunks.append([])
                    cells = more
                chunks[-1].append(bundle)
        return chunks

    def _sums(self, index: list[Ints | NDArray], size: int, counts: Ints | None = None) -> Floats:
        """Sums [channels + 1, F, size] of the rows by their index in each family."""
        sums = np.empty((self.channels.shape[1] + 1, self.families, size))
        for family, own in enumerate(index):
            for c, weights in enumerate(self.channels[family]):
                sums[c, family] = np.bincount(own, weights, size)
            if counts is not None:
                sums[-1, family] = counts
            else:
                sums[-1, family] = np.bincount(own, self.weight, size)
        return sums

    def _histogram(
        self, bundles: list[Bundle], nodes: list[Ints | None], width: int
    ) -> tuple[Floats, Ints]:
        """Sums [channels + 1, F, R * width, bins of all features], and the features in order."""
        count = self.roots * width
        parts, features = [], []
        for bundle in bundles:
            joint = len(bundle.features) > 1 and 2 * count * prod(bundle.bins) <= len(self.codes)
            if joint:
                sums = self._node_sums(bundle.codes, nodes, prod(bundle.bins), count)
            for place, j in enumerate(bundle.features):
                if j not in self._wanted:
                    continue
                size = int(self.codes.sizes[j])
                if joint:
                    parts.append(_margin(sums, bundle, place, size))
                else:
                    parts.append(self._node_sums(self.codes.values[j], nodes, size, count))
                features.append(j)
        return np.concatenate(parts, axis=-1), np.array(features)

    def _node_sums(self, codes: NDArray, nodes: list[Ints | None], size: int, count: int) -> Floats:
        """Sums [channels + 1, F, nodes, codes]."""
        code = codes if self.rows is None else codes[self.rows]
        index = [code if node is None else node * size + code for node in nodes]
        counts = None
        if count == self.roots and self.rows is None and self.weight is None:
            counts = self.codes.counts(codes, index[0], count * size)
        sums = self._sums(index, count * size, counts)
        return sums.reshape(*sums.shape[:2], count, size)

    def _score(self, sums: Floats) -> Floats:
        """Twice the decrease of the loss's quadratic model by the best leaf values."""
        grad, hess = sums[: self.outputs], sums[self.outputs :]
        curvature = hess[:-1] if len(hess) > 1 else hess
        return _channel_sum(grad * grad / (curvature + (self.growth.l2 + _TINY)))

    def _gains(self, left: Floats, total: Floats, width: int) -> Floats:
        """Gain [trees, bins] of putting the sums `left` on one side."""
        right = total - left
        gain = self._score(left) + self._score(right) - self._score(total)
        few = self.growth.min_leaf
        gain[(left[-1] < few) | (right[-1] < few)] = 0
        gain = gain.reshape(self.families * self.roots, width, -1)
        return gain[:, 0] if width == 1 else gain.sum(1)

    def _split(self, level: int, bundles: list[Bundle], nodes: list[Ints | None]) -> None:
        """Takes the best split of these features where it beats those found before."""
        width = 1 << level
        histogram, chunk = self._histogram(bundles, nodes, width)
        sizes = self.codes.sizes[chunk]
        starts = np.cumsum(sizes) - sizes
        order = self._sort_categories(histogram, chunk, starts, width)
        left = np.cumsum(histogram, axis=-1)
        total = left[..., sizes[0] - 1 : sizes[0]].copy()
        before = left[..., starts] - histogram[..., starts]
        left -= np.repeat(before, sizes, axis=-1)
        gain = self._gains(left, total, width)
        both = self.codes.missing[chunk] & ~self.codes.categorical[chunk]
        if both.any():
            lost = np.repeat(np.where(both, histogram[..., starts], 0), sizes, axis=-1)
            gain = np.concatenate([gain, self._gains(left - lost, total, width)], axis=1)
        best, size = _middle_of_best(gain), left.shape[-1]
        value = gain[np.arange(len(gain)), best]
        better = np.flatnonzero(value * _NEAR > self.trees.gain[:, level])
        best = best[better]
        bin_, missing_right = best % size, best >= size
        place = np.searchsorted(starts, bin_, side="right") - 1
        low = np.where(missing_right, 1, 0)
        unseen = ~both[place]
        low[unseen] = ~self._left_is_larger(left, total, width, better, bin_)[unseen]
        trees = self.trees
        trees.gain[better, level] = value[better]
        trees.feature[better, level] = chunk[place]
        trees.low[better, level] = low
        trees.high[better, level] = bin_ - starts[place]
        if trees.right is not None:
            codes = np.arange(trees.right.shape[-1])
            high = trees.high[better, level, None]
            trees.right[better, level] = (codes < low[:, None]) | (codes > high)
            for k, sorted_bins in order.items():
                self._mark_categories(better, place == k, sorted_bins, low, level)

    def _left_is_larger(
        self, left: Floats, total: Floats, width: int, trees: Ints, bin_: Ints
    ) -> NDArray[np.bool_]:
        shape = (self.families * self.roots, width, -1)
        count = left[-1].reshape(shape)[trees, :, bin_].sum(1)
        return 2 * count >= total[-1].reshape(shape)[trees, :, 0].sum(1)

    def _sort_categories(
        self, histogram: Floats, chunk: Ints, starts: Ints, width: int
    ) -> dict[int, Ints]:
        """Sorts the bins of categorical features by their mean gradient, each tree for itself.

        With several outputs, by its component along the first principal axis over the bins.

        Returns:
            Place in the chunk -> the sorted bins [trees, bins].
        """
        orders = {}
        for k in np.flatnonzero(self.codes.categorical[chunk]):
            part = histogram[..., starts[k] : starts[k] + self.codes.sizes[chunk[k]]]
            split = (len(part), self.families, self.roots, width, -1)
            sums = part.reshape(split).sum(3).reshape(len(part), self.families * self.roots, -1)
            grad, weight = sums[: self.outputs], sums[self.outputs] + max(self.growth.l2, _TINY)
            axis = np.linalg.eigh(np.einsum("kqb,lqb,qb->qkl", grad, grad, 1 / weight))[1][..., -1]
            order = np.argsort(np.einsum("kqb,qk->qb", grad, axis) / weight, kind="stable")
            index = np.repeat(order, width, axis=0).reshape(part.shape[1:])
            part[...] = np.take_along_axis(part, index[None], axis=-1)
            orders[int(k)] = order
        return orders

    def _mark_categories(
        self, trees: Ints, chosen: NDArray[np.bool_], order: Ints, low: Ints, level: int
    ) -> None:
        """Writes which categories go right, for the trees that chose this feature."""
        right = self.trees.right
        assert right is not None
        own = trees[chosen]
        rank = np.argsort(order[own], axis=1)
        right[own, level, : rank.shape[1]] = rank > self.trees.high[own, level, None]
        unseen = ~self.codes.missing[self.trees.feature[own, level]]
        right[own[unseen], level, MISSING] = low[chosen][unseen] > 0

    def _fill_leaves(self) -> None:
        """Values from the deepest ancestor with enough rows."""
        depth, count = self.growth.depth, len(self.trees.feature)
        nodes = self._nodes(1 << depth)
        sums = self._sums([n for n in nodes if n is not None], self.roots << depth)
        sums = sums.reshape(len(sums), count, -1)
        value = np.zeros((self.outputs, count, 1))
        for level in range(depth + 1):
            part = sums.reshape(len(sums), count, 1 << level, -1).sum(-1)
            hess = part[self.outputs :]
            curvature = hess[:-1] if len(hess) > 1 else hess
            own = part[: self.outputs] / (curvature + (self.growth.l2 + _TINY))
            enough = (part[-1] >= self.growth.min_leaf) | (level == 0)
            value = np.where(enough, own, value.repeat(2, axis=-1) if level else value)
        self.trees.leaves = self.growth.scale * value.transpose(1, 0, 2)


def _channel_sum(values: Floats) -> Floats:
    return values[0] if len(values) == 1 else values.sum(0)


def _margin(sums: Floats, bundle: Bundle, place: int, size: int) -> Floats:
    """Sums by the bins of one feature, from those by the joint codes of its bundle."""
    before, own, after = (
        prod(bundle.bins[:place]),
        bundle.bins[place],
        prod(bundle.bins[place + 1 :]),
    )
    margin = np.zeros((*sums.shape[:-1], size))
    margin[..., bundle.empty[place] :] = sums.reshape(*sums.shape[:-1], before, own, after).sum(
        axis=(-3, -1)
    )
    return margin


def _middle_of_best(gain: Floats) -> Ints:
    """The middle of the first run of largest gains in each row [trees, bins].

    Equal neighbours differ by empty bins: the boundary lies in the middle of the gap. Gains are
    equal up to rounding, so that the order of additions decides nothing.
    """
    best = gain.max(axis=1, keepdims=True)
    near = gain >= best * _NEAR
    first = near.argmax(axis=1)
    ended = ~near & (np.arange(gain.shape[1]) > first[:, None])
    last = np.where(ended.any(axis=1), ended.argmax(axis=1) - 1, gain.shape[1] - 1)
    return np.asarray((first + last) // 2)
