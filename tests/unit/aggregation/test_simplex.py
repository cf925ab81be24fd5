"""The projection onto the simplex, against a bisection and at every scale of floating point."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.aggregation import MoCo
from mtl.linalg import project_simplex


def bisected(point):
    """`max(x - t, 0)` with the `t` at which the sum is one, in exact enough halvings."""
    values = point.double() - point.double().max()
    low, high = -1.0, 0.0
    for _ in range(80):
        middle = (low + high) / 2
        if float((values - middle).clamp_min(0).sum()) > 1:
            low = middle
        else:
            high = middle
    return (values - high).clamp_min(0)


points = st.builds(
    lambda entries, exponent, dtype: (10.0**exponent * torch.tensor(entries)).to(dtype),
    entries=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12),
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(point=points)
def test_it_is_on_the_simplex_and_nearest(point):
    found = project_simplex(point)
    assert found.dtype == point.dtype
    assert bool((found >= 0).all())
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(found.double(), bisected(point), rtol=0, atol=1e-6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(point=points, seed=st.integers(0, 100))
def test_no_other_point_of_the_simplex_is_nearer(point, seed):
    """`<x - P(x), y - P(x)> <= 0` for all `y` of the simplex; its corners suffice."""
    point = point.double()
    found = project_simplex(point)
    away = point - found
    size = float(point.abs().max()) + 1
    assert bool((away - away @ found <= 1e-12 * size).all())


def test_by_hand():
    point = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    assert project_simplex(point).tolist() == [0.0, 1.0, 0.0]
    assert project_simplex(torch.tensor([0.5, 0.25, -3.0])).tolist() == [0.625, 0.375, 0.0]


@pytest.mark.parametrize("size", [1e9, 1e20, 1e38])
def test_large_entries_of_single_precision(size):
    assert project_simplex(torch.tensor([1.0, 2.0, 3.0]) * size).tolist() == [0.0, 0.0, 1.0]
    assert project_simplex(torch.tensor([-1.0, -2.0, -3.0]) * size).tolist() == [1.0, 0.0, 0.0]
    assert project_simplex(torch.full((4,), size)).tolist() == [0.25] * 4
    assert project_simplex(torch.full((4,), -size)).tolist() == [0.25] * 4
    assert project_simplex(torch.tensor([size, -size, size])).tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("entry", [0.0, -7.0, 1e-30, 1e30, -1e30])
def test_one_entry_is_one(entry):
    assert project_simplex(torch.tensor([entry])).tolist() == [1.0]


def test_ties_share():
    assert project_simplex(torch.zeros(4)).tolist() == [0.25] * 4
    assert project_simplex(torch.tensor([3.0, 3.0, 1.0])).tolist() == [0.5, 0.5, 0.0]
    # Entries of half precision are exact in float64; the sum is then rounded once.
    assert project_simplex(torch.zeros(8, dtype=torch.float16)).tolist() == [0.125] * 8


def test_steep_gradients_leave_moco_weights_on_the_simplex():
    """A step of 1e9 on the weights once divided by zero, and they were never finite again."""
    method = MoCo(3)
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, 0.5]]) * 1e5
    for _ in range(5):
        assert bool(method(rows).isfinite().all())
        assert float(method.weights.sum()) == pytest.approx(1.0)
        assert bool((method.weights >= 0).all())
