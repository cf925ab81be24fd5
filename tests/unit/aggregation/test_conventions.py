"""What other code does beyond the direction: sums or means, factors, gradients of the heads."""

import pytest
import torch

from benchmarks.accuracy.families import rows_of
from mtl import Balancer, Step
from mtl.aggregation import CAGradWeighting, NashMTLWeighting, PCGradWeighting
from mtl.config import build
from mtl.errors import ConfigError
from mtl.scalarization import GradNorm
from tests.support import compose_config
from tests.unit.core.toy import flat, grads, heads_of, losses_of, problem


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1.0),
        ({"like": "torchjd"}, 1.0),
        ({"like": "libmtl"}, 1 / 1.16),
        ({"like": "libmtl", "rescale": 0}, 1.0),
        ({"like": "libmtl", "rescale": 2}, 1 / 1.4),
        ({"like": "nash_mtl"}, 5 / 1.16),
        ({"like": "nash_mtl", "rescale": 2}, 5 / 1.4),
        ({"rescale": 1}, 1 / 1.16),
    ],
)
def test_cagrad_rescales(options, factor):
    rows = rows_of("conflict", 5)
    rows[3] = 0.0  # its weight, which its head may have, is rescaled as well
    expected = factor * CAGradWeighting(c=0.4)(rows @ rows.T)
    torch.testing.assert_close(CAGradWeighting(c=0.4, **options)(rows @ rows.T), expected)
    mean = factor if options.get("like") == "nash_mtl" else 1.0
    if not options:
        return
    # With radius 0 the direction is the mean (or the sum), however it is rescaled.
    weights = CAGradWeighting(c=0.0, **options)(rows @ rows.T)
    assert weights.tolist() == pytest.approx([1.0 if mean > 1 else 0.2] * 5)


def test_pcgrad_is_a_sum_or_a_mean():
    rows = rows_of("conflict", 4)
    total = PCGradWeighting(seed=0)(rows @ rows.T)
    mean = PCGradWeighting(reduction="mean", seed=0)(rows @ rows.T)
    torch.testing.assert_close(4 * mean, total)
    assert float(total.min()) >= 1.0


def head_gradients(combine, weights=None):
    """Of a step on the toy problem, and of `weights @ losses` by plain autograd."""
    model, tasks, batch = problem()
    balancer = Balancer(combine)
    balancer.on_epoch_start(1)
    report = balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    reference, tasks, batch = problem()
    losses, _ = losses_of(reference, tasks, batch)
    weights = report.weights if weights is None else weights
    return grads(heads_of(model)), flat(weights @ losses, heads_of(reference))


NASH = {like: NashMTLWeighting(like=like) for like in ("paper", "libmtl", "torchjd")}


def gradnorm(like):
    """With weights that are not one."""
    method = GradNorm(3, like=like, initial_losses=[1.0, 1.0, 1.0])
    method.weights.copy_(torch.tensor([0.5, 1.0, 1.5]))
    return method.double()


@pytest.mark.parametrize("combine", [NASH["paper"], NASH["libmtl"], gradnorm("paper")])
def test_heads_are_weighted(combine):
    torch.testing.assert_close(*head_gradients(combine))


@pytest.mark.parametrize("combine", [NASH["torchjd"], gradnorm("libmtl")])
def test_heads_follow_their_own_objective(combine):
    torch.testing.assert_close(*head_gradients(combine, torch.ones(3, dtype=torch.float64)))


def test_the_balancer_has_the_last_word():
    assert Balancer(NASH["torchjd"], head_grad="weighted").head_grad == "weighted"
    assert Balancer(gradnorm("paper"), head_grad="own").head_grad == "own"


def test_options_are_in_the_configuration():
    options = ["like=nash_mtl", "rescale=2"]
    config = compose_config("balancer=cagrad", *(f"balancer.combine.{o}" for o in options))
    method = build(config.balancer).combine
    assert (method.like, method.rescale) == ("nash_mtl", 2)
    config = compose_config("balancer=pcgrad", "balancer.combine.reduction=mean")
    assert build(config.balancer).combine.reduction == "mean"


@pytest.mark.parametrize(
    "make", [lambda: CAGradWeighting(rescale=3), lambda: PCGradWeighting(reduction="max")]
)
def test_options_out_of_range(make):
    with pytest.raises(ConfigError, match="should be"):
        make()
