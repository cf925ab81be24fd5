"""CAGrad: no gap between primal and dual, and the limits of its radius."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy import references
from benchmarks.accuracy.families import COUNTS, FAMILIES, rows_of
from mtl.aggregation import CAGradWeighting, DualProjWeighting
from mtl.errors import ConfigError
from tests.unit.aggregation.families import direction, gradients


def check_optimal(rows, c, tolerance=1e-9):
    """The gap between `min_i <g_i, d>` and the dual objective bounds the error of both."""
    count = len(rows)
    weights = CAGradWeighting(c=c)(rows @ rows.T)
    assert bool((weights >= (1 - 1e-12) / count).all())
    mean = rows.mean(0)
    radius = c * mean.norm()
    update = weights @ rows
    assert float((update - mean).norm()) <= float(radius) * (1 + 1e-9)
    extra = weights - 1 / count
    simplex = extra / extra.sum() if extra.sum() > 0 else torch.full_like(extra, 1 / count)
    worst = simplex @ rows
    dual = worst @ mean + radius * worst.norm()
    primal = (rows @ update).min()
    size = (1 + c) * mean.norm() * (simplex @ rows.norm(dim=1))
    assert float((dual - primal).abs()) <= tolerance * float(size)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_there_is_no_duality_gap(c, count, family):
    for seed in range(3):
        check_optimal(rows_of(family, count, seed), c)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=gradients, c=st.floats(0.01, 0.95))
def test_there_is_no_duality_gap_for_any_radius(rows, c):
    check_optimal(rows, c)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [2, 3, 10])
def test_golden(count, family):
    for seed in range(5):
        rows = rows_of(family, count, seed)
        weights = references.cagrad(rows.numpy(), 0.5)
        if weights is None:
            continue  # no direction helps all tasks
        expected = torch.from_numpy(weights) @ rows
        found = direction(CAGradWeighting(c=0.5), rows)
        assert float((found - expected).norm()) < 1e-9 * float(expected.norm())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=gradients)
def test_the_order_of_tasks_does_not_matter(rows):
    found = direction(CAGradWeighting(), rows.flip(0))
    size = float(rows.norm(dim=1).max())
    torch.testing.assert_close(found, direction(CAGradWeighting(), rows), rtol=0, atol=1e-6 * size)


def test_radius_zero_is_the_mean_and_radius_one_harms_no_task():
    rows = rows_of("conflict", 5)
    assert CAGradWeighting(c=0.0)(rows @ rows.T).tolist() == [0.2] * 5
    for seed in range(10):
        rows = rows_of("conflict", 5, seed)
        assert bool((rows @ direction(CAGradWeighting(c=1.0), rows) >= -1e-9).all())


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_a_common_factor_goes_through(scale):
    rows = rows_of("spread100", 5)
    weights = CAGradWeighting()(scale**2 * (rows @ rows.T))
    torch.testing.assert_close(weights, CAGradWeighting()(rows @ rows.T))


def test_without_a_direction_that_helps_it_is_the_projection_of_the_mean():
    rows = torch.tensor([[1.0, 0.0], [-0.5, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = direction(DualProjWeighting(), rows)
    torch.testing.assert_close(direction(CAGradWeighting(), rows), expected)
    rows = torch.tensor([[1.0, 0.2], [-0.4, 0.1], [0.0, 0.0]], dtype=torch.float64)
    update = direction(CAGradWeighting(c=0.9), rows)
    torch.testing.assert_close(update, direction(DualProjWeighting(), rows))


def test_like_libmtl():
    rows = rows_of("gauss", 4)
    paper, libmtl = CAGradWeighting(c=0.5), CAGradWeighting(c=0.5, like="libmtl")
    torch.testing.assert_close(libmtl(rows @ rows.T) * 1.25, paper(rows @ rows.T))


@pytest.mark.parametrize("options", [{"c": -0.1}, {"like": "other"}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="should be"):
        CAGradWeighting(**options)
