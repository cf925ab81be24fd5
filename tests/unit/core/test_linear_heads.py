"""Heads of one linear layer: gradients at the representation as factors, equal to rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import MGDAWeighting, PCGradWeighting
from mtl.heads import LinearHeadRows, factors_pay, head_weight
from mtl.parts import Needs
from mtl.rows import Rows
from mtl.transforms import Log
from tests.unit.core.toy import grads


class ByHand(nn.Module):
    """Written with functions, and deep in a module."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8))

    def forward(self, inputs):
        return functional.linear(inputs, self.weight)


class Generated(ByHand):
    """The weight depends on the input."""

    def forward(self, inputs):
        return functional.linear(inputs, self.weight * inputs.mean())


class Twice(ByHand):
    """The input is read in two places."""

    def forward(self, inputs):
        return functional.linear(inputs, self.weight) + inputs[:, :3].square()


class Changed(ByHand):
    """Not of the input itself."""

    def forward(self, inputs):
        return functional.linear(inputs.tanh(), self.weight)


def frozen():
    return nn.Linear(8, 3).requires_grad_(False)


VECTORS = {
    "linear": (lambda: nn.Linear(8, 3), True),
    "no bias": (lambda: nn.Linear(8, 1, bias=False), True),
    "frozen": (frozen, True),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Linear(8, 3))), True),
    "by hand": (ByHand, True),
    "generated": (Generated, False),
    "twice": (Twice, False),
    "changed": (Changed, False),
    "deep": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2)), False),
    "activated": (lambda: nn.Sequential(nn.Linear(8, 3), nn.Tanh()), False),
    "identity": (nn.Identity, False),
}
MAPS = {
    "1x1": (lambda: nn.Conv2d(8, 3, 1), True),
    "no bias": (lambda: nn.Conv2d(8, 1, 1, bias=False), True),
    "grouped": (lambda: nn.Conv2d(8, 4, 1, groups=2), False),
    "strided": (lambda: nn.Conv2d(8, 3, 1, stride=2), False),
    "padded": (lambda: nn.Conv2d(8, 3, 1, padding=1), False),
    "3x3": (lambda: nn.Conv2d(8, 3, 3, padding=1), False),
    "transposed": (lambda: nn.ConvTranspose2d(8, 3, 1), False),
}


def problem(dense, *heads):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3), nn.Tanh()] if dense else [nn.Linear(5, 8), nn.Tanh()]
    tasks = [Task(f"t{i}", make(), nn.MSELoss()) for i, make in enumerate(heads)]
    model = MultiTaskModel(nn.Sequential(*layers), tasks).double()
    inputs = torch.randn(6, 2, 7, 6) if dense else torch.randn(6, 5)
    inputs = inputs.double()
    predictions = model(inputs).predictions
    return model, tasks, (inputs, {k: torch.randn_like(v) for k, v in predictions.items()})


@pytest.mark.parametrize("name", VECTORS)
def test_the_weight_is_read_off_the_graph(name):
    make, linear = VECTORS[name]
    _check_weight(make, torch.randn(6, 8), linear)


@pytest.mark.parametrize("name", MAPS)
def test_the_weight_of_a_convolution(name):
    make, linear = MAPS[name]
    _check_weight(make, torch.randn(6, 8, 4, 5), linear)


def _check_weight(make, inputs, linear):
    torch.manual_seed(1)
    head, inputs = make().double(), inputs.double().requires_grad_()
    features = inputs * 1
    prediction = head(features)
    weight = head_weight(prediction, features)
    assert (weight is not None) == linear
    if linear:
        gradient = torch.randn_like(prediction)
        (expected,) = torch.autograd.grad(prediction, inputs, gradient)
        found = torch.einsum("bk...,kc->bc...", gradient, weight)
        torch.testing.assert_close(found, expected)


def test_a_frozen_trunk_has_no_gradient_there():
    inputs = torch.randn(6, 8)
    assert head_weight(nn.Linear(8, 3)(inputs), inputs) is None


def test_a_head_in_a_checkpoint():
    inputs = torch.randn(6, 8, requires_grad=True)
    features = inputs * 1
    layer = nn.Linear(8, 3)
    prediction = checkpoint(layer, features, use_reentrant=False)
    torch.testing.assert_close(head_weight(prediction, features), layer.weight.detach())


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("make_combine", [lambda: PCGradWeighting(seed=1), MGDAWeighting])
@pytest.mark.parametrize("options", [{}, {"transforms": [Log()]}, {"head_grad": "weighted"}])
def test_equal_to_rows(dense, make_combine, options):
    kinds = MAPS if dense else VECTORS
    heads = [make for make, linear in kinds.values() if linear][:3]
    model, tasks, batch = problem(dense, *heads)
    found = []
    for engine in ("gramian", "rows"):
        model.zero_grad()
        step = Step.evaluate(model, tasks, batch, needs=Needs.REPRESENTATION | Needs.GRAMIAN)
        step.scale = 0.25
        kind = LinearHeadRows if engine == "gramian" else Rows
        assert isinstance(step.products("representation", engine=engine), kind)
        balancer = Balancer(make_combine(), level="representation", engine=engine, **options)
        report = balancer.backward(step)
        trained = [p for p in model.parameters() if p.requires_grad]
        found.append((report.gramian, report.weights, grads(trained)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_other_head_is_enough_for_rows():
    model, tasks, batch = problem(False, lambda: nn.Linear(8, 3), Twice)
    step = Step.evaluate(model, tasks, batch)
    assert isinstance(step.products("representation", engine="gramian"), Rows)


def test_partial_labels():
    model, tasks, (inputs, targets) = problem(False, *[lambda: nn.Linear(8, 3)] * 3)
    targets["t1"][:] = torch.nan
    targets["t2"][:4] = torch.nan
    step = Step.evaluate(model, tasks, (inputs, targets))
    products = step.products("representation", engine="gramian")
    assert isinstance(products, LinearHeadRows)
    again = Step.evaluate(model, tasks, (inputs, targets))
    torch.testing.assert_close(products.gramian, again.rows("representation").gramian)


def test_by_cost():
    weight = torch.empty(10, 512)
    assert factors_pay([weight] * 3)
    assert factors_pay([weight] * 40)
    assert not factors_pay([torch.empty(1000, 512)] * 3)


def test_heads_run_backwards_once():
    model, tasks, batch = problem(False, *[lambda: nn.Linear(8, 3)] * 4)
    passes = {"trunk": 0, "heads": 0}

    def count(part):
        def hook(_):
            passes[part] += 1

        return hook

    model.backbone[0].register_forward_hook(
        lambda layer, inputs, output: output.register_hook(count("trunk")) and None
    )
    step = Step.evaluate(model, tasks, batch, needs=Needs.REPRESENTATION | Needs.GRAMIAN)
    for loss in step.losses.values():
        loss.register_hook(count("heads"))
    Balancer(MGDAWeighting(), level="representation", engine="gramian").backward(step)
    assert passes == {"trunk": 1, "heads": 4}
