"""Depth metrics: slow reference, masks, parts, compute groups, empty input, messages."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from mtl.errors import TaskError
from mtl.metrics import AbsoluteError, RelativeError


def batch(seed, samples=3):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(samples, 1, 4, 5, generator=generator)
    target = torch.rand(samples, 1, 4, 5, generator=generator) * 10
    holes = torch.rand(samples, 1, 4, 5, generator=generator)
    target[holes < 0.2] = 0.0
    target[(holes > 0.2) & (holes < 0.3)] = float("nan")
    target[(holes > 0.3) & (holes < 0.35)] = float("inf")
    return prediction, target


def slow(prediction, target):
    pairs = [
        (p, g)
        for p, g in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True)
        if np.isfinite(g) and g > 0
    ]
    return np.mean([abs(p - g) for p, g in pairs]), np.mean([abs(p - g) / g for p, g in pairs])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_is_the_slow_definition(seed):
    prediction, target = batch(seed)
    for metric, expected in zip(
        (AbsoluteError(), RelativeError()), slow(prediction, target), strict=True
    ):
        metric.update(prediction, target)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("metric", [AbsoluteError, RelativeError])
def test_updates_and_processes_add_up(metric):
    prediction, target = batch(1, samples=6)
    whole, parts, left, right = (metric() for _ in range(4))
    whole.update(prediction, target)
    for i in range(6):
        parts.update(prediction[i : i + 1], target[i : i + 1])
        (left if i < 2 else right).update(prediction[i : i + 1], target[i : i + 1])
    left.merge_state(right)
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=1e-13, atol=0)
    torch.testing.assert_close(left.compute(), whole.compute(), rtol=1e-13, atol=0)


def test_small_errors_survive_large_sums():
    metric = AbsoluteError()
    metric.absolute = metric.absolute + 1e9
    metric.update(torch.ones(10), torch.full((10,), 1.5))
    assert metric.absolute.item() == 1e9 + 5


@pytest.mark.parametrize("metric", [AbsoluteError, RelativeError])
@pytest.mark.parametrize("samples", [0, 2])
def test_nothing_valid_is_nan_without_a_warning(metric, samples):
    instance = metric()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance.update(torch.ones(samples, 1, 2, 2), torch.zeros(samples, 1, 2, 2))
        assert instance.compute().isnan()
    instance.update(*batch(2))
    assert instance.compute().isfinite()


def test_group_formed_on_an_empty_first_batch_stays_right():
    collection = MetricCollection({"absolute": AbsoluteError(), "relative": RelativeError()})
    collection.update(torch.ones(1, 1, 4, 5), torch.zeros(1, 1, 4, 5))
    assert list(collection.compute_groups.values()) == [["absolute", "relative"]]
    collection.update(*batch(3))
    values = collection.compute()
    expected = slow(*batch(3))
    assert (values["absolute"].item(), values["relative"].item()) == pytest.approx(expected)


def test_a_nan_prediction_shows():
    metric = AbsoluteError()
    metric.update(torch.tensor([float("nan"), 1.0]), torch.tensor([0.0, 1.0]))
    assert metric.compute().item() == 0.0
    metric.update(torch.tensor([float("nan")]), torch.tensor([1.0]))
    assert metric.compute().isnan()


def test_broadcasting_is_refused():
    with pytest.raises(TaskError, match=r"RelativeError: expected .* same shape"):
        RelativeError().update(torch.ones(2, 1, 3, 3), torch.ones(2, 3, 3))


def test_directions():
    assert AbsoluteError.higher_is_better is False
    assert RelativeError.higher_is_better is False
