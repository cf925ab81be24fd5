"""Rows and objectives without transforms: every gradient against plain autograd."""

import copy

import pytest
import torch
from torch import nn

from mtl import Balancer, MultiTaskModel, Step
from mtl.aggregation import Aggregator, GradDrop, MGDAWeighting
from mtl.engine import accumulate
from mtl.errors import UnsupportedError
from mtl.regularizers import Activity
from mtl.rows import Rows
from tests.unit.core.toy import (
    Constant,
    InverseNorm,
    flat,
    grads,
    heads,
    heads_of,
    jacobian_of,
    losses_of,
    multi_input,
    normal,
    problem,
    tasks_of,
)

LEVELS = ["parameters", "representation"]


def columns_of(level, model, representation):
    if level == "parameters":
        return model.shared_parameters()
    return list(representation["a"])


class Pair(nn.Module):
    """A representation of two tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, x):
        return {"x": self.first(x).tanh(), "y": (self.second(x).tanh(), self.first(x))}


class PairHead(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(10, width)

    def forward(self, z):
        return self.linear(torch.cat([z["x"], *z["y"]], 1))


def pair_problem():
    _, _, batch = problem()
    torch.manual_seed(0)
    model = MultiTaskModel(Pair(), {n: PairHead(3 if n == "b" else 2) for n in "abc"}).double()
    return model, tasks_of(model), batch


@pytest.mark.parametrize("build", [problem, pair_problem])
@pytest.mark.parametrize("level", LEVELS)
def test_rows(level, build):
    model, tasks, batch = build()
    step = Step.evaluate(model, tasks, batch)
    losses, representation = losses_of(model, tasks, batch)
    jacobian = jacobian_of(losses, columns_of(level, model, representation))
    rows = step.rows(level)
    torch.testing.assert_close(rows.jacobian, jacobian)
    torch.testing.assert_close(rows.gramian, jacobian @ jacobian.T)
    assert step.rows(level) is rows
    for task, pairs in zip(tasks, rows.heads, strict=True):
        expected = flat(losses.sum(), [*task.head.parameters()])
        assert [id(p) for p, _ in pairs] == [id(p) for p in task.head.parameters()]
        torch.testing.assert_close(torch.cat([g.reshape(-1) for _, g in pairs]), expected)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    shared = rows.combine(weights, torch.zeros_like(weights))[: len(model.shared_parameters())]
    expected = flat((weights * losses).sum(), model.shared_parameters())
    torch.testing.assert_close(torch.cat([g.reshape(-1) for _, g in shared]), expected)


@pytest.mark.parametrize("level", LEVELS)
def test_scale_is_in_the_gradients_but_not_in_the_gramian(level):
    model, tasks, batch = problem()
    losses, representation = losses_of(model, tasks, batch)
    jacobian = jacobian_of(losses, columns_of(level, model, representation))
    step = Step.evaluate(model, tasks, batch)
    step.scale = torch.tensor(1024.0)
    report = Balancer(InverseNorm(), level=level).backward(step)
    torch.testing.assert_close(report.gramian, jacobian @ jacobian.T)
    weights = (jacobian @ jacobian.T).diagonal().rsqrt()
    torch.testing.assert_close(report.weights, weights)
    expected = 1024 * flat((weights * losses).sum(), model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), expected)
    torch.testing.assert_close(grads(heads_of(model)), 1024 * flat(losses.sum(), heads_of(model)))


@pytest.mark.parametrize("build", [problem, pair_problem, multi_input])
@pytest.mark.parametrize("head_grad", [None, "own", "weighted"])
@pytest.mark.parametrize("rule", [InverseNorm, MGDAWeighting])
@pytest.mark.parametrize("level", LEVELS)
def test_weightings(level, rule, head_grad, build):
    model, tasks, batch = build()
    losses, representation = losses_of(model, tasks, batch)
    if build is multi_input and level == "representation":
        pairs = zip(losses, representation.values(), strict=True)
        jacobian = torch.stack([flat(loss, columns) for loss, columns in pairs])
    else:
        jacobian = jacobian_of(losses, columns_of(level, model, representation))
    weights = rule()(jacobian @ jacobian.T)
    report = Balancer(rule(), level=level, head_grad=head_grad).backward(
        Step.evaluate(model, tasks, batch)
    )
    torch.testing.assert_close(report.weights, weights)
    torch.testing.assert_close(report.gramian, jacobian @ jacobian.T)
    shared = flat((weights * losses).sum(), model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), shared)
    on_heads = weights if head_grad == "weighted" else torch.ones_like(weights)
    own = flat((on_heads * losses).sum(), heads_of(model))
    torch.testing.assert_close(grads(heads_of(model)), own)


class Signs(Aggregator):
    """A direction that is no combination of the rows."""

    def forward(self, jacobian):
        return jacobian.sign().sum(0)


@pytest.mark.parametrize("level", LEVELS)
def test_aggregators(level):
    model, tasks, batch = problem()
    losses, representation = losses_of(model, tasks, batch)
    columns = columns_of(level, model, representation)
    direction = jacobian_of(losses, columns).sign().sum(0)
    step = Step.evaluate(model, tasks, batch)
    step.scale = 0.5
    report = Balancer(Signs(), level=level).backward(step)
    assert report.weights is None
    if level == "parameters":
        expected = direction
    else:  # the vector-Jacobian product of the backbone
        (z,) = columns
        expected = flat((z * direction.view_as(z)).sum(), model.shared_parameters())
    torch.testing.assert_close(grads(model.shared_parameters()), 0.5 * expected)
    torch.testing.assert_close(grads(heads_of(model)), 0.5 * flat(losses.sum(), heads_of(model)))


def test_aggregators_need_one_representation():
    model, tasks, batch = multi_input()
    with pytest.raises(UnsupportedError, match="each task has its own"):
        Balancer(GradDrop(), level="representation").backward(Step.evaluate(model, tasks, batch))
    Balancer(GradDrop(seed=0)).backward(Step.evaluate(model, tasks, batch))
    assert float(grads(model.shared_parameters()).abs().sum()) > 0


def test_representations_that_overlap_in_part():
    p = nn.Parameter(normal(3).abs() + 1)
    z1, z2, z3 = 2 * p, p.square(), p.exp()
    losses = {"a": (z1 * z2).sum(), "b": (z1 * z3).sum()}
    representation = {"a": (z1, z2), "b": (z1, z3)}
    step = Step(losses, shared=[p], representation=representation)
    expected = flat(losses["a"] + 2 * losses["b"], [p])
    Balancer(Constant(), level="representation").backward(step)
    torch.testing.assert_close(p.grad, expected)


def tied_problem():
    _, _, batch = problem()
    torch.manual_seed(0)
    parts = heads()
    parts["c"].weight = parts["a"].weight
    model = MultiTaskModel(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), parts).double()
    return model, tasks_of(model), batch


def test_tied_heads_are_exact_at_the_parameters():
    model, tasks, batch = tied_problem()
    losses, _ = losses_of(model, tasks, batch)
    jacobian = jacobian_of(losses, model.shared_parameters())
    assert any(p is model.heads["a"].weight for p in model.shared_parameters())
    weights = InverseNorm()(jacobian @ jacobian.T)
    report = Balancer(InverseNorm()).backward(Step.evaluate(model, tasks, batch))
    torch.testing.assert_close(report.gramian, jacobian @ jacobian.T)
    torch.testing.assert_close(grads(model.shared_parameters()), weights @ jacobian)
    torch.testing.assert_close(grads(heads_of(model)), flat(losses.sum(), heads_of(model)))


def test_tied_heads_are_refused_at_the_representation():
    model, tasks, batch = tied_problem()
    with pytest.raises(UnsupportedError, match="heads share among themselves"):
        Balancer(InverseNorm(), level="representation").backward(Step.evaluate(model, tasks, batch))


def test_the_representation_is_needed_at_its_level():
    p = nn.Parameter(torch.ones(2))
    step = Step({"a": p.sum(), "b": p.square().sum()}, shared=[p])
    with pytest.raises(UnsupportedError, match="a step with a representation"):
        step.rows("representation")


def test_representations_of_several_shapes_are_refused():
    model, tasks, (inputs, targets) = multi_input()
    inputs["b"], targets["b"] = inputs["b"][:4], targets["b"][:4]
    step = Step.evaluate(model, tasks, (inputs, targets))
    with pytest.raises(UnsupportedError, match="of one shape"):
        step.rows("representation", retain_graph=True)
    assert step.rows("parameters").jacobian.shape[0] == 3


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("combine", [None, InverseNorm(), Signs()])
def test_unused_shared_parameters_keep_no_gradient(level, combine):
    model, tasks, batch = problem()
    model.backbone.register_module("spare", nn.Identity())
    model.backbone.spare.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    assert any(p is model.backbone.spare.weight for p in model.shared_parameters())
    Balancer(combine, level=level).backward(Step.evaluate(model, tasks, batch))
    assert model.backbone.spare.weight.grad is None
    assert model.backbone[0].weight.grad is not None


@pytest.mark.parametrize("combine", [None, MGDAWeighting(), GradDrop()])
def test_frozen_backbone(combine):
    model, tasks, batch = problem()
    model.backbone.requires_grad_(False)
    losses, _ = losses_of(model, tasks, batch)
    balancer = Balancer(combine, regularizers=[Activity()])
    balancer.backward(Step.evaluate(model, tasks, batch))
    assert all(p.grad is None for p in model.backbone.parameters())
    torch.testing.assert_close(grads(heads_of(model)), flat(losses.sum(), heads_of(model)))


def test_partly_frozen_backbone():
    model, tasks, batch = problem()
    model.backbone[0].requires_grad_(False)
    losses, _ = losses_of(model, tasks, batch)
    jacobian = jacobian_of(losses, [*model.backbone[2].parameters()])
    Balancer(InverseNorm()).backward(Step.evaluate(model, tasks, batch))
    expected = InverseNorm()(jacobian @ jacobian.T) @ jacobian
    torch.testing.assert_close(grads(model.backbone[2].parameters()), expected)
    assert model.backbone[0].weight.grad is None


@pytest.mark.parametrize("combine", [None, InverseNorm(), Signs()])
def test_gradients_are_added_to_what_is_there(combine):
    model, tasks, batch = problem()
    fresh = copy.deepcopy(model)
    Balancer(combine).backward(Step.evaluate(fresh, tasks, batch))
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)
    Balancer(combine).backward(Step.evaluate(model, tasks, batch))
    torch.testing.assert_close(grads(model.parameters()), 2 + grads(fresh.parameters()))


def test_accumulate_adds_repeated_parameters():
    p = nn.Parameter(torch.zeros(2))
    accumulate([(p, torch.ones(2)), (p, torch.tensor([1.0, 2.0]))])
    accumulate([(p, torch.ones(2))])
    assert p.grad.tolist() == [3.0, 4.0]
    assert not p.grad.requires_grad


def test_gradients_share_no_memory():
    # The gradient of a sum is one expanded number, and both addends of p + q get the same tensor.
    p, q = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    for _ in range(2):
        step = Step({"a": ((p + q) * torch.arange(3.0)).sum(), "b": q.sum()}, shared=[p, q])
        Balancer().backward(step)
    assert p.grad.tolist() == [0.0, 2.0, 4.0]
    assert q.grad.tolist() == [2.0, 4.0, 6.0]
    p.grad, q.grad = None, None
    Balancer().backward(Step({"a": (p + q).exp().sum()}, shared=[p, q]))
    p.grad.mul_(5)
    assert q.grad.tolist() == [1.0, 1.0, 1.0]
    p.grad = None
    for _ in range(2):
        Balancer().backward(Step({"a": p.sum()}, shared=[p]))
    assert p.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_basis_may_leave_tasks_out():
    model, tasks, batch = problem()
    losses, _ = losses_of(model, tasks, batch)
    basis = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    rows = Rows(Step.evaluate(model, tasks, batch), "parameters", basis)
    jacobian = jacobian_of(losses, model.shared_parameters())
    torch.testing.assert_close(rows.jacobian, basis @ jacobian)
    assert [len(pairs) for pairs in rows.heads] == [4, 0]
