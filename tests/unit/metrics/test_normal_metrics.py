"""Normal metrics: slow reference, histogram accuracy, groups, parts, empty input, messages."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from mtl.errors import ConfigError, TaskError
from mtl.metrics import MeanAngle, MedianAngle, WithinAngle, normals

FACTORIES = [MeanAngle, MedianAngle, lambda: WithinAngle(30)]
each = pytest.mark.parametrize("make", FACTORIES, ids=["mean", "median", "within"])


def batch(seed, samples=3, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(samples, 3, 4, 5, generator=generator)
    target = target / target.norm(dim=1, keepdim=True)
    prediction = 3 * (target + spread * torch.randn(samples, 3, 4, 5, generator=generator))
    holes = torch.rand(samples, 1, 4, 5, generator=generator)
    target = target.masked_fill(holes < 0.2, 0.0).masked_fill(holes > 0.9, float("nan"))
    return prediction, target


def slow(prediction, target):
    """All angles in degrees, one pixel at a time."""
    angles = []
    p, n = prediction.double().numpy(), target.double().numpy()
    for b, i, j in np.ndindex(p.shape[0], *p.shape[2:]):
        q, g = p[b, :, i, j], n[b, :, i, j]
        if np.isfinite(g).all() and g.any():
            cosine = q @ g / np.linalg.norm(q) / np.linalg.norm(g)
            angles.append(math.degrees(math.acos(min(1.0, max(-1.0, cosine)))))
    return np.array(angles)


def metrics():
    return {
        "mean": MeanAngle(),
        "median": MedianAngle(),
        "within_11": WithinAngle(11.25),
        "within_22": WithinAngle(22.5),
        "within_30": WithinAngle(30),
    }


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.01, 3.0))
def test_is_the_slow_definition(seed, spread):
    prediction, target = batch(seed, spread=spread)
    angles = slow(prediction, target)
    collection = MetricCollection(metrics())
    collection.update(prediction, target)
    values = {name: value.item() for name, value in collection.compute().items()}
    assert values["mean"] == pytest.approx(angles.mean(), rel=1e-9)
    assert abs(values["median"] - torch.tensor(angles).median().item()) <= 0.01
    for name, threshold in (("within_11", 11.25), ("within_22", 22.5), ("within_30", 30.0)):
        assert values[name] == pytest.approx((angles < threshold).mean(), rel=1e-12)


def test_median_is_interpolated_inside_its_bin():
    metric = MedianAngle()
    metric.histogram[1000] = 10
    metric.histogram[1200] = 3
    metric._update_count = 1
    assert metric.compute().item() == pytest.approx(10.0 + 0.01 * 6.5 / 10)


def test_median_is_global_and_not_a_mean_of_batches():
    metric = MedianAngle()
    target = torch.tensor([[1.0, 0.0, 0.0]])
    for degrees, count in ((10.0, 9), (80.0, 1)):
        radians = math.radians(degrees)
        prediction = torch.tensor([[math.cos(radians), math.sin(radians), 0.0]])
        metric.update(prediction.repeat(count, 1), target.repeat(count, 1))
    assert metric.compute().item() == pytest.approx(10.0, abs=0.011)


def test_one_histogram_for_all(monkeypatch):
    calls, angles_of = [], normals._angles
    monkeypatch.setattr(normals, "_angles", lambda *args: calls.append(1) or angles_of(*args))
    collection = MetricCollection(metrics())
    for seed in range(3):
        collection.update(*batch(seed))
    assert [sorted(group) for group in collection.compute_groups.values()] == [sorted(metrics())]
    assert len(calls) == len(metrics()) + 1 + 1  # the first batch forms the group
    angles = np.concatenate([slow(*batch(seed)) for seed in range(3)])
    values = collection.compute()
    assert values["mean"].item() == pytest.approx(angles.mean())
    assert values["within_30"].item() == pytest.approx((angles < 30).mean())


@each
def test_updates_and_processes_add_up(make):
    prediction, target = batch(1, samples=6)
    whole, parts, left, right = (make() for _ in range(4))
    whole.update(prediction, target)
    for i in range(6):
        parts.update(prediction[i : i + 1], target[i : i + 1])
        (left if i < 2 else right).update(prediction[i : i + 1], target[i : i + 1])
    left.merge_state(right)
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=1e-13, atol=0)
    torch.testing.assert_close(left.compute(), whole.compute(), rtol=1e-13, atol=0)


@each
@pytest.mark.parametrize("samples", [0, 2])
def test_nothing_valid_is_nan_without_a_warning(make, samples):
    metric = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(torch.ones(samples, 3, 2, 2), torch.zeros(samples, 3, 2, 2))
        assert metric.compute().isnan()
    metric.update(*batch(2))
    assert metric.compute().isfinite()


@each
def test_an_undefined_prediction_shows(make):
    metric = make()
    target = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    metric.update(torch.tensor([[0.0, 0.0, 1.0], [float("nan")] * 3]), target)
    assert metric.compute().isfinite()
    metric.update(torch.tensor([[float("nan")] * 3, [0.0, 0.0, 1.0]]), target)
    assert metric.compute().isnan()


def test_extreme_angles():
    target = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.2]]), dim=1)
    for factor, expected in ((5.0, 0.0), (-5.0, 180.0), (0.0, 90.0)):
        mean, median = MeanAngle(), MedianAngle()
        mean.update(factor * target, target)
        median.update(factor * target, target)
        assert mean.compute().item() == pytest.approx(expected, abs=1e-5)
        assert median.compute().item() == pytest.approx(expected, abs=0.01)


def test_half_precision_predictions():
    prediction, target = batch(4)
    metric = MeanAngle()
    metric.update(prediction.bfloat16(), target)
    assert metric.compute().item() == pytest.approx(slow(prediction, target).mean(), abs=0.2)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 181.0, 11.2501, float("nan")])
def test_thresholds_off_the_grid_are_refused(threshold):
    with pytest.raises(ConfigError, match="threshold: expected degrees"):
        WithinAngle(threshold)


def test_threshold_of_180_takes_all():
    metric = WithinAngle(180)
    metric.update(*batch(0, spread=5.0))
    assert metric.compute().item() == 1.0


def test_misfit_and_directions():
    with pytest.raises(TaskError, match=r"MeanAngle: expected .* same shape"):
        MeanAngle().update(torch.ones(2, 3, 2, 2), torch.ones(2, 3, 4, 4))
    assert (MeanAngle.higher_is_better, MedianAngle.higher_is_better) == (False, False)
    assert WithinAngle(30).higher_is_better is True
