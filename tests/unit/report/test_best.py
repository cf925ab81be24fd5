"""The epoch that is best by the gain over single tasks."""

import math

import pytest

from mtl.report import best_epoch

HIGHER = {"a": {"accuracy": True}, "b": {"error": False, "share": True}}
SINGLE = {"a": {"accuracy": 0.5}, "b": {"error": 2.0, "share": 0.25}}


def row(epoch, accuracy, error, share, **more):
    values = {"val/accuracy/a": accuracy, "val/error/b": error, "val/share/b": share}
    return {"step": 10 * epoch, "epoch": epoch, "val/loss/a": 1.0, **values, **more}


def test_tasks_weigh_the_same():
    """Epoch 1: +20 and (+50 - 20) / 2 = +15, on average 17.5; epoch 2: +30 and 0, 15."""
    rows = [{"step": 1, "epoch": 0, "train/loss/a": 1.0}]
    rows += [row(0, 0.5, 2.0, 0.25), row(1, 0.6, 1.0, 0.2), row(2, 0.65, 2.0, 0.25)]
    found = best_epoch(rows, SINGLE, HIGHER)
    assert found["epoch"] == 1
    assert found["delta_p"] == pytest.approx(17.5)
    assert found["metrics"] == {"a": {"accuracy": 0.6}, "b": {"error": 1.0, "share": 0.2}}


def test_epochs_without_values_are_left_out():
    nan = row(1, math.nan, 0.0, 1.0)
    assert best_epoch([row(0, 0.4, 3.0, 0.1), nan], SINGLE, HIGHER)["epoch"] == 0
    assert best_epoch([nan, {"step": 3, "epoch": 2}], SINGLE, HIGHER) is None
    assert best_epoch([], SINGLE, HIGHER) is None


def test_the_first_of_equal_epochs():
    equal = [row(epoch, 0.5, 2.0, 0.25) for epoch in range(3)]
    assert best_epoch(equal, SINGLE, HIGHER)["epoch"] == 0
