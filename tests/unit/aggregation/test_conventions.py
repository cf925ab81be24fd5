"""What other code does beyond the direction: sums or means, factors, gradients of the heads."""

import pytest
import torch

from benchmarks.accuracy.families import rows_of
from mtl import Balancer, Step
from mtl.aggregation import (
    CAGradWeighting,
    GradDrop,
    MoCo,
    NashMTLWeighting,
    PCGradWeighting,
)
from mtl.config import build
from mtl.errors import ConfigError, UnsupportedError
from mtl.scalarization import GradNorm
from tests.support import compose_config
from tests.unit.core.toy import flat, grads, heads_of, jacobian_of, losses_of, problem


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


def test_moco_like_libmtl_takes_losses_for_lengths_and_a_softmax():
    model, tasks, batch = problem()
    losses, _ = losses_of(model, tasks, batch)
    sizes = losses.detach()[:, None]
    rows = jacobian_of(losses, model.shared_parameters())
    rows = rows / rows.norm(dim=1, keepdim=True) * sizes
    balancer = Balancer(MoCo(3, beta=0.8, gamma=2.0, rho=0.1, like="libmtl").double())
    averages, weights = torch.zeros_like(rows), torch.full_like(losses.detach(), 1 / 3)
    for time in range(1, 4):
        averages = averages - 0.8 / time**0.5 * (averages - rows)
        products = averages @ averages.T + 0.1 * torch.eye(3, dtype=torch.float64)
        weights = torch.softmax(weights - 2.0 / time**0.5 * products @ weights, 0)
        model.zero_grad()
        balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
        torch.testing.assert_close(grads(model.shared_parameters()), weights @ averages)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop_of_the_paper_draws_a_sign_for_each_unit(leak):
    model, tasks, batch = problem()
    losses, representation = losses_of(model, tasks, batch)
    (features,) = representation["a"]
    per_sample = [torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in losses]
    method = GradDrop(leak=leak, like="paper", seed=3)
    draws = torch.empty(features.shape[1]).double()
    draws.uniform_(generator=GradDrop(seed=3).generator(draws.device))
    direction = torch.zeros_like(features)
    for unit, draw in enumerate(draws.tolist()):
        sums = [float((g * features.detach().sign())[:, unit].sum()) for g in per_sample]
        purity = (1 + sum(sums) / sum(map(abs, sums))) / 2
        for own, gradient in zip(sums, per_sample, strict=True):
            kept = own > 0 if purity > draw else own < 0
            direction[:, unit] += gradient[:, unit] * (1.0 if kept else leak)
    expected = torch.autograd.grad(features, model.shared_parameters(), direction)
    balancer = Balancer(method, level="representation")
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    found = grads(model.shared_parameters())
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))
    torch.testing.assert_close(grads(heads_of(model)), flat(losses.sum(), heads_of(model)))


def test_graddrop_of_the_paper_needs_activations():
    model, tasks, batch = problem()
    balancer = Balancer(GradDrop(like="paper"))
    with pytest.raises(
        UnsupportedError, match=r'expected level="representation".*Set balancer.level'
    ):
        balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))


def test_options_are_in_the_configuration():
    options = ["like=nash_mtl", "rescale=2"]
    config = compose_config("balancer=cagrad", *(f"balancer.combine.{o}" for o in options))
    method = build(config.balancer).combine
    assert (method.like, method.rescale) == ("nash_mtl", 2)
    config = compose_config("balancer=pcgrad", "balancer.combine.reduction=mean")
    assert build(config.balancer).combine.reduction == "mean"


@pytest.mark.parametrize(
    "make",
    [
        lambda: CAGradWeighting(rescale=3),
        lambda: PCGradWeighting(reduction="max"),
        lambda: GradDrop(like="libmtl"),
        lambda: MoCo(3, like="torchjd"),
    ],
)
def test_options_out_of_range(make):
    with pytest.raises(ConfigError, match="should be"):
        make()
