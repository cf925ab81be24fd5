"""Modifiers of weightings: moving average, reuse between steps, preference."""

import copy

import pytest
import torch

from mtl import Balancer, Step
from mtl.aggregation import (
    EMA,
    ConFIGWeighting,
    Every,
    GradDrop,
    MGDAWeighting,
    PCGradWeighting,
    Preference,
)
from mtl.engine import Objectives
from mtl.errors import ConfigError, UnsupportedError
from mtl.parts import Combiner, Weighting
from mtl.regularizers import Activity
from mtl.scalarization import EqualWeighting, GradNorm
from mtl.transforms import Log
from tests.unit.core.toy import normal, problem


def gramians(count, size=3):
    rows = normal(count, size, 6)
    return list(rows @ rows.transpose(1, 2))


def step_of(present=("a", "b", "c"), seed=0):
    model, tasks, (inputs, targets) = problem(seed=seed)
    targets = {name: target for name, target in targets.items() if name in present}
    return model, Step.evaluate(model, tasks, (inputs, targets))


def gradients(balancer, present=("a", "b", "c"), seed=0):
    """Report, and the gradients of the trunk and of the present heads."""
    model, step = step_of(present, seed)
    report = balancer.backward(step)
    heads = [p.grad for name in present for p in model.heads[name].parameters()]
    return report, [p.grad for p in model.backbone.parameters()], heads


# --------------------------------------------------------------------------------- moving average


def test_ema_over_steps():
    method = EMA(MGDAWeighting(), 3, decay=0.7).double()
    average = None
    for gram in gramians(8):
        weights = MGDAWeighting()(gram)
        average = weights if average is None else 0.7 * average + 0.3 * weights
        torch.testing.assert_close(method(gram), average)


def test_ema_agrees_with_torchjd():
    library = pytest.importorskip("torchjd.aggregation")
    reference = library.CRMOGMWeighting(library.MGDAWeighting(), alpha=0.9)
    method = EMA(library.MGDAWeighting(), 3, decay=0.9).double()
    for gram in gramians(6):
        torch.testing.assert_close(method(gram), reference(gram))


def test_ema_of_absent_tasks():
    method = EMA(MGDAWeighting(), 3, decay=0.5).double()
    full, pair = gramians(1)[0], gramians(1, 2)[0]
    method.present = torch.tensor([0, 2])
    first = method(pair)
    torch.testing.assert_close(first, MGDAWeighting()(pair))
    method.present = slice(None)
    weights = MGDAWeighting()(full)
    expected = 0.5 * weights
    expected[[0, 2]] += 0.5 * first
    expected[1] = weights[1]  # seen for the first time
    torch.testing.assert_close(method(full), expected)


def test_ema_continues_from_its_state():
    old = EMA(MGDAWeighting(), 3)
    for gram in gramians(4):
        old(gram)
    fresh = EMA(MGDAWeighting(), 3)
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    assert torch.equal(old(gramians(5)[4]), fresh(gramians(5)[4]))


# -------------------------------------------------------------------------------------- every n-th


class Counting(Weighting):
    def __init__(self, weights, head_grad="own"):
        super().__init__()
        self.weights, self.head_grad, self.calls = weights, head_grad, 0

    def forward(self, gramian):
        self.calls += 1
        return torch.tensor(self.weights, dtype=gramian.dtype)[self.present]


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize("head_grad", ["own", "weighted"])
@pytest.mark.parametrize("extras", [False, True])
def test_steps_between_have_the_gradients_of_a_full_step(level, head_grad, extras):
    """Also with a weight of zero, whose head still follows its own objective."""
    options = {"level": level, "head_grad": head_grad}
    if extras:
        options |= {"transforms": [Log()], "regularizers": [Activity(strength=0.1)]}
    weights = [0.3, 0.0, 2.0]
    method = Counting(weights)
    reused = Balancer(Every(method, 3, every=2).double(), **options)
    full = Balancer(Counting(weights), **options)
    for seed in range(4):
        found, expected = gradients(reused, seed=seed), gradients(full, seed=seed)
        assert (found[0].gramian is None) == (seed % 2 == 1)
        torch.testing.assert_close(found[0].weights, expected[0].weights)
        for a, b in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
            torch.testing.assert_close(a, b)
    assert method.calls == 2


def test_no_rows_between(monkeypatch):
    balancer = Balancer(Every(MGDAWeighting(), 3, every=3))
    asked = []
    plain = Objectives._rows.func
    monkeypatch.setattr(Objectives, "_rows", property(lambda self: asked.append(1) or plain(self)))
    counts = []
    for seed in range(7):
        asked.clear()
        gradients(balancer, seed=seed)
        counts.append(bool(asked))
    assert counts == [True, False, False, True, False, False, True]


