import itertools

import numpy as np
import pytest

from mtl.boosting import growing
from mtl.boosting.binning import Binner, Codes
from mtl.boosting.growing import grow
from mtl.boosting.trees import Growth


def binned(x, categorical=None, bins=255):
    categorical = np.zeros(x.shape[1], bool) if categorical is None else np.array(categorical)
    return Binner(bins, categorical).fit(x, 0).transform(x)


def loss_of(groups, grad, hess, l2):
    return -sum(
        (grad[:, g].sum(1) ** 2 / (hess[:, g].sum(1) + l2)).sum() for g in groups if g.any()
    )


def best_stump(x, grad, hess, l2, min_leaf):
    """Least quadratic loss over all splits, missing values on either side, by trying all."""
    best = np.inf
    for column in x.T:
        missing = np.isnan(column)
        for cut in np.unique(column[~missing]):
            for with_missing in (False, True):
                left = np.where(missing, with_missing, column <= cut)
                if min(left.sum(), (~left).sum()) >= min_leaf:
                    best = min(best, loss_of([left, ~left], grad, hess, l2))
    return best


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("min_leaf", [1, 8])
@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_a_stump_is_the_best_one(outputs, min_leaf, holes):
    random = np.random.default_rng(outputs)
    x = random.normal(size=(40, 3))
    x[random.random(x.shape) < holes] = np.nan
    grad, hess = random.normal(size=(outputs, 40)), random.uniform(0.5, 2, (outputs, 40))
    grown, leaf = grow(binned(x), grad[None], hess[None], Growth(1, min_leaf, 0.5, 1.0))
    groups = [leaf[0] == 0, leaf[0] == 1]
    expected = best_stump(x, grad, hess, 0.5, min_leaf)
    np.testing.assert_allclose(loss_of(groups, grad, hess, 0.5), expected)
    for k, group in enumerate(groups):
        value = grad[:, group].sum(1) / (hess[:, group].sum(1) + 0.5)
        np.testing.assert_allclose(grown.leaves[0, :, k], value)


def test_categories_are_split_as_the_best_subset():
    random = np.random.default_rng(0)
    x = random.integers(0, 6, (60, 1)).astype(float)
    grad = random.normal(size=(1, 60))
    _, leaf = grow(binned(x, [True]), grad[None], None, Growth(1, 1, 0.0, 1.0))
    ones = np.ones((1, 60))
    best = min(
        loss_of([np.isin(x[:, 0], subset), ~np.isin(x[:, 0], subset)], grad, ones, 0.0)
        for size in range(1, 6)
        for subset in itertools.combinations(range(6), size)
    )
    np.testing.assert_allclose(loss_of([leaf[0] == 0, leaf[0] == 1], grad, ones, 0.0), best)


def test_each_level_takes_the_split_that_is_best_for_all_nodes_together():
    random = np.random.default_rng(1)
    x, grad = random.normal(size=(50, 2)), random.normal(size=(1, 50))
    _, leaf = grow(binned(x), grad[None], None, Growth(2, 1, 0.0, 1.0))
    first, ones = leaf[0] >> 1, np.ones((1, 50))
    options = [
        loss_of([(first == a) & (side == b) for a in (0, 1) for b in (0, 1)], grad, ones, 0.0)
        for column in x.T
        for side in (column <= cut for cut in column)
    ]
    found = loss_of([leaf[0] == k for k in range(4)], grad, ones, 0.0)
    np.testing.assert_allclose(found, min(options))


def test_trees_of_tasks_and_families_are_those_grown_alone():
    random = np.random.default_rng(2)
    x = random.normal(size=(90, 3))
    x[:, 2] = random.integers(0, 4, 90)
    codes, task = binned(x, [False, False, True]), np.repeat([0, 1, 2], [50, 30, 10])
    grad = random.normal(size=(2, 1, 90))
    growth = Growth(2, 3, 1.0, 0.1)
    together, leaf = grow(codes, grad, None, growth, root=task, roots=3)
    for family, t in itertools.product(range(2), range(3)):
        rows = np.flatnonzero(task == t)
        alone, own_leaf = grow(codes, grad[family, None], None, growth, rows=rows)
        np.testing.assert_array_equal(own_leaf[0, rows], leaf[family, rows])
        np.testing.assert_allclose(alone.leaves[0], together.leaves[3 * family + t], atol=1e-12)


