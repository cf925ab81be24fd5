"""Tasks with rows of their own, as networks see them."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.corrupt import Corruption
from benchmarks.tabular.benchmark import ManyTaskTable, OutlierTasks
from mtl.errors import ConfigError, DataError


def everything(loader):
    inputs, targets = {}, {}
    for batch in loader:
        for kept, part in zip((inputs, targets), batch, strict=True):
            for name, value in part.items():
                kept.setdefault(name, []).append(value)
    return [{n: torch.cat(v) for n, v in kept.items()} for kept in (inputs, targets)]


@pytest.fixture
def csv(tmp_path):
    random = np.random.default_rng(0)
    lines = ["age,colour,school,score"]
    for i in range(120):
        age = "" if i % 10 == 0 else f"{random.normal():.3f}"
        lines.append(f"{age},{'red' if i % 3 else 'blue'},no {i % 4}!,{random.normal(i % 4):.3f}")
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines))
    return path


def table(csv, **options):
    made = ManyTaskTable(csv=csv, task_column="school", target_column="score", **options)
    made.setup("fit")
    return made


def test_outliers_are_known_and_rows_are_split():
    made = OutlierTasks(tasks=6, outlier_count=2, train_count=30, val_count=10, test_count=20)
    made.setup("fit")
    assert made.outliers == ("task4", "task5")
    assert made.num_features == 5
    for part, rows in ((made.train_data, 30), (made.val_data, 10), (made.test_data, 20)):
        assert np.bincount(part.arrays["task"]).tolist() == [rows] * 6
    values = made.train_data.arrays["y"]
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, abs=1e-5)


def test_the_data_depend_on_their_own_seed_only():
    first, second, other = (OutlierTasks(seed=s, data_seed=d) for s, d in ((0, 0), (1, 0), (0, 1)))
    for made in (first, second, other):
        made.setup("fit")
    assert np.array_equal(first.train_data.arrays["y"], second.train_data.arrays["y"])
    assert not np.array_equal(first.train_data.arrays["y"], other.train_data.arrays["y"])


def test_batches_have_rows_of_their_tasks_alone():
    made = OutlierTasks(tasks=3, outlier_count=1, train_count=20, batch_size=10)
    made.setup("fit")
    inputs, targets = everything(made.train_dataloader())
    for number, name in enumerate(made.names):
        own = made.train_data.arrays["task"] == number
        assert sorted(targets[name].flatten().tolist()) == sorted(
            made.train_data.arrays["y"][own].flatten().tolist()
        )
        assert inputs[name].shape == (20, 5)


def test_some_of_the_tasks():
    made = OutlierTasks(tasks=4)
    made.chosen = ["task1", "task3"]
    made.setup("fit")
    inputs, _ = next(iter(made.val_dataloader()))
    assert set(inputs) == {"task1", "task3"}


def test_a_table_of_ones_own(csv):
    made = table(csv, batch_size=16)
    assert made.names == ("task_no_0_", "task_no_1_", "task_no_2_", "task_no_3_")
    assert made.num_features == 3  # age, and a column a colour
    sizes = [len(part) for part in (made.train_data, made.val_data, made.test_data)]
    assert sizes == [72, 24, 24]
    values = made.train_data.arrays["x"]
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.mean(0), 0, atol=0.2)
    tasks = made.tasks(lambda size: nn.Linear(3, size))
    assert [task.name for task in tasks] == list(made.names)
    _, targets = everything(made.train_dataloader())
    assert sum(len(v) for v in targets.values()) == 72


def test_spoilt_tasks_keep_their_labels_as_a_set(csv):
    clean, spoilt = table(csv), ManyTaskTable(csv=csv, task_column="school", target_column="score")
    spoilt.corruption = Corruption(fraction=0.25, kind="permute", seed=3)
    spoilt.setup("fit")
    (name,) = spoilt.outliers
    before = everything(clean.train_dataloader())[1]
    after = everything(spoilt.train_dataloader())[1]
    for task in clean.names:
        same = torch.equal(before[task], after[task])
        assert same == (task != name)
        torch.testing.assert_close(before[task].sort(0)[0], after[task].sort(0)[0])
    for part in ("val_data", "test_data"):
        assert np.array_equal(getattr(clean, part).arrays["y"], getattr(spoilt, part).arrays["y"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "`name` or `csv`"),
        ({"name": "exam", "csv": "a.csv"}, "`name` or `csv`"),
        ({"csv": "a.csv"}, "task_column"),
        ({"name": "nothing"}, "nothing"),
    ],
    ids=["neither", "both", "no columns", "unknown"],
)
def test_wrong_options(options, words):
    with pytest.raises(ConfigError, match=words):
        ManyTaskTable(**options)


def test_wrong_columns(csv):
    with pytest.raises(DataError, match=r"'class' .task_column.*school"):
        ManyTaskTable(csv=csv, task_column="class", target_column="score")
    with pytest.raises(DataError, match="colour"):
        ManyTaskTable(csv=csv, task_column="school", target_column="colour")
    with pytest.raises(DataError, match="does not exist"):
        ManyTaskTable(csv="nothing.csv", task_column="a", target_column="b")


def test_wrong_numbers_of_outliers():
    with pytest.raises(ConfigError, match="outliers=5"):
        OutlierTasks(tasks=4, outlier_count=5)
