"""UPGrad and DualProj: projections onto the cone of directions that harm no task."""

import numpy as np
import pytest
import torch
import torchjd.aggregation as library
from hypothesis import given, settings

from benchmarks.accuracy import references
from benchmarks.accuracy.families import COUNTS, FAMILIES, rows_of
from mtl.aggregation import DualProjWeighting, PCGradWeighting, UPGradWeighting
from tests.unit.aggregation.families import angle, direction, gradients

METHODS = {"upgrad": UPGradWeighting, "dualproj": DualProjWeighting}


def expected_of(name, rows):
    return torch.from_numpy(getattr(references, name)(rows.numpy())) @ rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", METHODS)
def test_golden(name, count, family):
    for seed in range(2):
        rows = rows_of(family, count, seed)
        found, expected = direction(METHODS[name](), rows), expected_of(name, rows)
        error = (found - expected).norm()
        if expected.norm() > 1e-6 * rows.norm(dim=1).max():
            assert angle(found, expected) < 1e-9
        assert float(error) < 1e-7 * float(rows.norm(dim=1).max())


def test_by_hand():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    # g_1 on the complement of g_2 is (1/2, 1/2); g_2 on that of g_1 is (0, 1).
    torch.testing.assert_close(
        direction(UPGradWeighting(), rows), torch.tensor([0.25, 0.75], dtype=torch.float64)
    )
    assert direction(DualProjWeighting(), rows).tolist() == [0.0, 0.5]  # no conflict: the mean
    rows[1, 0] = -3.0
    torch.testing.assert_close(
        direction(DualProjWeighting(), rows), torch.tensor([0.0, 0.5], dtype=torch.float64)
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=gradients)
@pytest.mark.parametrize("name", METHODS)
def test_harms_no_task(name, rows):
    weights = METHODS[name]()(rows @ rows.T)
    assert bool((weights >= (1 - 1e-12) / len(rows)).all())
    update = weights @ rows
    norms = rows.norm(dim=1)
    assert bool((rows @ update >= -1e-9 * norms * (weights @ norms)).all())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=gradients)
@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_tasks_does_not_matter(name, rows):
    found = direction(METHODS[name](), rows.flip(0))
    size = float(rows.norm(dim=1).max())
    torch.testing.assert_close(found, direction(METHODS[name](), rows), rtol=0, atol=1e-7 * size)


@pytest.mark.parametrize("name", METHODS)
def test_without_conflict_it_is_the_mean(name):
    rows = rows_of("gauss", 5).abs()
    assert METHODS[name]()(rows @ rows.T).tolist() == pytest.approx([0.2] * 5)


def test_two_tasks_of_upgrad_are_those_of_pcgrad():
    for seed in range(20):
        rows = rows_of("conflict", 2, seed)
        pcgrad = direction(PCGradWeighting(seed=0), rows)
        torch.testing.assert_close(direction(UPGradWeighting(), rows), pcgrad / 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_common_factor_goes_through(name):
    rows = rows_of("conflict", 5)
    for scale in (1e-20, 1e20):
        weights = METHODS[name]()(scale**2 * (rows @ rows.T))
        torch.testing.assert_close(weights, METHODS[name]()(rows @ rows.T))


def test_upgrad_sums_projections_of_each_scale():
    """Scaling one gradient scales its own projection only."""
    rows = rows_of("conflict", 3)
    factors = torch.tensor([1e-4, 1.0, 1e3], dtype=torch.float64)
    parts = [torch.from_numpy(references.projected(rows.numpy(), one)) for one in np.eye(3)]
    expected = sum(f * part for f, part in zip(factors, parts, strict=True)) / 3 @ rows
    found = direction(UPGradWeighting(), factors[:, None] * rows)
    assert angle(found, expected) < 1e-9


@pytest.mark.parametrize("name", ["UPGrad", "DualProj"])
def test_agrees_with_torchjd_up_to_its_regularization(name):
    reference = getattr(library, f"{name}Weighting")()
    for seed in range(20):
        rows = rows_of("gauss", 5, seed)
        found = direction(METHODS[name.lower()](), rows)
        assert angle(found, reference(rows @ rows.T) @ rows) < 1e-3


def test_a_program_that_does_not_settle_is_an_error(monkeypatch):
    def never(*_, **__):
        raise RuntimeError("maximum number of iterations")

    monkeypatch.setattr("mtl.linalg.quadratic.nnls", never)
    rows = rows_of("low rank", 40, 0)
    with pytest.raises(ArithmeticError, match=r"should settle.*Lower the learning rate"):
        UPGradWeighting()(rows @ rows.T)
