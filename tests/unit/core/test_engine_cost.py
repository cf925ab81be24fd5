"""How often heads and backbone run forwards and backwards in one step."""

import pytest
import torch
from torch import Tensor, nn

from mtl import Balancer, Step
from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.regularizers import Activity
from mtl.scalarization import RandomLossWeighting, UncertaintyWeighting
from mtl.transforms import Log
from tests.unit.core.toy import Groups, Products, multi_input, problem


class _Tick(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, counts):
        ctx.counts = counts
        counts["forward"] += 1
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        ctx.counts["backward"] += 1
        return gradient, None


class Ticking(nn.Module):
    """A module that counts its passes; its own layer lies before what counts them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.counts = {"forward": 0, "backward": 0}

    def forward(self, x: Tensor) -> Tensor:
        return _Tick.apply(self.inner(x), self.counts)


def run(balancer, build=problem):
    """Passes through the backbone's first layer, and through each head."""
    model, tasks, batch = build()
    model.backbone[0] = Ticking(model.backbone[0])
    for name in model.heads:
        model.heads[name] = Ticking(model.heads[name])
    balancer.backward(Step.evaluate(model, tasks, batch))
    return model.backbone[0].counts, [head.counts for head in model.heads.values()]


ONCE = {"forward": 1, "backward": 1}


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize(
    ("combine", "transforms"),
    [
        (None, None),
        (None, [Groups()]),
        (RandomLossWeighting(), [Products()]),
        (UncertaintyWeighting(3), [Log()]),
    ],
)
def test_scalarizers_differentiate_once(combine, transforms, level):
    balancer = Balancer(combine, transforms=transforms, level=level, regularizers=[Activity()])
    backbone, heads = run(balancer)
    assert backbone == ONCE
    assert heads == [ONCE] * 3


COMBINERS = [MGDAWeighting(), PCGradWeighting(), GradDrop()]


@pytest.mark.parametrize("combine", COMBINERS)
@pytest.mark.parametrize("head_grad", ["own", None])
@pytest.mark.parametrize(
    ("transforms", "passes"), [(None, 3), ([Log()], 3), ([Groups()], 2), ([Products()], 3)]
)
def test_one_pass_through_the_backbone_a_task_at_the_parameters(
    combine, transforms, passes, head_grad
):
    backbone, heads = run(Balancer(combine, transforms=transforms, head_grad=head_grad))
    assert backbone == {"forward": 1, "backward": passes}
    assert heads == [ONCE] * 3


@pytest.mark.parametrize("combine", COMBINERS)
@pytest.mark.parametrize("transforms", [None, [Log()], [Groups()], [Products()]])
def test_one_pass_through_the_backbone_at_the_representation(combine, transforms):
    backbone, heads = run(Balancer(combine, transforms=transforms, level="representation"))
    assert backbone == ONCE
    assert heads == [ONCE] * 3


@pytest.mark.parametrize(("level", "passes"), [("parameters", 3), ("representation", 3)])
def test_multi_input_passes(level, passes):
    # The backbone runs once a task; each pass back goes through one task's graph only.
    backbone, heads = run(Balancer(MGDAWeighting(), level=level), multi_input)
    assert backbone == {"forward": 3, "backward": passes}
    assert heads == [ONCE] * 3


def test_regularizers_take_one_pass_more():
    backbone, heads = run(Balancer(MGDAWeighting(), regularizers=[Activity()]))
    assert backbone == {"forward": 1, "backward": 4}
    assert heads == [ONCE] * 3


def test_a_single_task_takes_one_pass():
    backbone, heads = run(Balancer(MGDAWeighting()), lambda: problem(("a",)))
    assert backbone == ONCE
    assert heads == [ONCE]


@pytest.mark.parametrize("combine", [MGDAWeighting(), GradDrop()])
def test_the_graph_is_freed(combine):
    model, tasks, batch = problem()
    step = Step.evaluate(model, tasks, batch)
    Balancer(combine).backward(step)
    with pytest.raises(RuntimeError, match="second time"):
        step.gradient(torch.ones(3))
