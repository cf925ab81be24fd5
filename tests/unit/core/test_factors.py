"""Rows of linear layers as factors: equal to whole rows, and left alone where they do not fit."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.factored import FactoredRows
from mtl.factors import separable_calls
from mtl.parts import Needs
from mtl.rows import Rows
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
    engine = "gramian" if factors else "rows"
    report = Balancer(combine, engine=engine, **options).backward(step)
    return model, step, report


@pytest.mark.parametrize("kind", ["mlp", "no bias", "mixed", "tokens", "reused"])
@pytest.mark.parametrize("make_combine", [lambda: PCGradWeighting(seed=1), MGDAWeighting])
@pytest.mark.parametrize("options", [{}, {"transforms": [Log()]}, {"head_grad": "weighted"}])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equal_to_whole_rows(kind, make_combine, options, scale):
    whole, _, expected = gradients(kind, make_combine(), factors=False, scale=scale, **options)
    model, step, report = gradients(kind, make_combine(), factors=True, scale=scale, **options)
    assert step.factors(5, "gramian"), "no layer was kept as factors: nothing is tested"
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
    assert separable_calls([], [], []) == []


def test_a_layer_with_hooks_is_not_noted():
    model, tasks = make("mlp", 2)
    handle = model.backbone[2].register_forward_hook(lambda layer, inputs, output: 2 * output)
    step = Step.evaluate(model, tasks, batch("mlp", 2), needs=Needs.GRAMIAN)
    kept = {id(p) for factor in step.factors(2, "gramian") for p in factor.parameters}
    assert kept == {id(p) for p in model.backbone[0].parameters()}
    report = Balancer(MGDAWeighting(), engine="gramian").backward(step)
    whole = Step.evaluate(model, tasks, batch("mlp", 2))
    torch.testing.assert_close(report.gramian, whole.rows().gramian)
    handle.remove()


HEADS = {
    "linear": lambda: nn.Linear(40, 1),
    "deep": lambda: nn.Sequential(nn.Linear(40, 8), nn.Tanh(), nn.Linear(8, 1)),
}


def trunk(kind):
    """Backbones for which the passes of all tasks can (not) run as one."""
    torch.manual_seed(5)
    return {
        "mlp": lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.GELU()),
        "no activation": lambda: nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40)),
        "no bias": lambda: nn.Sequential(nn.Linear(6, 40, bias=False), nn.SiLU()),
        "residual": Residual,
        "dropout": lambda: nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.2), nn.Linear(40, 40)),
        "normalized": lambda: nn.Sequential(nn.Linear(6, 40), nn.LayerNorm(40)),
        "unused": Unused,
    }[kind]()


class Residual(nn.Module):
    """Layers in two branches that meet."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 40), nn.Linear(40, 40)

    def forward(self, inputs):
        hidden = torch.relu(self.first(inputs))
        return hidden + torch.tanh(self.second(hidden))


class Unused(nn.Module):
    """A layer that is evaluated, and on which nothing depends."""

    def __init__(self):
        super().__init__()
        self.first, self.aside = nn.Linear(6, 40), nn.Linear(6, 40)

    def forward(self, inputs):
        self.aside(inputs)
        return torch.tanh(self.first(inputs))


AT_ONCE = {
    "mlp": True,
    "no activation": True,
    "no bias": True,
    "residual": True,
    "dropout": False,
    "normalized": False,
    "unused": False,
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", AT_ONCE)
@pytest.mark.parametrize("engine", ["auto", "gramian"])
def test_passes_at_once(kind, head, engine):
    """All engines give the gradients of single passes; linear trunks take one for all tasks."""
    tasks = [Task(f"t{i}", HEADS[head](), nn.MSELoss()) for i in range(5)]
    model = MultiTaskModel(trunk(kind), tasks).double()
    found = []
    for chosen in (engine, "rows"):
        model.zero_grad()
        torch.manual_seed(6)
        step = Step.evaluate(model, tasks, batch("mlp", 5), needs=Needs.GRAMIAN)
        step.scale = 0.25
        products = step.products(engine=chosen)
        report = Balancer(PCGradWeighting(seed=1), engine=chosen).backward(step)
        found.append((report.gramian, [p.grad for p in model.parameters()], products))
    (gramian, grads, products), (whole, expected, _) = found
    assert isinstance(products, FactoredRows if AT_ONCE[kind] else Rows)
    torch.testing.assert_close(gramian, whole)
    for ours, theirs in zip(grads, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


def test_a_loss_that_sees_the_trunk_past_the_representation():
    """Then its gradient does not all come through the representation."""
    model, tasks = make("mlp", 2)
    step = Step.evaluate(model, tasks, batch("mlp", 2), needs=Needs.GRAMIAN)
    hidden = model.backbone[0](batch("mlp", 2)[0])
    direct = Step(
        {"t0": step.losses["t0"], "t1": step.losses["t1"] + hidden.square().mean()},
        shared=step.shared,
        representation=step.representation,
        linear_calls=step._linear_calls,
    )
    assert isinstance(direct.products(engine="gramian"), Rows)
    torch.testing.assert_close(direct.products(engine="gramian").gramian, direct.rows().gramian)


def test_partial_labels_at_once():
    model, tasks = make("mlp", 3)
    inputs, targets = batch("mlp", 3)
    targets["t1"][:] = torch.nan
    steps = [Step.evaluate(model, tasks, (inputs, targets), needs=Needs.GRAMIAN) for _ in range(2)]
    products = steps[0].products(engine="gramian")
    assert isinstance(products, FactoredRows)
    torch.testing.assert_close(products.gramian, steps[1].rows().gramian)


def test_small_layers_are_not_noted(monkeypatch):
    monkeypatch.setattr("mtl.factors._LEAST", 41 * 40)
    model, tasks = make("mlp", 5)
    assert not Step.evaluate(model, tasks, batch("mlp", 5), needs=Needs.GRAMIAN).factors(5)
