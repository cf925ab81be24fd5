"""Step: what is known of a batch, and single gradients of it."""

import pytest
import torch
from torch import nn

from mtl import MultiTaskModel, Step, Task
from mtl.errors import NonFiniteError, TaskError, UnsupportedError
from mtl.losses import MSE
from mtl.parts import Needs
from tests.unit.core.toy import (
    flat,
    losses_of,
    multi_input,
    normal,
    problem,
    tasks_of,
)

NAN = float("nan")


def without(batch, name, how):
    """The batch where one task has no labels."""
    inputs, targets = batch[0], dict(batch[1])
    if how == "missing":
        del targets[name]
    elif how == "nan":
        targets[name] = torch.full_like(targets[name], NAN)
    else:
        targets[name] = torch.full_like(targets[name], -1)
    return inputs, targets


def flatten(gradients, parameters):
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for g, p in zip(gradients, parameters, strict=True)
        ]
    )


def test_values_are_the_losses_in_task_order():
    model, tasks, batch = problem()
    step = Step.evaluate(model, tasks, batch)
    expected, _ = losses_of(model, tasks, batch)
    assert step.present == step.tasks == ("a", "b", "c")
    torch.testing.assert_close(step.values, expected.detach(), rtol=0, atol=0)
    assert not step.values.requires_grad
    turned = Step.evaluate(model, tasks[::-1], batch)
    torch.testing.assert_close(turned.values, expected.detach().flip(0), rtol=0, atol=0)


def test_half_precision_losses_are_summed_up_in_float32():
    parameter = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    step = Step({"a": parameter.sum()}, shared=[parameter])
    assert step.values.dtype == torch.float32
    assert step.values.tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "how"), [("a", "missing"), ("b", "missing"), ("a", "nan"), ("b", "negative")]
)
def test_tasks_without_labels_are_absent(name, how):
    model, tasks, batch = problem()
    full, _ = losses_of(model, tasks, batch)
    step = Step.evaluate(model, tasks, without(batch, name, how))
    keep = [i for i, task in enumerate(tasks) if task.name != name]
    assert step.tasks == ("a", "b", "c")
    assert step.present == tuple(tasks[i].name for i in keep)
    torch.testing.assert_close(step.values, full.detach()[keep])
    weights = torch.tensor([2.0, -3.0], dtype=torch.float64)
    gradients = step.gradient(weights)
    full, _ = losses_of(model, tasks, batch)
    expected = flat((weights * full[keep]).sum(), step.parameters)
    torch.testing.assert_close(flatten(gradients, step.parameters), expected)


def test_partly_labelled_tasks_are_present():
    model, tasks, (inputs, targets) = problem()
    targets["a"][1:] = NAN
    targets["b"][2:] = -1
    step = Step.evaluate(model, tasks, (inputs, targets))
    assert step.present == ("a", "b", "c")
    step.check_finite()


def test_no_task_present():
    model, tasks, batch = problem(("a",))
    step = Step.evaluate(model, tasks, without(batch, "a", "nan"))
    assert step.present == ()
    assert step.values.shape == (0,)
    step.check_finite()
    assert all(g is None for g in step.gradient(torch.ones_like(step.values)))


def test_a_step_without_any_loss_has_no_task_present():
    parameter = nn.Parameter(torch.ones(2))
    step = Step({"a": None, "b": None}, shared=[parameter])
    assert step.present == ()
    assert step.gradient(step.values) == [None]


def test_check_finite_names_the_tasks():
    model, tasks, (inputs, targets) = problem()
    Step.evaluate(model, tasks, (inputs, targets)).check_finite()
    with torch.no_grad():
        model.heads["a"].bias.fill_(NAN)
        model.heads["c"].bias.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="a, c is not finite") as caught:
        Step.evaluate(model, tasks, (inputs, targets)).check_finite()
    assert caught.value.tasks == ("a", "c")
    # An absent task's loss does not count.
    p = nn.Parameter(torch.ones(1))
    counts = {"a": torch.tensor(0), "b": torch.tensor(3)}
    Step({"a": NAN * p.sum(), "b": p.sum()}, shared=[p], counts=counts).check_finite()


def test_gradient_is_that_of_the_weighted_sum():
    model, tasks, batch = problem()
    weights = torch.tensor([0.5, 0.0, -2.0], dtype=torch.float64)
    losses, _ = losses_of(model, tasks, batch)
    step = Step.evaluate(model, tasks, batch)
    expected = flat((weights * losses).sum(), step.parameters)
    found = flatten(step.gradient(weights, retain_graph=True), step.parameters)
    torch.testing.assert_close(found, expected)
    assert all(p.grad is None for p in model.parameters())
    step.scale = 3.0
    torch.testing.assert_close(flatten(step.gradient(weights), step.parameters), 3 * expected)


def test_parameters_come_shared_first_then_in_task_order():
    model, tasks, batch = problem()
    step = Step.evaluate(model, tasks[::-1], batch)
    expected = [*model.backbone.parameters()]
    for name in "cba":
        expected += [*model.heads[name].parameters()]
    assert [id(p) for p in step.parameters] == [id(p) for p in expected]


@pytest.mark.parametrize("with_losses", [True, False])
def test_extra_is_added_with_weight_one(with_losses):
    model, tasks, batch = problem()
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) if with_losses else None
    step = Step.evaluate(model, tasks, batch)
    step.scale = torch.tensor(0.25)
    extras = [sum(p.square().sum() for p in step.parameters), step.parameters[0].sum()]
    losses, _ = losses_of(model, tasks, batch)
    scalar = extras[0] + extras[1] + ((weights * losses).sum() if with_losses else 0)
    expected = 0.25 * flat(scalar, step.parameters)
    torch.testing.assert_close(flatten(step.gradient(weights, extras), step.parameters), expected)


