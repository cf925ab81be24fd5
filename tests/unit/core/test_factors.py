"""Rows of linear layers as factors: equal to whole rows, and left alone where they do not fit."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.factors import worthwhile
from mtl.parts import Needs
from mtl.transforms import Log


@pytest.fixture(autouse=True)
def _small_layers_too(monkeypatch):
    monkeypatch.setattr("mtl.factors._LEAST", 0)


class Tokens(nn.Module):
    """Linear layers on `[B, S, C]`, then a mean over S."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 40), nn.GELU(), nn.Linear(40, 40), nn.GELU())

    def forward(self, inputs):
        return self.layers(inputs).mean(1)


class Reused(nn.Module):
    """One layer evaluated twice, one whose weight is used by hand as well, one that fits."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Linear(6, 40), nn.Linear(40, 40)
        self.by_hand, self.last = nn.Linear(40, 40), nn.Linear(40, 40)

    def forward(self, inputs):
        hidden = self.twice(torch.tanh(self.twice(torch.tanh(self.first(inputs)))))
        hidden = torch.tanh(self.by_hand(hidden))
        hidden = hidden + functional.linear(hidden, self.by_hand.weight)
        return torch.tanh(self.last(torch.tanh(hidden)))


def make(kind, num_tasks):
    torch.manual_seed(3)
    backbone = {
        "mlp": lambda: nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh()),
        "no bias": lambda: nn.Sequential(nn.Linear(6, 40, bias=False), nn.Tanh()),
        "mixed": lambda: nn.Sequential(nn.Linear(6, 40), nn.LayerNorm(40), nn.Linear(40, 40)),
        "tokens": Tokens,
        "reused": Reused,
    }[kind]()
    tasks = [Task(f"t{i}", nn.Linear(40, 1), nn.MSELoss()) for i in range(num_tasks)]
    return MultiTaskModel(backbone, tasks).double(), tasks


def batch(kind, num_tasks, samples=4):
    generator = torch.Generator().manual_seed(4)
    shape = (samples, 2, 6) if kind == "tokens" else (samples, 6)
    inputs = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return inputs, {
        f"t{i}": torch.randn(samples, 1, generator=generator, dtype=torch.float64)
        for i in range(num_tasks)
    }


def gradients(kind, combine, *, factors, num_tasks=5, scale=1.0, **options):
    model, tasks = make(kind, num_tasks)
    needs = Needs.GRAMIAN if factors else Needs.LOSSES
    step = Step.evaluate(model, tasks, batch(kind, num_tasks), needs=needs)
    step.scale = scale
    report = Balancer(combine, **options).backward(step)
    return model, step, report


@pytest.mark.parametrize("kind", ["mlp", "no bias", "mixed", "tokens", "reused"])
@pytest.mark.parametrize("make_combine", [lambda: PCGradWeighting(seed=1), MGDAWeighting])
@pytest.mark.parametrize("options", [{}, {"transforms": [Log()]}, {"head_grad": "weighted"}])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equal_to_whole_rows(kind, make_combine, options, scale):
    whole, _, expected = gradients(kind, make_combine(), factors=False, scale=scale, **options)
    model, step, report = gradients(kind, make_combine(), factors=True, scale=scale, **options)
    assert step.factors(5), "no layer was kept as factors: nothing is tested"
    torch.testing.assert_close(report.gramian, expected.gramian)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_only_layers_that_qualify():
    model, tasks = make("reused", 5)
    step = Step.evaluate(model, tasks, batch("reused", 5), needs=Needs.GRAMIAN)
    kept = {id(p) for factor in step.factors(5) for p in factor.parameters}
    assert id(model.backbone.last.weight) in kept
    assert id(model.backbone.twice.weight) not in kept
    assert id(model.backbone.by_hand.weight) not in kept


def test_frozen_and_tied_layers_stay_out():
    model, tasks = make("mlp", 5)
    model.backbone[0].weight.requires_grad_(False)
    model.heads["t0"].weight = model.heads["t1"].weight
    step = Step.evaluate(model, tasks, batch("mlp", 5), needs=Needs.GRAMIAN)
    kept = {id(p) for factor in step.factors(5) for p in factor.parameters}
    assert id(model.backbone[2].weight) in kept
    assert id(model.backbone[0].bias) not in kept
    assert not any(id(p) in kept for head in model.heads.values() for p in head.parameters())


def test_many_samples_are_cheaper_as_rows():
    model, tasks = make("mlp", 5)
    few, many = (
        Step.evaluate(model, tasks, batch("mlp", 5, samples), needs=Needs.GRAMIAN)
        for samples in (4, 4000)
    )
    assert few.factors(5)
    assert not many.factors(5)


def test_an_aggregator_gets_the_whole_jacobian():
    whole, _, _ = gradients("mlp", GradDrop(seed=2), factors=False)
    model, _, _ = gradients("mlp", GradDrop(seed=2), factors=True)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_subclasses_and_hooks_are_not_noted():
    class Scaled(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    tasks = [Task(name, nn.Linear(40, 1), nn.MSELoss()) for name in ("t0", "t1")]
    model = MultiTaskModel(nn.Sequential(Scaled(6, 40), nn.Tanh()), tasks).double()
    step = Step.evaluate(model, tasks, batch("mlp", 2), needs=Needs.GRAMIAN)
    assert not step.factors(2)
    assert not any(m._forward_hooks for m in model.modules())
    assert worthwhile([], [], [], 2) == []


def test_small_layers_are_not_noted(monkeypatch):
    monkeypatch.setattr("mtl.factors._LEAST", 41 * 40)
    model, tasks = make("mlp", 5)
    assert not Step.evaluate(model, tasks, batch("mlp", 5), needs=Needs.GRAMIAN).factors(5)
