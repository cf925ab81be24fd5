"""Tasks, heads and data that do not fit together are named before they do harm."""

from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from mtl import MTLModule, MultiTaskModel, Task
from mtl.errors import TaskError, UnsupportedError
from mtl.losses import CrossEntropy
from tests.support import ToyData, make_model


def train(folder, module, batch=None):
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader([batch or ToyData().batch()], batch_size=None))


def test_head_and_target_of_regression(tmp_path):
    model, tasks = make_model()
    model.heads["task1"] = nn.Linear(8, 2)
    with pytest.raises(TaskError, match=r"Head and target of task 'task1' do not fit.*\(24, 2\)"):
        train(tmp_path, MTLModule(model, tasks))


def test_head_and_target_of_classification(tmp_path):
    task = Task("digit", nn.Linear(5, 10), CrossEntropy())
    batch = torch.randn(4, 5), {"digit": torch.zeros(4, 3, dtype=torch.long)}
    with pytest.raises(TaskError, match=r"'digit'.*prediction \(4, 10\) and target \(4, 3\)"):
        train(tmp_path, MTLModule(MultiTaskModel(nn.Identity(), [task]), [task]), batch)


def test_class_that_the_head_does_not_have(tmp_path):
    task = Task("digit", nn.Linear(5, 10), CrossEntropy())
    batch = torch.randn(4, 5), {"digit": torch.tensor([0, 3, 10, 1])}
    with pytest.raises(TaskError, match=r"task 'digit'.*10 is out of bounds"):
        train(tmp_path, MTLModule(MultiTaskModel(nn.Identity(), [task]), [task]), batch)


def test_two_tasks_of_one_name():
    model, tasks = make_model()
    with pytest.raises(TaskError, match=r"distinct names.*'task0', 'task0'"):
        MTLModule(model, [tasks[0], tasks[0]])
    with pytest.raises(TaskError, match="distinct names"):
        MultiTaskModel(nn.Identity(), [tasks[0], tasks[0]])
    with pytest.raises(TaskError, match="at least one task"):
        MTLModule(model, [])


def test_no_known_task_in_a_batch(tmp_path):
    model, tasks = make_model()
    batch = torch.randn(4, 5), {"depth": torch.randn(4, 1)}
    with pytest.raises(TaskError, match=r"targets for at least one of .*'task0'.*'depth'"):
        train(tmp_path, MTLModule(model, tasks), batch)


def test_loss_that_reaches_no_parameter(tmp_path):
    model, tasks = make_model()
    detached = Task("task1", tasks[1].head, lambda p, t: nn.functional.mse_loss(p.detach(), t))
    with pytest.raises(TaskError, match="'task1' depends on no trainable parameter"):
        train(tmp_path, MTLModule(model, [tasks[0], detached, tasks[2]]))


def test_loss_that_is_no_scalar(tmp_path):
    model, tasks = make_model()
    wrong = Task("task1", tasks[1].head, lambda p, t: (p - t).square())
    with pytest.raises(TaskError, match="'task1'"):
        train(tmp_path, MTLModule(model, [tasks[0], wrong, tasks[2]]))


def test_a_strategy_that_shards_parameters_is_refused():
    model, tasks = make_model()
    module = MTLModule(model, tasks)
    module._trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(UnsupportedError, match="FSDPStrategy"):
        module.on_fit_start()