def test_extra_without_a_graph_has_no_gradient():
    parameter = nn.Parameter(torch.ones(2))
    step = Step({"a": parameter.square().sum()}, shared=[parameter])
    (gradient,) = step.gradient(torch.ones(1), [torch.tensor(3.0)])
    assert gradient.tolist() == [2.0, 2.0]


def test_the_graph_is_used_up_unless_retained():
    model, tasks, batch = problem()
    step = Step.evaluate(model, tasks, batch)
    step.gradient(torch.ones(3))
    with pytest.raises(RuntimeError, match="second time"):
        step.gradient(torch.ones(3))


def replayable():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model = MultiTaskModel(backbone, {"a": nn.Linear(4, 2), "b": nn.Linear(4, 3)}).double()
    batch = (normal(6, 3), {"a": normal(6, 2, seed=1), "b": torch.arange(6) % 3})
    return model, tasks_of(model), batch


def test_recompute_draws_the_same_dropout():
    model, tasks, batch = replayable()
    other = Step.evaluate(model, tasks, batch)
    step = Step.evaluate(model, tasks, batch, needs=Needs.RECOMPUTE)
    assert not torch.equal(other.values, step.values)
    step.scale = 2.0
    again = step.recompute()
    assert torch.equal(again.values, step.values)
    assert again.scale == 2.0
    third = again.recompute()
    assert torch.equal(third.values, step.values)
    # Each has a graph of its own, none of which was broken by what came later.
    ones = torch.ones(2, dtype=torch.float64)
    found = [flatten(s.gradient(ones), s.parameters) for s in (step, again, third)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_recompute_sees_the_present_parameters():
    model, tasks, batch = replayable()
    model.backbone[2].p = 0.0
    step = Step.evaluate(model, tasks, batch, needs=Needs.RECOMPUTE)
    with torch.no_grad():
        model.heads["a"].bias += 1.0
    expected, _ = losses_of(model, tasks, batch)
    torch.testing.assert_close(step.recompute().values, expected.detach())


def test_recompute_leaves_buffers_and_random_state_alone():
    model, tasks, batch = replayable()
    step = Step.evaluate(model, tasks, batch, needs=Needs.RECOMPUTE)
    assert int(model.backbone[1].num_batches_tracked) == 1
    assert float(model.backbone[1].running_mean.abs().sum()) > 0
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    state = torch.get_rng_state()
    step.recompute()
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_recompute_with_statistics_in_evaluation_mode():
    model, tasks, batch = replayable()
    model.eval()
    step = Step.evaluate(model, tasks, batch, needs=Needs.RECOMPUTE)
    again = step.recompute()
    ones = torch.ones(2, dtype=torch.float64)
    for s in (step, again):  # saved running statistics still have their version
        assert all(g is not None for g in s.gradient(ones))


def test_recompute_puts_back_buffers_that_a_module_exchanges():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls = self.calls + 1
            return x * self.calls

    model, tasks, batch = problem(("a",), backbone=nn.Sequential(nn.Linear(3, 4), Counting()))
    step = Step.evaluate(model, tasks, batch, needs=Needs.RECOMPUTE)
    step.recompute()
    assert float(model.backbone[1].calls) == 1.0


def test_recompute_needs_a_replayable_step():
    model, tasks, batch = problem()
    with pytest.raises(UnsupportedError, match=r"needs=balancer\.needs"):
        Step.evaluate(model, tasks, batch).recompute()


def test_context_wraps_the_forward_pass():
    model, tasks, batch = problem()
    model.float()
    batch = (batch[0].float(), batch[1])
    step = Step.evaluate(model, tasks, batch, context=lambda: torch.autocast("cpu", torch.bfloat16))
    plain = Step.evaluate(model, tasks, batch)
    assert not torch.equal(step.values, plain.values)
    torch.testing.assert_close(step.values, plain.values, rtol=0.05, atol=0.05)


def test_a_detached_loss_is_refused():
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(TaskError, match="'b' depends on no trainable parameter"):
        Step({"a": parameter.sum(), "b": parameter.sum().detach()}, shared=[parameter])


def test_a_frozen_task_is_refused():
    model, tasks, batch = problem()
    model.requires_grad_(False)
    model.heads["b"].requires_grad_(True)
    with pytest.raises(TaskError, match="'a' depends on no trainable parameter"):
        Step.evaluate(model, tasks, batch)


def test_targets_of_unknown_tasks_only_are_refused():
    model, tasks, (inputs, targets) = problem()
    with pytest.raises(TaskError, match=r"at least one of \['a', 'b', 'c'\].*\['depth'\]"):
        Step.evaluate(model, tasks, (inputs, {"depth": targets["a"]}))
    step = Step.evaluate(model, tasks, (inputs, targets | {"depth": targets["a"]}))
    assert step.present == ("a", "b", "c")


def test_targets_without_a_prediction_are_refused():
    model, tasks, (inputs, targets) = multi_input()
    del inputs["b"]
    with pytest.raises(TaskError, match=r"'b' has targets.*\['a', 'c'\]"):
        Step.evaluate(model, tasks, (inputs, targets))
    del targets["b"]
    assert Step.evaluate(model, tasks, (inputs, targets)).present == ("a", "c")


def test_tasks_are_those_that_are_passed():
    model, tasks, batch = problem()
    extra = Task("d", nn.Linear(4, 2), MSE())
    step = Step.evaluate(model, tasks[:2], batch)
    assert step.tasks == ("a", "b")
    with pytest.raises(TaskError, match="'d' has targets"):
        Step.evaluate(model, [*tasks, extra], (batch[0], batch[1] | {"d": batch[1]["a"]}))