def test_every_with_a_new_task_asks_at_once():
    method = Counting([1.0, 2.0, 3.0])
    balancer = Balancer(Every(method, 3, every=10))
    gradients(balancer, ("a", "c"))
    report, *_ = gradients(balancer, ("c",))
    assert report.weights.tolist() == [3.0]
    assert method.calls == 1
    report, *_ = gradients(balancer)
    assert report.weights.tolist() == [1.0, 2.0, 3.0]
    assert method.calls == 2
    gradients(balancer, ("b",))
    assert method.calls == 2


def test_every_does_not_count_skipped_steps():
    method = Counting([1.0, 1.0, 1.0])
    balancer = Balancer(Every(method, 3, every=2))
    _, step = step_of()
    step.losses["a"] = step.losses["a"] * torch.tensor(float("nan"))
    assert balancer.backward(step).nonfinite == ("a",)
    gradients(balancer)
    gradients(balancer)
    assert method.calls == 1


def test_every_continues_from_its_state():
    old = Balancer(Every(MGDAWeighting(), 3, every=3))
    for seed in range(2):
        gradients(old, seed=seed)
    fresh = Balancer(Every(MGDAWeighting(), 3, every=3))
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    for seed in (2, 3):
        first, second = gradients(old, seed=seed), gradients(fresh, seed=seed)
        assert (first[0].gramian is None) == (second[0].gramian is None) == (seed == 2)
        assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_a_report_does_not_change_later():
    for method in (Every(PCGradWeighting(seed=0), 3, every=2), GradNorm(3, lr=0.5)):
        balancer = Balancer(method)
        gradients(balancer)
        report, *_ = gradients(balancer)
        kept = report.weights.clone()
        for seed in range(1, 4):
            gradients(balancer, seed=seed)
        assert torch.equal(report.weights, kept)


def test_every_takes_other_combiners_and_modifiers():
    norm = Balancer(Every(GradNorm(3), 3, every=2))
    assert gradients(norm)[0].weights.tolist() == [1.0] * 3
    assert norm.head_grad == "weighted"
    stacked = Balancer(Every(EMA(Preference(MGDAWeighting(), [1.0, 2.0, 3.0]), 3), 3, every=2))
    assert gradients(stacked)[0].gramian is not None
    assert gradients(stacked)[0].gramian is None


def test_every_of_what_does_not_weigh():
    class Plain(Combiner):
        def combine(self, objectives):
            return objectives.minimize(objectives.values.sum())

    with pytest.raises(UnsupportedError, match="Plain does not"):
        gradients(Balancer(Every(Plain(), 3, every=2)))


# -------------------------------------------------------------------------------------- preference


@pytest.mark.parametrize("inner", [MGDAWeighting, ConFIGWeighting])
def test_preference_is_that_of_scaled_gradients(inner):
    rows, preference = normal(3, 8), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    scaled = preference[:, None] * rows
    expected = inner()(scaled @ scaled.T) @ scaled
    found = Preference(inner(), preference.tolist())(rows @ rows.T) @ rows
    torch.testing.assert_close(found, expected)


def test_preference_among_present_tasks_and_none():
    pair = gramians(1, 2)[0]
    method = Preference(MGDAWeighting(), [0.5, 1.0, 4.0])
    method.present = torch.tensor([0, 2])
    expected = Preference(MGDAWeighting(), [0.5, 4.0])(pair)
    torch.testing.assert_close(method(pair), expected)
    torch.testing.assert_close(Preference(MGDAWeighting())(pair), MGDAWeighting()(pair))


@pytest.mark.parametrize(
    "build",
    [
        lambda: EMA(MGDAWeighting(), 3, decay=1.0),
        lambda: EMA(GradDrop(), 3),
        lambda: EMA(Every(MGDAWeighting(), 3, every=2), 3),
        lambda: Every(MGDAWeighting(), 3, every=0),
        lambda: Every(EqualWeighting(), 3, every=2),
        lambda: Every(GradDrop(), 3, every=2),
        lambda: Preference(EqualWeighting(), [1.0]),
        lambda: Preference(MGDAWeighting(), [1.0, -1.0]),
    ],
)
def test_options_that_do_not_fit(build):
    with pytest.raises(ConfigError, match="should be"):
        build()


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("kind", ["zeros", "identical", "opposite"])
def test_degenerate_gradients_never_give_nan(kind, scale):
    rows = {"zeros": torch.zeros(2, 4), "identical": torch.ones(2, 4),
            "opposite": torch.tensor([[1.0] * 4, [-1.0] * 4])}[kind].double() * scale  # fmt: skip
    method = EMA(Preference(MGDAWeighting(), [1.0, 3.0]), 2)
    for _ in range(3):
        assert bool(method(rows @ rows.T).isfinite().all())
