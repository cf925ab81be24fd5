"""Transforms, regularizers and learned parameters against direct differentiation."""

import pytest
import torch
from torch import Tensor, nn

from mtl import Balancer, Regularizer, Scalarizer, Step, Transform
from mtl.aggregation import Aggregator, GradDrop, MGDAWeighting
from mtl.regularizers import Activity
from mtl.scalarization import EqualWeighting, UncertaintyWeighting
from mtl.transforms import Log
from tests.unit.core.toy import (
    Groups,
    InverseNorm,
    Power,
    Products,
    flat,
    grads,
    heads_of,
    jacobian_of,
    losses_of,
    multi_input,
    problem,
)

LEVELS = ["parameters", "representation"]
CHAINS = {
    "log": lambda: [Log()],
    "groups": lambda: [Groups()],
    "products": lambda: [Products()],
    "power": lambda: [Power()],
    "log of groups": lambda: {"groups": Groups(), "left out": None, "log": Log(eps=0.5)},
    "groups of powers": lambda: {"power": Power(), "groups": Groups()},
    "products of groups": lambda: {"groups": Groups(), "products": Products(), "log": Log(eps=9)},
}


def compose(balancer, losses):
    for transform in balancer.transforms.values():
        losses = transform(losses)
    return losses


def jacobian_at(level, values, model, representation):
    columns = model.shared_parameters() if level == "parameters" else [*representation["a"]]
    return jacobian_of(values, columns)


