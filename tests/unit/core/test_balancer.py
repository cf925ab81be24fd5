"""Balancer: options, the rule for non-finite steps, and what every method has in common."""

import copy

import pytest
import torch
from torch import nn

from mtl import Balancer, Report, Step
from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.errors import ConfigError, NonFiniteError
from mtl.parts import Needs
from mtl.regularizers import Activity
from mtl.scalarization import (
    DynamicWeightAverage,
    EqualWeighting,
    RandomLossWeighting,
    UncertaintyWeighting,
)
from mtl.sharpness import JointSAM
from mtl.transforms import Log
from tests.unit.core.toy import Constant, Power, flat, grads, losses_of, normal, problem

NAN = float("nan")
COMBINERS = {
    "equal": lambda m: EqualWeighting(),
    "random": lambda m: RandomLossWeighting(seed=1),
    "uncertainty": lambda m: UncertaintyWeighting(m, initial=0.7),
    "dwa": DynamicWeightAverage,
    "mgda": lambda m: MGDAWeighting(),
    "pcgrad": lambda m: PCGradWeighting(seed=1),
    "graddrop": lambda m: GradDrop(seed=1),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": Log()}, "`combine` should be a Combiner"),
        ({"combine": nn.Linear(1, 1)}, "`combine` should be a Combiner"),
        ({"combine": MGDAWeighting}, "`combine` should be a Combiner"),
        ({"transforms": [MGDAWeighting()]}, "`transforms` should be a Transform"),
        ({"transforms": {"x": Activity()}}, "`transforms` should be a Transform"),
        ({"regularizers": [Log()]}, "`regularizers` should be a Regularizer"),
        ({"sharpness": Log()}, "`sharpness` should be a Sharpness"),
        ({"level": "layer"}, "`level` should be one of.*'layer'"),
        ({"head_grad": "mean"}, "`head_grad` should be one of.*'mean'"),
        ({"on_nonfinite": "ignore"}, "`on_nonfinite` should be one of.*'ignore'"),
        ({"max_nonfinite": -1}, "`max_nonfinite` should be 0 or more. Got -1"),
        ({"head_grad": "own"}, 'a scalarizer should be "weighted": EqualWeighting'),
        ({"combine": UncertaintyWeighting(2), "head_grad": "own"}, "UncertaintyWeighting"),
        ({"combine": GradDrop(), "head_grad": "weighted"}, 'an aggregator should be "own"'),
        ({"transforms": [Log(), Log()]}, "`transforms` should have one Log.*give them"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        Balancer(**options)


def test_parts_by_name_and_in_a_sequence():
    assert list(Balancer(transforms=[Log(), Power()]).transforms) == ["log", "power"]
    balancer = Balancer(transforms={"b": Log(), "off": None, "a": Log()}, regularizers=[None])
    assert list(balancer.transforms) == ["b", "a"]
    assert len(balancer.regularizers) == 0
    assert isinstance(balancer.combine, EqualWeighting)


def test_needs_are_those_of_all_parts():
    assert Balancer().needs == Needs.LOSSES
    assert Balancer(MGDAWeighting()).needs == Needs.GRAMIAN
    assert Balancer(GradDrop(), sharpness=JointSAM()).needs == Needs.JACOBIAN | Needs.RECOMPUTE
    assert Needs.REPRESENTATION in Balancer(regularizers=[Activity()]).needs
    assert Balancer(level="representation").needs == Needs.REPRESENTATION


@pytest.mark.parametrize("name", COMBINERS)
def test_repr_names_the_parts(name):
    combine = COMBINERS[name](2)
    text = repr(Balancer(combine, transforms={"shrink": Log()}, sharpness=JointSAM()))
    for part in (type(combine).__name__, "(shrink): Log", "JointSAM"):
        assert part in text
    assert "0x" not in text


# -------------------------------------------------------------------------- steps without gradient


def broken(model, how):
    """The model with a non-finite loss of task `b`, or only a gradient: 0 * inf, of a root."""
    if how == "loss":
        with torch.no_grad():
            model.heads["b"].bias.fill_(NAN)
    else:
        model.heads["b"].register_forward_pre_hook(
            lambda module, inputs: (inputs[0] + (inputs[0].detach() - inputs[0]).abs().sqrt(),)
        )
    return model


@pytest.mark.parametrize(
    ("combine", "how"),
    [
        (EqualWeighting(), "loss"),
        (MGDAWeighting(), "loss"),
        (MGDAWeighting(), "gradient"),
        (GradDrop(), "gradient"),
    ],
)
@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_a_non_finite_step_is_skipped(level, combine, how):
    model, tasks, batch = problem()
    broken(model, how)
    balancer = Balancer(combine, level=level)
    with torch.no_grad():
        for p in model.parameters():
            p.grad = torch.full_like(p, 2.0)
    report = balancer.backward(Step.evaluate(model, tasks, batch))
    assert report.nonfinite == ("b",)
    assert report.tasks == ("a", "b", "c")
    assert report.weights is None
    assert report.losses.shape == (3,)
    assert all(bool((p.grad == 2).all()) for p in model.parameters())
    assert int(balancer.skipped_steps) == 1


def test_a_non_finite_loss_of_an_absent_task_does_not_matter():
    model, tasks, (inputs, targets) = problem()
    broken(model, "loss")
    targets["b"] = torch.full_like(targets["b"], -1)
    report = Balancer(MGDAWeighting()).backward(Step.evaluate(model, tasks, (inputs, targets)))
    assert report.nonfinite == ()
    assert report.tasks == ("a", "c")
    assert bool(grads(model.parameters()).isfinite().all())


def test_raise():
    model, tasks, batch = problem()
    balancer = Balancer(on_nonfinite="raise")
    with pytest.raises(NonFiniteError, match="gradient of b is not finite"):
        balancer.backward(Step.evaluate(broken(model, "loss"), tasks, batch))
    assert all(p.grad is None for p in model.parameters())


def test_too_many_in_a_row_raise():
    model, tasks, batch = problem()
    bad = broken(copy.deepcopy(model), "loss")
    balancer = Balancer(max_nonfinite=2)

    def run(which):
        return balancer.backward(Step.evaluate(which, tasks, batch))

    for _ in range(2):
        assert run(bad).nonfinite == ("b",)
    assert run(model).nonfinite == ()  # the count begins anew
    for _ in range(2):
        assert run(bad).nonfinite == ("b",)
    with pytest.raises(NonFiniteError):
        run(bad)
    assert int(balancer.skipped_steps) == 5
    with pytest.raises(NonFiniteError):
        Balancer(max_nonfinite=0).backward(Step.evaluate(bad, tasks, batch))


@pytest.mark.parametrize("name", COMBINERS)
def test_a_step_without_labels_adds_nothing(name):
    model, tasks, (inputs, targets) = problem(("a",))
    targets["a"] = torch.full_like(targets["a"], NAN)
    balancer = Balancer(COMBINERS[name](1), regularizers=[Activity()])
    report = balancer.backward(Step.evaluate(model, tasks, (inputs, targets)))
    assert report.tasks == ()
    assert report.nonfinite == ()
    assert report.losses.shape == (0,)
    assert all(p.grad is None for p in model.parameters())


# ------------------------------------------------------------------------------- all the combiners


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize("name", COMBINERS)
def test_a_single_task_gets_its_plain_gradient(name, level):
    model, tasks, batch = problem(("a",))
    losses, _ = losses_of(model, tasks, batch)
    balancer = Balancer(COMBINERS[name](1), level=level)
    report = balancer.backward(Step.evaluate(model, tasks, batch))
    parameters = [*model.parameters()]
    torch.testing.assert_close(grads(parameters), flat(losses.sum(), parameters))
    assert report.weights.tolist() == [1.0]


@pytest.mark.parametrize("name", COMBINERS)
def test_one_task_that_is_present_gets_a_multiple_of_its_gradient(name):
    model, tasks, (inputs, targets) = problem()
    del targets["a"], targets["b"]
    loss = tasks[2].evaluate(model(inputs).predictions["c"], targets["c"])[0]
    Balancer(COMBINERS[name](3)).backward(Step.evaluate(model, tasks, (inputs, targets)))
    shared = model.shared_parameters()
    factor = 0.5 * torch.tensor(-0.7).exp() if name == "uncertainty" else 1.0
    torch.testing.assert_close(grads(shared), factor * flat(loss, shared))


@pytest.mark.parametrize("sharpness", [None, JointSAM()])
@pytest.mark.parametrize("name", COMBINERS)
def test_reports_have_no_graph(name, sharpness):
    model, tasks, batch = problem()
    balancer = Balancer(
        COMBINERS[name](3),
        transforms=[Power(), Log(eps=1.0)],
        regularizers=[Activity()],
        sharpness=sharpness,
    )
    report = balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    assert isinstance(report, Report)
    tensors = [report.losses, report.weights, report.gramian, *report.scalars.values()]
    found = [t for t in tensors if t is not None]
    assert len(found) >= 3
    assert not any(t.requires_grad for t in found)
    assert not any(p.grad.requires_grad for p in model.parameters())
    assert set(report.scalars) >= {"regularizer/activity"}


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize("name", COMBINERS)
def test_backward_changes_neither_parameters_nor_buffers(name, level):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model, tasks, batch = problem(backbone=backbone)
    balancer = Balancer(COMBINERS[name](3), level=level, sharpness=JointSAM(rho=0.5))
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    balancer.backward(step)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    "combine", [EqualWeighting(), DynamicWeightAverage(3), UncertaintyWeighting(3), Constant()]
)
def test_accumulated_halves_are_the_whole(combine):
    model, tasks, (inputs, targets) = problem(size=12)
    balancer = Balancer(combine, head_grad="weighted", regularizers=[Activity(strength=0.3)])
    balancer.backward(Step.evaluate(model, tasks, (inputs, targets)))
    parameters = [*model.parameters(), *balancer.parameters()]
    expected = grads(parameters)
    for p in parameters:
        p.grad = None
    for half in (slice(0, 6), slice(6, 12)):
        batch = inputs[half], {name: target[half] for name, target in targets.items()}
        step = Step.evaluate(model, tasks, batch)
        step.scale = 0.5
        balancer.backward(step)
    torch.testing.assert_close(grads(parameters), expected)


def drive(balancer, epochs):
    """What a balancer gives over some epochs of two steps on changing data."""
    found = []
    for epoch in epochs:
        balancer.on_epoch_start(epoch)
        for k in range(2):
            model, tasks, (_, targets) = problem()
            inputs = (1 + epoch) * normal(6, 3, seed=10 * epoch + k)
            balancer.backward(Step.evaluate(model, tasks, (inputs, targets)))
            found.append(grads(model.parameters()))
    return torch.stack(found)


@pytest.mark.parametrize("name", COMBINERS)
def test_state_round_trip(name):
    def build():
        return Balancer(COMBINERS[name](3), transforms=[Power(0.4)])

    balancer = build()
    drive(balancer, range(3))
    with torch.no_grad():
        for p in balancer.parameters():
            p.mul_(1.5)
    balancer.skipped_steps += 3
    state = copy.deepcopy(balancer.state_dict())
    expected = drive(balancer, range(3, 6))
    resumed = build()
    resumed.load_state_dict(state)
    resumed.on_epoch_start(2)  # a resumed run repeats the hook
    assert int(resumed.skipped_steps) == 3
    assert torch.equal(drive(resumed, range(3, 6)), expected)


def test_epoch_hooks_may_repeat():
    once, often = (Balancer(DynamicWeightAverage(3)) for _ in range(2))
    expected = drive(once, range(4))
    found = []
    for epoch in range(4):
        often.on_epoch_start(epoch)
        often.on_epoch_start(epoch)
        found.append(drive(often, [epoch]))
    assert torch.equal(torch.cat(found), expected)
    assert int(often.combine.epoch) == 3
