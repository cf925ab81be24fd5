"""Whose parameter is whose, and what a task refuses."""

import copy

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError, Metric

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.errors import ConfigError, TaskError
from mtl.losses import MSE, CrossEntropy, Loss
from mtl.model import Stacked
from mtl.task import check_tasks
from tests.unit.core.toy import heads, multi_input, normal, problem, targets_of, tasks_of, trunk


def names_of(model, parameters):
    names = {p: name for name, p in model.named_parameters()}
    return {names[p] for p in parameters}


def ownership(model):
    return (
        names_of(model, model.shared_parameters()),
        {name: names_of(model, model.task_parameters(name)) for name in model.heads},
        names_of(model, model.parameter_groups().tied),
    )


def test_backbone_is_shared_and_heads_are_own():
    model, _, _ = problem()
    shared, own, tied = ownership(model)
    assert shared == {f"backbone.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    assert own == {n: {f"heads.{n}.weight", f"heads.{n}.bias"} for n in "abc"}
    assert tied == set()


def tied_model():
    parts = heads()
    parts["c"].weight = parts["a"].weight
    return MultiTaskModel(trunk(), parts)


def test_tied_heads_share_what_they_have_in_common():
    shared, own, tied = ownership(tied_model())
    assert tied == {"heads.a.weight"}
    assert "heads.a.weight" in shared
    assert own["a"] == {"heads.a.bias"}
    assert own["c"] == {"heads.c.bias"}
    assert own["b"] == {"heads.b.weight", "heads.b.bias"}


def test_one_module_as_the_head_of_two_tasks():
    head = nn.Linear(4, 2)
    model = MultiTaskModel(trunk(), {"a": head, "b": head})
    shared, own, tied = ownership(model)
    assert own == {"a": set(), "b": set()}
    assert tied == {"heads.a.weight", "heads.a.bias"}
    assert tied < shared


def test_a_head_tied_to_the_backbone():
    backbone = nn.Linear(3, 4)
    head = nn.Linear(4, 2)
    head.bias = nn.Parameter(torch.zeros(2))
    head.extra = backbone.weight
    shared, own, tied = ownership(MultiTaskModel(backbone, {"a": head}))
    assert shared == {"backbone.weight", "backbone.bias"}
    assert own == {"a": {"heads.a.weight", "heads.a.bias"}}
    assert tied == set()


def test_every_trainable_parameter_has_one_owner():
    for model in (problem()[0], tied_model()):
        lists = [model.shared_parameters(), *(model.task_parameters(n) for n in model.heads)]
        everything = [p for parameters in lists for p in parameters]
        assert len(everything) == len(set(everything)) == len(list(model.parameters()))


def test_frozen_parameters_belong_to_no_one():
    model = tied_model()
    model.backbone[0].weight.requires_grad_(False)
    model.heads["a"].weight.requires_grad_(False)
    model.heads["b"].requires_grad_(False)
    shared, own, tied = ownership(model)
    assert "backbone.0.weight" not in shared
    assert "backbone.0.bias" in shared
    assert tied == set()
    assert own == {"a": {"heads.a.bias"}, "b": set(), "c": {"heads.c.bias"}}
    model.backbone[0].weight.requires_grad_(True)  # asked anew, not remembered
    assert "backbone.0.weight" in ownership(model)[0]


@pytest.mark.parametrize("build", [lambda: problem()[0], lambda: tied_model().double()])
def test_deepcopy(build):
    model = build()
    twin = copy.deepcopy(model)
    assert ownership(twin) == ownership(model)
    assert not set(twin.parameters()) & set(model.parameters())
    batch = normal(6, 3), targets_of()
    Balancer().backward(Step.evaluate(twin, tasks_of(twin), batch))
    assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_heads_from_tasks():
    tasks = [Task(name, head, MSE()) for name, head in heads().items()]
    model = MultiTaskModel(trunk(), tasks)
    assert list(model.heads) == ["a", "b", "c"]
    assert all(model.heads[task.name] is task.head for task in tasks)


@pytest.mark.parametrize("none", [{}, []])
def test_a_model_without_heads_is_refused(none):
    with pytest.raises(TaskError, match="at least one"):
        MultiTaskModel(nn.Identity(), none)


def test_forward():
    model, _, (inputs, _) = problem()
    outputs = model(inputs)
    z = model.backbone(inputs)
    assert list(outputs.predictions) == list(outputs.representation) == ["a", "b", "c"]
    for name in "abc":
        assert torch.equal(outputs.predictions[name], model.heads[name](z))
        assert outputs.representation[name][0] is outputs.representation["a"][0]


def test_forward_with_inputs_of_their_own():
    model, _, (inputs, _) = multi_input()
    outputs = model({name: inputs[name] for name in "ca"})
    assert list(outputs.predictions) == ["c", "a"]
    for name in "ca":
        expected = model.heads[name](model.backbone(inputs[name]))
        torch.testing.assert_close(outputs.predictions[name], expected)


@pytest.mark.parametrize("names", [["a", "b"], ["b", "c"], ["a", "c"], ["c", "a"], ["b"]])
def test_stacked_inputs_are_a_mapping_whose_neighbours_need_no_copy(names):
    x, t = torch.randn(6, 3), torch.arange(6)
    stacked = Stacked((x, t), {"a": 1, "b": 2, "c": 3})
    parts = {"a": slice(0, 1), "b": slice(1, 3), "c": slice(3, 6)}
    assert list(stacked) == list(parts)
    assert all(torch.equal(stacked[name][1], t[rows]) for name, rows in parts.items())
    for leaf, found in zip((x, t), stacked.rows(names), strict=True):
        assert torch.equal(found, torch.cat([leaf[parts[name]] for name in names]))
        neighbours = names in (["a", "b"], ["b", "c"], ["b"])
        assert (found.untyped_storage().data_ptr() == leaf.data_ptr()) == neighbours
    halved = stacked.to(torch.float16)
    assert halved["b"][0].dtype == torch.float16
    again = Stacked.of(dict(stacked))
    assert again.sizes == stacked.sizes
    assert torch.equal(again.whole[0], x)


def test_a_mapping_with_other_names_goes_to_the_backbone():
    class Sum(nn.Module):
        def forward(self, inputs):
            return inputs["left"] + inputs["a"]

    model = MultiTaskModel(Sum(), {"a": nn.Identity(), "b": nn.Identity()})
    outputs = model({"left": torch.ones(1), "a": torch.ones(1)})
    assert float(outputs.predictions["b"]) == 2.0


# ------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("name", ["", "a b", "1st", "a.b", "a/b", "keys", "forward", "training"])
def test_names_that_do_not_fit(name):
    with pytest.raises(TaskError, match=f"(?s)identifier.*Got name={name!r}"):
        Task(name, nn.Linear(1, 1), MSE())


@pytest.mark.parametrize("name", ["a", "_x", "Depth_2", "größe"])
def test_names_that_fit(name):
    MultiTaskModel(nn.Identity(), [Task(name, nn.Linear(1, 1), MSE())])


def test_names_are_distinct():
    tasks = [Task(name, nn.Linear(1, 1), MSE()) for name in "aba"]
    with pytest.raises(TaskError, match=r"distinct names. Got \['a', 'b', 'a'\]"):
        check_tasks(tasks)
    with pytest.raises(TaskError, match="distinct names"):
        MultiTaskModel(nn.Identity(), tasks)
    with pytest.raises(TaskError, match="at least one task"):
        check_tasks([])
    assert check_tasks(tasks[:2]) == tuple(tasks[:2])


def test_the_loss_is_callable():
    with pytest.raises(TaskError, match=r"`loss` of task 'a' should be callable. Got 'mse'"):
        Task("a", nn.Linear(1, 1), "mse")


def test_metrics_have_a_direction():
    class Undirected(Metric):
        def update(self): ...

        def compute(self): ...

    with pytest.raises(TaskError, match=r"'odd' of task 'a' has no direction.*Undirected"):
        Task("a", nn.Linear(1, 1), MSE(), {"odd": Undirected()})
    assert Task("a", nn.Linear(1, 1), MSE(), {"mse": MeanSquaredError()}).metrics


def evaluate(loss, prediction, target, **options):
    task = Task("age", nn.Linear(1, 1), loss, **options)
    return task.evaluate(torch.zeros(prediction, requires_grad=True), target)


FLOATS, IDS = torch.zeros, lambda *shape: torch.zeros(*shape, dtype=torch.int64)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), MSE()])
@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ((4, 1), FLOATS(4)),
        ((4,), FLOATS(4, 1)),
        ((4, 2), FLOATS(4, 1)),
        ((4, 1, 3, 3), FLOATS(4, 3, 3)),
        ((4, 1), IDS(4)),
        ((4, 3), IDS(4, 1)),
    ],
)
def test_silent_broadcasts_are_refused(loss, prediction, target):
    with pytest.raises(TaskError) as caught:
        evaluate(loss, prediction, target)
    for part in ("'age'", str(prediction), str(tuple(target.shape)), "check_shapes=False"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "prediction", "target"),
    [
        (nn.CrossEntropyLoss(), (4, 3), IDS(4)),
        (CrossEntropy(), (4, 3, 5, 6), IDS(4, 5, 6)),
        (nn.MSELoss(), (4,), FLOATS(4)),
        (nn.BCEWithLogitsLoss(), (4, 1), FLOATS(4, 1)),
    ],
)
def test_shapes_that_fit(loss, prediction, target):
    value, count = evaluate(loss, prediction, target)
    assert value.dim() == 0
    assert value.requires_grad
    assert int(count) == target.numel()