def test_features_of_few_bins_count_the_same_together_and_alone(monkeypatch):
    random = np.random.default_rng(3)
    x = random.integers(0, 3, (3000, 7)).astype(float)
    x[random.random(x.shape) < 0.1] = np.nan
    x[:, 6] = random.normal(size=3000)
    grad = (x[:, 0] == 1) * 2.0 + (np.nan_to_num(x[:, 3], nan=5) > 1) + random.normal(size=3000)
    growth = Growth(3, 5, 1.0, 1.0)
    codes = binned(x)
    assert max(len(bundle.features) for bundle in codes.bundles) > 2
    together, leaf = grow(codes, grad[None, None], None, growth)
    alone = Codes(codes.values, codes.sizes, codes.categorical, codes.missing)
    monkeypatch.setattr("mtl.boosting.binning._JOINT", 1)
    assert max(len(bundle.features) for bundle in alone.bundles) == 1
    separate, own_leaf = grow(alone, grad[None, None], None, growth)
    np.testing.assert_array_equal(leaf, own_leaf)
    np.testing.assert_allclose(together.leaves, separate.leaves)


def test_chunks_of_features_change_nothing(monkeypatch):
    random = np.random.default_rng(4)
    x, grad = random.normal(size=(300, 5)), random.normal(size=(1, 1, 300))
    whole, _ = grow(binned(x), grad, None, Growth(2, 1, 0.0, 1.0))
    monkeypatch.setattr(growing, "_CELLS", 1)
    pieces, _ = grow(binned(x), grad, None, Growth(2, 1, 0.0, 1.0))
    np.testing.assert_array_equal(whole.feature, pieces.feature)
    np.testing.assert_allclose(whole.leaves, pieces.leaves)


def test_rows_that_do_not_count_get_a_leaf_and_change_nothing():
    random = np.random.default_rng(5)
    x, grad = random.normal(size=(80, 2)), random.normal(size=(1, 1, 80))
    rows = np.arange(0, 80, 2)
    before, leaf = grow(binned(x), grad, None, Growth(2, 1, 0.0, 1.0), rows=rows)
    grad[:, :, 1::2] = 1e6
    after, _ = grow(binned(x), grad, None, Growth(2, 1, 0.0, 1.0), rows=rows)
    np.testing.assert_array_equal(before.leaves, after.leaves)
    np.testing.assert_array_equal(leaf[0], before.leaf(binned(x).values, 0))


def test_small_leaves_take_the_value_of_their_parent():
    x = np.array([[0.0], [0.0], [0.0], [1.0]] * 5)
    x[3, 0] = 2.0
    grad = np.where(x == 2, 100.0, x)[:, 0][None, None]
    grown, leaf = grow(binned(x), grad, None, Growth(2, 3, 0.0, 1.0))
    rare = grown.leaves[0, 0, leaf[0, 3]]
    np.testing.assert_allclose(rare, grad[0, 0][x[:, 0] > 0].mean())


def test_boundaries_lie_in_the_middle_of_a_gap():
    task = np.repeat([0, 1], [4, 20])
    x = np.concatenate([[0.0, 1.0, 9.0, 10.0], np.linspace(0, 10, 20)])[:, None]
    grad = np.concatenate([[0.0, 0.0, 1.0, 1.0], np.zeros(20)])[None, None]
    binner = Binner(255, np.zeros(1, bool)).fit(x, 0)
    grown, _ = grow(binner.transform(x), grad, None, Growth(1, 1, 0.0, 1.0), root=task, roots=2)
    assert 4 < binner.thresholds[0][int(grown.high[0, 0]) - 1] < 6


@pytest.mark.parametrize("bins", [2, 7, 255])
@pytest.mark.parametrize("kind", ["normal", "skewed", "few", "constant"])
def test_bins_are_intervals_of_similar_size(bins, kind):
    random = np.random.default_rng(0)
    column = {
        "normal": random.normal(size=5000),
        "skewed": np.exp(6 * random.normal(size=5000)),
        "few": random.integers(0, 5, 5000).astype(float),
        "constant": np.ones(5000),
    }[kind]
    column[::10] = np.nan
    binner = Binner(bins, np.zeros(1, bool)).fit(column[:, None], 0)
    codes = binner.transform(column[:, None])
    own = codes.values[0]
    known = ~np.isnan(column)
    np.testing.assert_array_equal(own == 0, ~known)
    expected = np.searchsorted(binner.thresholds[0], column[known]) + 1
    np.testing.assert_array_equal(own[known], expected)
    assert codes.sizes[0] <= bins + 1
    if kind in ("normal", "skewed"):
        counts = np.bincount(own[known])[1:]
        assert len(counts) == bins
        assert counts.max() <= 4500 / bins + 2


def test_merged_bins_grow_trees_that_hold_on_the_fine_bins():
    random = np.random.default_rng(6)
    x = random.normal(size=(400, 3))
    x[:, 1] = random.integers(0, 40, 400)
    codes = binned(x, [False, True, False])
    coarse, width = codes.merged(16)
    assert coarse.sizes[0] <= 17
    assert coarse.sizes[1] == codes.sizes[1]
    grown, leaf = grow(coarse, random.normal(size=(1, 1, 400)), None, Growth(3, 2, 0.0, 1.0))
    np.testing.assert_array_equal(grown.refined(width, codes).leaf(codes.values, 0), leaf[0])