@pytest.mark.parametrize("head_grad", ["own", "weighted"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("rule", [InverseNorm, MGDAWeighting])
def test_weightings(rule, chain, level, head_grad):
    model, tasks, batch = problem()
    balancer = Balancer(rule(), transforms=CHAINS[chain](), level=level, head_grad=head_grad)
    losses, representation = losses_of(model, tasks, batch)
    values = compose(balancer, losses)
    jacobian = jacobian_at(level, values, model, representation)
    weights = rule()(jacobian @ jacobian.T)
    step = Step.evaluate(model, tasks, batch)
    step.scale = 0.5
    report = balancer.backward(step)
    torch.testing.assert_close(report.gramian, jacobian @ jacobian.T)
    shared = flat(weights @ values, model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), 0.5 * shared)
    on_heads = weights if head_grad == "weighted" else torch.ones_like(weights)
    own = flat(on_heads @ values, heads_of(model))
    torch.testing.assert_close(grads(heads_of(model)), 0.5 * own)
    torch.testing.assert_close(report.weights, flat(weights @ values, [losses]))
    learned = [*balancer.parameters()]
    if learned:
        expected = 0.5 * flat(weights @ values, learned)
        assert float(expected.abs().sum()) > 0
        torch.testing.assert_close(grads(learned), expected)


class Cubes(Aggregator):
    def forward(self, jacobian: Tensor) -> Tensor:
        return (jacobian**3).sum(0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chain", CHAINS)
def test_aggregators(chain, level):
    model, tasks, batch = problem()
    balancer = Balancer(Cubes(), transforms=CHAINS[chain](), level=level)
    losses, representation = losses_of(model, tasks, batch)
    values = compose(balancer, losses)
    direction = (jacobian_at(level, values, model, representation) ** 3).sum(0)
    step = Step.evaluate(model, tasks, batch)
    step.scale = 0.5
    balancer.backward(step)
    if level == "representation":
        (z,) = representation["a"]
        direction = flat((z * direction.view_as(z)).sum(), model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), 0.5 * direction)
    torch.testing.assert_close(grads(heads_of(model)), 0.5 * flat(values.sum(), heads_of(model)))
    learned = [*balancer.parameters()]
    if learned:
        torch.testing.assert_close(grads(learned), 0.5 * flat(values.sum(), learned))


class Square(Scalarizer):
    """A scalar that is not linear in the objectives, with a learned factor."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, losses: Tensor) -> Tensor:
        return self.factor * losses.square().sum() + losses[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chain", CHAINS)
def test_scalarizers(chain, level):
    model, tasks, batch = problem()
    balancer = Balancer(Square(), transforms=CHAINS[chain](), level=level)
    losses, _ = losses_of(model, tasks, batch)
    scalar = balancer.combine(compose(balancer, losses))
    everything = [*model.parameters(), *balancer.parameters()]
    step = Step.evaluate(model, tasks, batch)
    step.scale = torch.tensor(4.0)
    report = balancer.backward(step)
    torch.testing.assert_close(grads(everything), 4 * flat(scalar, everything))
    torch.testing.assert_close(report.weights, flat(scalar, [losses]))


def test_multi_input_groups_at_the_parameters():
    model, tasks, batch = multi_input()
    losses, _ = losses_of(model, tasks, batch)
    values = Groups()(losses)
    jacobian = jacobian_of(values, model.shared_parameters())
    Balancer(InverseNorm(), transforms=[Groups()]).backward(Step.evaluate(model, tasks, batch))
    expected = InverseNorm()(jacobian @ jacobian.T) @ jacobian
    torch.testing.assert_close(grads(model.shared_parameters()), expected)
    torch.testing.assert_close(grads(heads_of(model)), flat(values.sum(), heads_of(model)))


def test_multi_input_groups_at_the_representation():
    model, tasks, batch = multi_input()
    losses, representation = losses_of(model, tasks, batch)
    rows = torch.stack(
        [flat(loss, z) for loss, z in zip(losses, representation.values(), strict=True)]
    )
    mix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weights = InverseNorm()(mix @ rows @ rows.T @ mix.T)
    Balancer(InverseNorm(), transforms=[Groups()], level="representation").backward(
        Step.evaluate(model, tasks, batch)
    )
    expected = flat(weights @ Groups()(losses), model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), expected)


@pytest.mark.parametrize("name", ["a", "c"])
def test_transforms_see_the_present_tasks_only(name):
    model, tasks, (inputs, targets) = problem()
    targets[name] = torch.full_like(targets[name], torch.nan)
    keep = [i for i, task in enumerate(tasks) if task.name != name]
    losses = losses_of(model, tasks, (inputs, targets))[0][keep]
    values = Groups()(losses)
    Balancer(InverseNorm(), transforms=[Groups()]).backward(
        Step.evaluate(model, tasks, (inputs, targets))
    )
    # Two tasks in one group: a single objective, with the weight 1 / |g|.
    row = flat(values.sum(), model.shared_parameters())
    assert len(values) == 1
    torch.testing.assert_close(grads(model.shared_parameters()), row / row.norm())
    assert all(p.grad is None for p in model.task_parameters(name))


class Flat(Transform):
    """Fewer objectives than losses, the first of which does not depend on any."""

    def forward(self, losses: Tensor) -> Tensor:
        return torch.stack([0 * losses[0] + 3, losses[1:].sum()])


@pytest.mark.parametrize("combine", [EqualWeighting(), GradDrop(seed=0), MGDAWeighting()])
@pytest.mark.parametrize("level", LEVELS)
def test_an_objective_may_be_constant(level, combine):
    model, tasks, batch = problem()
    losses, _ = losses_of(model, tasks, batch)
    balancer = Balancer(combine, transforms=[Flat()], level=level)
    balancer.backward(Step.evaluate(model, tasks, batch))
    torch.testing.assert_close(grads(heads_of(model)), flat(losses[1:].sum(), heads_of(model)))
    if isinstance(combine, MGDAWeighting):  # the shortest vector is the constant's
        assert float(grads(model.shared_parameters()).abs().max()) == 0.0


class Decay(Regularizer):
    """Half the sum of squares of all parameters."""

    def forward(self, step: Step) -> Tensor:
        return 0.5 * sum(p.square().sum() for p in step.parameters)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("transforms", [None, [Groups()], [Log()]])
@pytest.mark.parametrize("combine", [EqualWeighting(), InverseNorm(), Cubes()])
def test_regularizers_are_added_after_the_combination(combine, transforms, level):
    found = []
    for regularizers in (None, {"activity": Activity(strength=0.7), "decay": Decay()}):
        model, tasks, batch = problem()
        balancer = Balancer(combine, transforms=transforms, regularizers=regularizers, level=level)
        step = Step.evaluate(model, tasks, batch)
        step.scale = 0.25
        report = balancer.backward(step)
        found.append(grads(model.parameters()))
    z = model(batch[0]).representation["a"][0]
    penalty = 0.7 * z.square().mean()
    expected = flat(penalty + Decay()(step), [*model.parameters()])
    torch.testing.assert_close(found[1] - found[0], 0.25 * expected)
    torch.testing.assert_close(report.scalars["regularizer/activity"], penalty.detach())
    torch.testing.assert_close(report.scalars["regularizer/decay"], Decay()(step).detach())


def test_scalarizer_parameters_with_transforms_that_learn():
    model, tasks, batch = problem()
    balancer = Balancer(UncertaintyWeighting(3).double(), transforms=[Power()])
    losses, _ = losses_of(model, tasks, batch)
    log_variance = balancer.combine.log_variance
    with torch.no_grad():
        log_variance.copy_(torch.tensor([0.3, -0.2, 1.0]))
    scalar = 0.5 * (torch.exp(-log_variance) * compose(balancer, losses) + log_variance).sum()
    everything = [*model.parameters(), *balancer.parameters()]
    balancer.backward(Step.evaluate(model, tasks, batch))
    torch.testing.assert_close(grads(everything), flat(scalar, everything))


@pytest.mark.parametrize("combine", [EqualWeighting(), InverseNorm(), Cubes()])
def test_a_transform_that_makes_nan_skips_the_step(combine):
    p = nn.Parameter(torch.ones(3))
    step = Step({"a": -p.sum(), "b": p.square().sum()}, shared=[p])
    report = Balancer(combine, transforms=[Log()]).backward(step)
    assert report.nonfinite == ("a",)
    assert p.grad is None
    step = Step({"a": -p.sum(), "b": p.square().sum()}, shared=[p])
    report = Balancer(combine, transforms={"g": Groups(), "l": Log(), "m": Log()}).backward(step)
    assert report.nonfinite == ("a", "b")  # a mean is no one's own
    assert p.grad is None
