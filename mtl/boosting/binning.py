"""One binning of the features, shared by all trees of all blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MISSING = 0
_SAMPLE = 200_000
_JOINT = 256
_CELLS = 2048
_PASSES = 6


@dataclass(frozen=True)
class Bundle:
    """Features of few bins that are counted together, as the digits of one code.

    Attributes:
        features: Which ones.
        empty: Bins at the beginning of each feature that training rows never have: 0 or 1.
        bins: Bins of each feature that they have; the product is the number of joint codes.
        codes: Joint code of each row [n], the first feature's digit first.
    """

    features: list[int]
    empty: list[int]
    bins: list[int]
    codes: NDArray


@dataclass
class Codes:
    """Binned features.

    Attributes:
        values: uint8 or uint16 [d, n], bin of each feature and row; 0 is the bin of missing values.
        sizes: int [d], number of bins of each feature, the missing one included.
        categorical: bool [d].
        missing: bool [d], whether the training rows had missing values.
    """

    values: NDArray
    sizes: NDArray[np.int64]
    categorical: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    _counts: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.values.shape[1]

    def counts(self, codes: NDArray, index: NDArray, size: int) -> NDArray[np.int64]:
        """Rows at each index of the roots, which are the same in every iteration."""
        key = (codes.ctypes.data, size)
        if key not in self._counts:
            self._counts[key] = np.bincount(index, minlength=size)
        return self._counts[key]

    @cached_property
    def bundles(self) -> list[Bundle]:
        """All features, those of few bins in groups of at most 256 joint codes."""
        empty = np.where(self.missing | self.categorical, 0, 1)
        bins = np.maximum(self.sizes - empty, 1)
        groups: list[list[int]] = []
        joint = _JOINT + 1
        for j in np.argsort(bins, kind="stable").tolist():
            joint *= int(bins[j])
            if joint > _JOINT:
                groups.append([])
                joint = int(bins[j])
            groups[-1].append(j)
        return [self._bundle(group, empty, bins) for group in groups]

    def _bundle(
        self, features: list[int], empty: NDArray[np.int64], bins: NDArray[np.int64]
    ) -> Bundle:
        own, radix = empty[features].tolist(), bins[features].tolist()
        if len(features) == 1:
            return Bundle(features, [0], self.sizes[features].tolist(), self.values[features[0]])
        joint = np.zeros(len(self), dtype=np.int64)
        for j, low, base in zip(features, own, radix, strict=True):
            joint *= base
            joint += self.values[j] - low
        return Bundle(features, own, radix, joint.astype(np.uint8))

    def merged(self, bins: int) -> tuple[Codes, NDArray[np.int64]]:
        """Neighbouring bins joined until no numeric feature has more than `bins`.

        Returns:
            The coarser codes, and the number of fine bins in a coarse one for each feature. Fine
            bins (b-1)w+1 .. bw make the coarse bin b; the missing bin stays alone.
        """
        width = np.where(self.categorical, 1, -(-(self.sizes - 1) // bins))
        width = np.maximum(width, 1)
        if (width == 1).all():
            return self, width
        values = np.empty_like(self.values)
        for j, w in enumerate(width):
            values[j] = (self.values[j].astype(np.int64) + (w - 1)) // w
        sizes = -(-(self.sizes - 1) // width) + 1
        return Codes(values, sizes, self.categorical, self.missing), width


@dataclass
class Binner:
    """Quantile bins of numeric features, one bin a category of categorical ones.

    A feature with at most `max_bins` distinct values gets a bin for each, with boundaries in the
    middle of two neighbours, so that no split is lost.

    Args:
        max_bins: Largest number of bins of a numeric feature, without the one of missing values.
        categorical: bool [d]; a categorical feature holds category numbers 0, 1, ... as floats.
    """

    max_bins: int
    categorical: NDArray[np.bool_]
    thresholds: list[NDArray[np.float64]] = field(default_factory=list, init=False)
    categories: dict[int, int] = field(default_factory=dict, init=False)
    missing: NDArray[np.bool_] = field(init=False)

    def fit(self, x: NDArray[np.float64], seed: int) -> Binner:
        """Places the boundaries; of more than 200,000 rows, a sample decides."""
        rows = np.arange(len(x))
        if len(x) > _SAMPLE:
            rows = np.sort(np.random.default_rng(seed).choice(len(x), _SAMPLE, replace=False))
        self.missing = np.array([bool(np.isnan(column).any()) for column in x.T], dtype=bool)
        self.thresholds, self.categories = [], {}
        for j, column in enumerate(x.T):
            if self.categorical[j]:
                self.categories[j] = int(np.nanmax(column, initial=-1)) + 1
                self.thresholds.append(np.empty(0))
            else:
                self.thresholds.append(_boundaries(column[rows], self.max_bins))
        return self

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of bins of each feature, the missing one included."""
        return np.array(
            [self.categories.get(j, len(t) + 1) + 1 for j, t in enumerate(self.thresholds)],
            dtype=np.int64,
        )

    def transform(self, x: NDArray[np.float64]) -> Codes:
        """Bins rows; categories that were not there in `fit` count as missing."""
        sizes = self.sizes
        dtype = np.uint8 if sizes.max(initial=1) <= 256 else np.uint16
        values = np.empty((x.shape[1], len(x)), dtype)
        missing = np.isnan(x)
        holes = np.asarray(missing.any(axis=0))
        for j, column in enumerate(x.T):
            if self.categorical[j]:
                known = (column >= 0) & (column < self.categories[j])
                values[j] = np.where(known, column + 1, MISSING)
                continue
            numbers = np.where(missing[:, j], 0, column) if holes[j] else column
            values[j] = _count_below(numbers, self.thresholds[j]) + 1
            if holes[j]:
                values[j][missing[:, j]] = MISSING
        return Codes(values, sizes, self.categorical, self.missing)


def _boundaries(column: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Upper ends (inclusive) of all bins but the last."""
    values = np.sort(column[~np.isnan(column)])
    distinct = values[np.diff(values, prepend=-np.inf) > 0]
    if len(distinct) > bins:
        inner = np.arange(1, bins) / bins
        cuts = np.unique(np.quantile(values, inner, method="lower"))
        positions = np.searchsorted(distinct, cuts[cuts < distinct[-1]])
    else:
        positions = np.arange(len(distinct) - 1)
    below, above = distinct[positions], distinct[positions + 1]
    middle = below + (above - below) / 2
    return np.where(middle < above, middle, below)


def _count_below(column: NDArray, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """np.searchsorted(thresholds, column), faster where thresholds are spread evenly enough.

    A uniform grid gives a number to start from that is never too large.
    """
    if len(thresholds) < 2 or len(column) < _CELLS:
        return np.searchsorted(thresholds, column)
    low, step = thresholds[0], (thresholds[-1] - thresholds[0]) / _CELLS
    grid = np.searchsorted(thresholds, low + step * np.arange(-1, _CELLS))
    if step <= 0 or not np.isfinite(step) or np.diff(grid, append=len(thresholds)).max() > _PASSES:
        return np.searchsorted(thresholds, column)
    cell = np.clip((column - low) / step, 0, _CELLS - 1).astype(np.int64)
    count = grid[cell]
    upper = np.append(thresholds, np.inf)
    while (more := column > upper[count]).any():
        count += more
    return count