def test_shapes_may_be_left_to_the_loss():
    def triplet(prediction, target):
        return (prediction.view(2, 2) - target[:, None]).square().mean()

    with pytest.raises(TaskError, match="'age' do not fit"):
        evaluate(triplet, (2, 2, 1), FLOATS(2))
    value, _ = evaluate(triplet, (2, 2, 1), FLOATS(2), check_shapes=False)
    assert value.item() == 0.0


def test_errors_inside_a_loss_name_the_task():
    with pytest.raises(TaskError, match=r"loss of task 'age' failed.*\(4, 3\).*\(4,\)") as caught:
        evaluate(nn.CrossEntropyLoss(), (4, 3), IDS(4) + 7)
    assert caught.value.__cause__ is not None


def test_losses_are_scalars():
    with pytest.raises(TaskError, match=r"task 'age'.*a scalar"):
        evaluate(lambda p, t: (p - t).square(), (4, 1), FLOATS(4, 1))

    class Vector(Loss):
        def forward(self, prediction, target):
            return prediction.sum(1)

        def count(self, target):
            return torch.tensor(len(target))

    with pytest.raises(TaskError, match=r"loss of task 'age' should be a scalar. Got shape \(4,\)"):
        evaluate(Vector(), (4, 1), FLOATS(4, 1))
    with pytest.raises(ConfigError, match="reduction"):
        Task("age", nn.Linear(1, 1), nn.MSELoss(reduction="none"))
