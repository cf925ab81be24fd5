"""Rows that are differentiated again give what rows that are kept give."""

import pytest
import torch
from torch import nn

from mtl import Balancer, Step, Task
from mtl.aggregation import Every, ExcessMTL, GradDrop, NashMTLWeighting, PCGradWeighting
from mtl.engine import Objectives
from mtl.errors import ConfigError, NonFiniteError
from mtl.report import describe_cost
from mtl.rows import Rows
from mtl.sharpness import JointSAM, TaskSAM
from mtl.streaming import passes
from mtl.transforms import Log
from tests.unit.core.toy import Groups, Products, problem

FIVE = ("a", "b", "c", "d", "e")
LIMITS = [1, 2, 3, 4, 5, 9]


def gradients(max_rows, *, combine=PCGradWeighting, transforms=(), sharpness=None, **options):
    model, tasks, batch = problem(FIVE)
    torch.manual_seed(0)
    balancer = Balancer(
        combine(), transforms=list(transforms), sharpness=sharpness, max_rows=max_rows, **options
    )
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    step.scale = 0.5
    report = balancer.backward(step)
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]), report


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"combine": NashMTLWeighting},
        {"transforms": [Log()]},
        {"transforms": [Groups()]},
        {"transforms": [Products()]},
        {"head_grad": "weighted"},
        {"sharpness": JointSAM(rho=0.1)},
    ],
    ids=["plain", "nash", "log", "fewer objectives", "products", "heads weighted", "sharpness"],
)
def test_the_same_gradients_and_gramian(limit, options):
    kept, expected = gradients(None, **options)
    streamed, report = gradients(limit, **options)
    torch.testing.assert_close(streamed, kept, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(report.gramian, expected.gramian, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("limit", LIMITS)
def test_no_more_rows_are_kept_and_passes_are_those_that_are_said(limit, monkeypatch):
    """Each `Rows` has one row; `limit` of them are copied, where there are more than that."""
    made = []
    init = Rows.__init__

    def note(self, *args, **options):
        init(self, *args, **options)
        made.append(len(self.jacobian))

    monkeypatch.setattr(Rows, "__init__", note)
    gradients(limit)
    combination = limit < len(FIVE)
    assert sum(made) + combination == passes(len(FIVE), limit)
    assert set(made) == ({1} if limit < len(FIVE) else {len(FIVE)})


def test_the_cost_is_said():
    model, _, _ = problem(FIVE)
    text = describe_cost(Balancer(PCGradWeighting(), max_rows=2), model, 5)
    assert "10 backward passes" in text  # 5 + 3 + 1, and the combination
    everything = describe_cost(Balancer(PCGradWeighting()), model, 5)
    assert "5 backward passes" in everything


def test_a_row_that_is_not_finite_is_named():
    class Broken(nn.Module):
        def forward(self, prediction, target):
            return (prediction - target).abs().sqrt().mean()  # no slope where they are equal

    model, tasks, (inputs, targets) = problem(("a", "c", "d"))
    tasks[1] = Task("c", model.heads["c"], Broken())
    with torch.no_grad():
        targets["c"] = model(inputs).predictions["c"].clone()
    step = Step.evaluate(model, tasks, (inputs, targets))
    with pytest.raises(NonFiniteError) as error:
        Objectives(step, max_rows=1).gramian  # noqa: B018
    assert error.value.tasks == ("c",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows": 0}, "1 or more"),
        ({"max_rows": 2, "combine": GradDrop()}, "GradDrop, which needs all rows at once"),
        ({"max_rows": 1, "combine": ExcessMTL(3)}, "ExcessMTL, which needs all rows at once"),
        ({"max_rows": 1, "combine": Every(ExcessMTL(3), 3, every=2)}, "all rows at once"),
        ({"max_rows": 2, "level": "representation"}, 'should be "parameters"'),
        ({"max_rows": 2, "sharpness": TaskSAM()}, "joint_sam"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Balancer(**({"combine": PCGradWeighting()} | options))
