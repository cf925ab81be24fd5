"""Random weights have the distribution that they are named after."""

import pytest
import torch

from mtl.config import build
from mtl.errors import ConfigError
from mtl.scalarization import RandomLossWeighting
from tests.support import compose_config

DRAWS = 4000


def drawn(count, **options):
    """Weights, `[DRAWS, count]`: the gradients of the scalar."""
    method = RandomLossWeighting(seed=0, **options)
    losses = torch.ones(count, dtype=torch.float64, requires_grad=True)
    return torch.stack([torch.autograd.grad(method(losses), losses)[0] for _ in range(DRAWS)])


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_weights_are_on_the_simplex_and_fair(count, distribution):
    weights = drawn(count, distribution=distribution)
    assert bool((weights > 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(DRAWS).double(), rtol=1e-6, atol=0)
    assert weights.mean(0).tolist() == pytest.approx([1 / count] * count, abs=0.02)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_dirichlet_is_uniform_on_the_simplex(count):
    """Each weight is Beta(1, m - 1), and two of them have the covariance of the simplex."""
    weights = drawn(count, distribution="dirichlet")
    for column in weights.T:
        levels = (1 - column) ** (count - 1)  # uniform: the chance of a larger weight
        ranks = levels.sort().values - torch.linspace(0, 1, DRAWS, dtype=torch.float64)
        assert float(ranks.abs().max()) < 1.95 / DRAWS**0.5  # Kolmogorov, one in a thousand
    covariance = torch.cov(weights.T)[0, 1] * count**2 * (count + 1)
    assert float(covariance) == pytest.approx(-1.0, abs=0.2)


def test_normal_is_a_softmax():
    """The logarithm of the ratio of two weights is N(0, 2)."""
    weights = drawn(3)
    ratios = (weights[:, 0] / weights[:, 1]).log()
    assert float(ratios.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(ratios.var()) == pytest.approx(2.0, abs=0.2)


def test_the_option():
    config = compose_config("balancer=rlw", "balancer.combine.distribution=dirichlet")
    assert build(config.balancer).combine.distribution == "dirichlet"
    with pytest.raises(ConfigError, match=r"should be normal or dirichlet\. Got 'uniform'"):
        RandomLossWeighting(distribution="uniform")
