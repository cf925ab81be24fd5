import numpy as np
import pytest

from mtl.boosting import RMTGBRegressor, tables
from mtl.boosting.binning import Binner
from mtl.boosting.growing import grow
from mtl.boosting.stumps import LeastSquaresStumps
from mtl.boosting.trees import Growth


def codes_of(x, categorical=False):
    mask = np.full(x.shape[1], categorical)
    return Binner(20, mask).fit(x, 0).transform(x)


@pytest.mark.parametrize("families", [1, 2])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("roots", [1, 4])
@pytest.mark.parametrize("min_leaf", [1, 12])
def test_stumps_of_all_rows_are_those_of_the_general_learner(families, outputs, roots, min_leaf):
    random = np.random.default_rng(0)
    x = random.normal(size=(160, 4))
    x[:, 1] = x[:, 1] > 1
    x[:, 2] = 7.0
    root = np.sort(random.integers(0, roots, 160))
    first = np.searchsorted(root, np.arange(roots))
    codes, growth = codes_of(x), Growth(1, min_leaf, 0.0, 0.1)
    stumps = LeastSquaresStumps(codes, growth, first)
    for _ in range(3):
        grad = random.normal(size=(families, outputs, 160))
        expected, leaf = grow(codes, grad, None, growth, root=root, roots=roots)
        trees, values = stumps.grow(grad)
        for name in ("feature", "low", "high"):
            np.testing.assert_array_equal(getattr(trees, name), getattr(expected, name))
        np.testing.assert_allclose(trees.leaves, expected.leaves, atol=1e-12)
        np.testing.assert_allclose(trees.gain, expected.gain)
        for family in range(families):
            own = expected.leaves[family * roots + root, :, leaf[family]].T
            np.testing.assert_allclose(values[family], own, atol=1e-12)


def test_a_root_without_a_split_has_its_mean():
    x = np.concatenate([np.zeros((10, 1)), np.arange(10.0)[:, None]])
    stumps = LeastSquaresStumps(codes_of(x), Growth(1, 3, 0.0, 1.0), np.array([0, 10]))
    grad = np.concatenate([np.arange(10.0), np.full(10, 2.0)])[None, None]
    _, values = stumps.grow(grad)
    np.testing.assert_allclose(values[0, 0], np.repeat([4.5, 2.0], 10))


@pytest.mark.parametrize("reason", ["missing", "categories", "depth", "l2", "size"])
def test_where_stumps_need_the_general_learner(reason, monkeypatch):
    x, growth = np.random.default_rng(0).normal(size=(30, 2)), Growth(1, 1, 0.0, 0.1)
    assert LeastSquaresStumps.suit(codes_of(x), growth, 1)
    if reason == "missing":
        x[3, 1] = np.nan
    if reason == "size":
        monkeypatch.setattr("mtl.boosting.stumps._ENTRIES", 59)
    growth = Growth(2 if reason == "depth" else 1, 1, float(reason == "l2"), 0.1)
    codes = codes_of(np.abs(x).round(), reason == "categories")
    assert not LeastSquaresStumps.suit(codes, growth, 1)


@pytest.mark.parametrize("settings", ["paper", "own stumps", "deep"])
@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_the_table_of_stumps_is_their_sum(settings, holes, monkeypatch):
    random = np.random.default_rng(1)
    x, task = random.normal(size=(400, 3)), random.integers(0, 5, 400)
    x[random.random(x.shape) < holes] = np.nan
    y = np.column_stack([np.nan_to_num(x[:, 0]) * (task - 1), random.normal(size=400)])
    options = {"n_shared": 3, "n_gated": 4, "n_task": 5, "random_state": 0}
    make = RMTGBRegressor.paper if settings == "paper" else RMTGBRegressor
    if settings == "own stumps":
        options["max_depth_task"] = 1
    with_table = make(**options).fit(x, y, task)
    monkeypatch.setattr(tables, "_LARGEST", 0)
    without = make(**options).fit(x, y, task)
    assert all(without._ensemble.rest)
    tabled = {"paper": [True] * 3, "own stumps": [False, False, True], "deep": [False] * 3}
    assert [not block for block in with_table._ensemble.rest] == tabled[settings]
    with pytest.warns(UserWarning, match="were not there"):
        got = with_table.predict(x, task + 1)
    with pytest.warns(UserWarning, match="were not there"):
        expected = without.predict(x, task + 1)
    np.testing.assert_allclose(got, expected, atol=1e-12)
