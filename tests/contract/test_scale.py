"""Accumulation and mixed precision scale the losses: gradients scale alike, and nothing else does.

And the weights that a balancer reports are those that the gradients of the tasks have got.
"""

import hydra
import pytest
import torch

from mtl import Balancer, Step
from mtl.aggregation import DBMTL, ExcessMTL, MoCo
from mtl.parts import Aggregator, Transform
from mtl.transforms import Log
from tests.support import PRESETS, VARIANTS, ToyData, compose_config, make_balancer, make_model

STEPS = 2
AT_THE_REPRESENTATION = {
    f"{combine.__name__} at the representation": combine for combine in (DBMTL, ExcessMTL, MoCo)
}


def build(variant):
    if variant in VARIANTS:
        return make_balancer(variant).double()
    return Balancer(AT_THE_REPRESENTATION[variant](3), level="representation").double()


def batch(i=0):
    return ToyData(dtype=torch.float64).batch(slice(8 * i, 8 * i + 8))


def gradients(variant, scale):
    """Of several steps at the same parameters: what the balancer remembers counts as well."""
    model, tasks = make_model(dtype=torch.float64)
    balancer = build(variant)
    parameters = [*model.parameters(), *balancer.parameters()]
    found = []
    for i in range(STEPS):
        for parameter in parameters:
            parameter.grad = None
        balancer.on_epoch_start(i)
        step = Step.evaluate(model, tasks, batch(i), needs=balancer.needs)
        step.scale = scale
        balancer.backward(step)
        balancer.after_step(step)
        found += [p.grad for p in parameters if p.grad is not None]
    return found


@pytest.mark.parametrize("variant", [*VARIANTS, *AT_THE_REPRESENTATION])
def test_gradients_scale_with_the_losses(variant):
    expected = gradients(variant, 1.0)
    for scale in (0.5, 65536.0, 2.0**-24):
        for found, value in zip(gradients(variant, scale), expected, strict=True):
            torch.testing.assert_close(found / scale, value, rtol=1e-6, atol=1e-12)


def reports(name):
    balancer = compose_config(f"balancer={name}").balancer
    combine = hydra.utils.get_class(balancer.combine._target_)
    return balancer.get("sharpness") is None and not issubclass(combine, Aggregator)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", [n for n in PRESETS if reports(n)])
def test_reported_weights_are_those_of_the_gradient(name, log):
    model, tasks = make_model(dtype=torch.float64)
    balancer = make_balancer(name).double()
    balancer.regularizers.clear()
    if log:
        balancer.transforms["log"] = Log(eps=1.0)  # some methods want losses of at least zero
    followed = list(model.backbone.parameters())
    if balancer.head_grad == "weighted":
        followed += model.heads.parameters()
    for i in range(STEPS):
        balancer.on_epoch_start(i)
        step = Step.evaluate(model, tasks, batch(i), needs=balancer.needs)
        step.scale = 0.5
        model.zero_grad()
        weights = balancer.backward(step).weights
        losses = Step.evaluate(model, tasks, batch(i)).losses.values()
        weighted = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        for found, value in zip(followed, torch.autograd.grad(weighted, followed), strict=True):
            torch.testing.assert_close(found.grad / 0.5, value, rtol=1e-6, atol=1e-12)


class Floor(Transform):
    """Flat below one."""

    elementwise = True

    def forward(self, losses):
        return losses.clamp_min(1.0)


def test_a_flat_objective_adds_nothing():
    """Its row is zero for a combiner that sees rows, and weights find nothing to bring back."""
    model, tasks = make_model(dtype=torch.float64)
    balancer = Balancer(ExcessMTL(3), transforms=[Floor()]).double()
    step = Step.evaluate(model, tasks, batch())
    assert [bool(value < 1) for value in step.values] == [True, False, False]
    step.scale = 0.5
    weights = balancer.backward(step).weights
    assert float(weights[0]) == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert not model.heads["task0"].weight.grad.any()
    assert model.backbone[0].weight.grad.any()
