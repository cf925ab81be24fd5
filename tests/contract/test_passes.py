"""Every registered balancer x what a step costs: what is said before training is what it takes."""

import math
import re

import pytest

from mtl import Step
from mtl.parts import Needs
from mtl.report import describe_cost
from tests.support import VARIANTS, ToyData, make_balancer, make_model

EPOCHS = 3


class Passes:
    """How often a step goes back through a module."""

    def __init__(self, module):
        self.forward = self.backward = 0
        self.handle = module.register_forward_hook(self._note)

    def _note(self, module, inputs, output):
        if output.requires_grad:
            self.forward += 1
            output.register_hook(self._count)

    def _count(self, gradient):
        self.backward += 1


def steps(variant, num_tasks):
    """What is said, and for a few steps the passes through backbone and heads."""
    model, tasks = make_model(num_tasks)
    balancer = make_balancer(variant, num_tasks)
    counted = []
    for epoch in range(EPOCHS):
        balancer.on_epoch_start(epoch)
        backbone = Passes(model.backbone[0])
        heads = [Passes(head) for head in model.heads.values()]
        batch = ToyData(num_tasks=num_tasks).batch(slice(0, 6))
        step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
        balancer.backward(step)
        counted.append((backbone, heads))
        for passes in (backbone, *heads):
            passes.handle.remove()
        balancer.after_step(step)
    objectives = balancer.clusters([task.name for task in tasks]) or tasks
    return balancer, describe_cost(balancer, model, len(objectives)), counted


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_takes_as_many_passes_as_it_says(variant, num_tasks):
    balancer, text, counted = steps(variant, num_tasks)
    level = r"(\d+) through the backbone" if "through the backbone" in text else r"(\d+) backward"
    said = int(re.search(level, text)[1])
    taken = max(backbone.backward for backbone, _ in counted)
    if balancer.sharpness is None:
        assert taken == said
    else:
        assert taken > said
        assert "evaluates the batch again" in text


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_never_run_backwards_more_than_once_an_evaluation(variant):
    """T passes through T heads, not T x T; rows that are not kept are differentiated again.

    Weights that are reused take the heads apart. Saliencies are a pass of their own through each
    head, and where rows at the representation are compared, these are another.
    """
    balancer, _, counted = steps(variant, 5)
    saliency = Needs.SALIENCY in balancer.needs
    rows = bool(balancer.combine.needs & (Needs.GRAMIAN | Needs.JACOBIAN))
    an_evaluation = 1 + saliency * (1 + rows)
    if balancer.max_rows is not None:
        an_evaluation += math.ceil(5 / balancer.max_rows)
    for _, heads in counted:
        for head in heads:
            most = 2 if "every" in variant else head.forward * an_evaluation
            assert 1 <= head.backward <= most
