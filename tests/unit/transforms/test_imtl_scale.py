"""Scales that are learned with any combiner: each follows its own objective."""

import numpy as np
import pytest
import torch

from benchmarks.accuracy import references
from mtl import Balancer, Step, Weighting
from mtl.aggregation import IMTLGWeighting, PCGradWeighting, TrimmedMean
from mtl.config import build
from mtl.scalarization import EqualWeighting, IMTLLoss
from mtl.transforms import IMTLScale, Log
from tests.support import compose_config, set_num_tasks
from tests.unit.core.toy import Constant, grads, heads_of, jacobian_of, losses_of, problem

START = torch.tensor([0.7, -1.0, 0.2], dtype=torch.float64)
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


class Opposed(Weighting):
    """Weights 1, -1, 1."""

    def forward(self, gramian):
        return torch.tensor([1.0, -1.0, 1.0]).to(gramian)


def transform(start=START):
    part = IMTLScale(len(start)).double()
    with torch.no_grad():
        part.log_scale.copy_(start)
    return part


def update(balancer, scale=1.0):
    """A step on the toy problem: model, losses, Jacobian, and what lies in `.grad`."""
    model, tasks, batch = problem()
    losses, _ = losses_of(model, tasks, batch)
    rows = jacobian_of(losses, list(model.backbone.parameters()))
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    step.scale = scale
    balancer.backward(step)
    return model, losses.detach(), rows


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize(
    "combine", [EqualWeighting(), Constant(), IMTLGWeighting(), PCGradWeighting(seed=0)]
)
def test_a_scale_follows_its_own_objective(combine, level):
    part = transform()
    _, losses, _ = update(Balancer(combine, transforms=[part], level=level))
    torch.testing.assert_close(part.log_scale.grad, START.exp() * losses - 1, **CLOSE)


@pytest.mark.parametrize("combine", [TrimmedMean(), IMTLGWeighting()])
def test_scale_of_losses_goes_into_the_gradient(combine):
    part = transform()
    _, losses, _ = update(Balancer(combine, transforms=[part]), scale=0.5)
    torch.testing.assert_close(part.log_scale.grad, (START.exp() * losses - 1) / 2, **CLOSE)


def test_with_equal_weighting_it_is_the_loss_balance_alone():
    part, alone = transform(), IMTLLoss(3).double()
    with torch.no_grad():
        alone.log_scale.copy_(START)
    model, _, _ = update(Balancer(transforms=[part]))
    other, _, _ = update(Balancer(alone))
    torch.testing.assert_close(grads(model.parameters()), grads(other.parameters()), **CLOSE)
    torch.testing.assert_close(part.log_scale.grad, alone.log_scale.grad, **CLOSE)


def test_imtl_is_the_gradient_balance_of_the_scaled_losses():
    part = transform()
    model, _, rows = update(Balancer(IMTLGWeighting(), transforms=[part]))
    scaled = START.exp()[:, None] * rows
    expected = torch.from_numpy(references.imtl_g(scaled.numpy())) @ scaled
    torch.testing.assert_close(grads(model.backbone.parameters()), expected, **CLOSE)
    projections = (rows / rows.norm(dim=1, keepdim=True)) @ expected
    assert projections.tolist() == pytest.approx([float(projections[0])] * 3)
    # Heads follow their own scaled loss.
    fresh, tasks, batch = problem()
    losses, _ = losses_of(fresh, tasks, batch)
    own = START.exp() @ jacobian_of(losses, heads_of(fresh))
    torch.testing.assert_close(grads(heads_of(model)), own, **CLOSE)


def test_absent_tasks_keep_their_scale():
    part = transform()
    point = torch.ones(2, dtype=torch.float64, requires_grad=True)
    losses = {"a": 2 * point.sum(), "b": None, "c": 3 * point[0]}
    Balancer(Constant(), transforms=[part]).backward(Step(losses, shared=[point]))
    expected = [np.exp(0.7) * 4 - 1, 0.0, np.exp(0.2) * 3 - 1]
    assert part.log_scale.grad.tolist() == pytest.approx(expected)


def test_scales_become_the_inverse_of_the_losses():
    """With a combiner that gives a task a negative weight, as IMTL-G may."""
    part = IMTLScale(3).double()
    balancer = Balancer(Opposed(), transforms=[part])
    optimizer = torch.optim.Adam(part.parameters(), lr=0.1)
    sizes = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    for _ in range(400):
        optimizer.zero_grad()
        point = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses = {name: size * point for name, size in zip("abc", sizes, strict=True)}
        balancer.backward(Step(losses, shared=[point]))
        optimizer.step()
    assert (part.log_scale.exp() * sizes).tolist() == pytest.approx([1.0] * 3, rel=1e-2)


def test_a_transform_behind_it_sees_the_scaled_losses():
    part = transform()
    model, losses, rows = update(Balancer(Constant(), transforms=[part, Log(eps=0.0)]))
    values = START.exp() * losses - START
    expected = (torch.arange(1, 4) * START.exp() / values) @ rows
    torch.testing.assert_close(grads(model.backbone.parameters()), expected, **CLOSE)


def test_the_preset():
    config = compose_config("balancer=imtl").copy()
    set_num_tasks(config, 3)
    balancer = build(config.balancer)
    assert isinstance(balancer.combine, IMTLGWeighting)
    assert [type(part) for part in balancer.transforms.values()] == [IMTLScale]
    assert balancer.parameter_groups()[0]["params"] == [balancer.transforms["imtl_l"].log_scale]
