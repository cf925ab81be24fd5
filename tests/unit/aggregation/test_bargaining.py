"""Nash-MTL and FairGrad: their equations hold, and scales and conventions are as documented."""

import math

import pytest
import torch
import torchjd.aggregation as library
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.accuracy import references
from benchmarks.accuracy.families import COUNTS, FAMILIES, rows_of
from mtl.aggregation import FairGradWeighting, NashMTLWeighting
from mtl.errors import ConfigError
from tests.unit.aggregation.families import angle, direction, gradients

ALPHAS = (0.5, 1.0, 2.0, 5.0)


def distance(rows):
    """Whether all tasks can improve: least eigenvalue of the cosines."""
    units = rows / rows.norm(dim=1, keepdim=True)
    return float(torch.linalg.eigvalsh(units @ units.T)[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_equation_holds(alpha, count, family):
    for seed in range(3):
        rows = rows_of(family, count, seed)
        if distance(rows) < 1e-6:
            continue  # no solution: a convex combination of the gradients may be zero
        gram = rows @ rows.T
        weights = FairGradWeighting(alpha=alpha)(gram)
        assert bool((weights > 0).all())
        torch.testing.assert_close(gram @ weights, weights ** (-1 / alpha), rtol=1e-8, atol=0)
        if alpha == 1:
            nash = NashMTLWeighting(max_norm=None)(gram)
            torch.testing.assert_close(nash, weights, rtol=1e-10, atol=0)


def test_by_hand():
    rows = torch.diag(torch.tensor([2.0, 0.1], dtype=torch.float64))
    gram = rows @ rows.T
    assert NashMTLWeighting(max_norm=None)(gram).tolist() == pytest.approx([0.5, 10.0])
    assert FairGradWeighting(alpha=2.0)(gram).tolist() == pytest.approx(
        [4 ** (-2 / 3), 0.01 ** (-2 / 3)]
    )
    rows = torch.ones(1, 1, dtype=torch.float64) * 3
    assert float(FairGradWeighting(alpha=2.0)(rows @ rows.T)) == pytest.approx(9 ** (-2 / 3))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_golden(alpha, seed):
    """A minimizer and a root finder in logarithms of the weights."""
    rows = rows_of("conflict", 4, seed)
    found = FairGradWeighting(alpha=alpha)(rows @ rows.T)
    expected = torch.from_numpy(references.fairgrad(rows.numpy(), alpha))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=gradients, exponents=st.lists(st.floats(-4, 4), min_size=8, max_size=8))
def test_nash_does_not_depend_on_the_scale_of_a_task(rows, exponents):
    assume(distance(rows) >= 1e-6)
    factors = 10 ** torch.tensor(exponents[: len(rows)], dtype=torch.float64)
    found = direction(NashMTLWeighting(), factors[:, None] * rows)
    torch.testing.assert_close(found, direction(NashMTLWeighting(), rows), rtol=1e-7, atol=1e-9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=gradients)
def test_all_tasks_gain(rows):
    assume(distance(rows) >= 1e-6)
    for method in (NashMTLWeighting(), FairGradWeighting(alpha=2.0)):
        assert bool((rows @ direction(method, rows) > 0).all())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=gradients)
def test_the_order_of_tasks_does_not_matter(rows):
    assume(distance(rows) >= 1e-6)
    for method in (NashMTLWeighting(), FairGradWeighting(alpha=2.0)):
        weights = method(rows @ rows.T)
        turned = method(rows.flip(0) @ rows.flip(0).T)
        torch.testing.assert_close(turned.flip(0), weights, rtol=1e-7, atol=0)


def test_lengths_and_conventions():
    rows = rows_of("gauss", 5)
    gram = rows @ rows.T
    free = NashMTLWeighting(max_norm=None)
    assert float(direction(free, rows).norm()) == pytest.approx(math.sqrt(5))
    assert float(direction(NashMTLWeighting(), rows).norm()) == pytest.approx(1.0)
    assert float(direction(NashMTLWeighting(max_norm=2.0), rows).norm()) == pytest.approx(2.0)
    for like in ("libmtl", "torchjd"):
        method = NashMTLWeighting(max_norm=None, like=like)
        weights = method(gram)
        scaled = gram / gram.norm()
        torch.testing.assert_close(scaled @ weights, 1 / weights)
        short = direction(NashMTLWeighting(like=like), 1e-3 * rows).norm()
        assert float(short) == pytest.approx(float(1e-3 * math.sqrt(5) * gram.norm().sqrt()))
        assert float(direction(NashMTLWeighting(like=like), rows).norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_agrees_with_torchjds_fairgrad(alpha):
    reference = library.FairGradWeighting(alpha=alpha)
    for seed in range(100):
        rows = rows_of(("gauss", "conflict", "spread10")[seed % 3], 2 + seed % 7, seed) / 10
        found = direction(FairGradWeighting(alpha=alpha), rows)
        # 1e-4: it stops where the residual changes by less than 1e-8 relative.
        assert angle(found, reference(rows @ rows.T) @ rows) < 1e-4


def test_where_no_direction_helps_all_weights_are_bounded():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    weights = NashMTLWeighting(max_norm=None)(rows @ rows.T)
    assert float(weights.max()) <= 1e4 * 3
    torch.testing.assert_close(weights @ rows, rows[2], atol=1e-6, rtol=1e-6)
    # Continuous: a little asymmetry changes little.
    rows[1, 1] = 1e-9
    turned = NashMTLWeighting(max_norm=None)(rows @ rows.T)
    torch.testing.assert_close(turned, weights, rtol=1e-3, atol=0)


def test_a_task_without_gradient_has_the_mean_weight():
    rows = rows_of("gauss", 3)
    rows[1] = 0
    for method in (NashMTLWeighting(), FairGradWeighting(alpha=2.0)):
        weights = method(rows @ rows.T)
        alone = method(rows[[0, 2]] @ rows[[0, 2]].T)
        torch.testing.assert_close(weights[[0, 2]], alone)
        assert float(weights[1]) == pytest.approx(float(alone.mean()))


@pytest.mark.parametrize(
    "build",
    [
        lambda: NashMTLWeighting(max_norm=0.0),
        lambda: NashMTLWeighting(like="other"),
        lambda: FairGradWeighting(alpha=0.0),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()
