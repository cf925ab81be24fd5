"""A batch that makes a loss NaN costs one step, says so, and never the run unnoticed."""

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mtl import MTLModule
from mtl.callbacks import AtomicCheckpointIO
from mtl.errors import NonFiniteError
from tests.integration.shell import read
from tests.support import ToyData, assert_same, make_balancer, make_model, state_of

BALANCERS = ["ew", "uw", "mgda", "pcgrad", "graddrop"]


def batches(count, bad):
    """Batches of six; in the bad ones an infinite label makes the loss of task1 infinite."""
    data = ToyData(6 * count)
    made = [data.batch(slice(6 * i, 6 * i + 6)) for i in range(count)]
    for i in bad:
        made[i][1]["task1"][2] = torch.inf
    return made


class Snapshots(lightning.Callback):
    def __init__(self):
        self.states, self.reports = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.states.append(state_of(pl_module.model))
        self.reports.append(pl_module.report)


def fit(folder, balancer, made, *callbacks, **options):
    model, tasks = make_model()
    made_balancer = make_balancer(balancer)
    for name, value in options.items():
        setattr(made_balancer, name, value)
    module = MTLModule(model, tasks, made_balancer)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
    )
    loader = torch.utils.data.DataLoader(made, batch_size=None)
    try:
        trainer.fit(module, loader)
    finally:
        module.snapshots = [c for c in callbacks if isinstance(c, Snapshots)]
    return module


def ignored(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(*args, **options)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_the_step_is_skipped_and_named(balancer, tmp_path):
    seen = Snapshots()
    with pytest.warns(RuntimeWarning, match="task1 is not finite; the step was skipped") as caught:
        module = fit(tmp_path, balancer, batches(4, [2]), seen)
    told = [w for w in caught if "is not finite" in str(w.message)]
    assert len(told) == 1
    assert "task0" not in str(told[0].message)
    assert int(module.balancer.skipped_steps) == 1
    assert [report.nonfinite for report in seen.reports] == [(), (), ("task1",), ()]
    assert_same(seen.states[1], seen.states[2])
    for before, after in ((0, 1), (2, 3)):  # the others count
        assert any(
            not torch.equal(seen.states[before][name], value)
            for name, value in seen.states[after].items()
        )
    assert all(value.isfinite().all() for value in state_of(module).values())


@pytest.mark.parametrize("balancer", ["ew", "pcgrad"])
def test_the_other_steps_are_as_if_it_had_not_been(balancer, tmp_path):
    bad = ignored(tmp_path, balancer, batches(3, [2]))
    good = ignored(tmp_path, balancer, batches(3, [])[:2])
    assert_same(state_of(bad.model), state_of(good.model))


@pytest.mark.parametrize("balancer", BALANCERS)
def test_raises_where_that_is_the_policy(balancer, tmp_path):
    with pytest.raises(NonFiniteError, match="task1") as caught:
        ignored(tmp_path, balancer, batches(3, [1]), on_nonfinite="raise")
    assert caught.value.tasks == ("task1",)


def test_too_many_in_a_row_raise_and_the_last_checkpoint_is_good(tmp_path):
    keep = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1)
    seen = Snapshots()
    with pytest.raises(NonFiniteError, match="task1"):
        ignored(tmp_path, "ew", batches(9, range(2, 9)), keep, seen, max_nonfinite=2)
    assert len(seen.states) == 4  # two good ones, two skipped ones
    (path,) = tmp_path.glob("*.ckpt")
    saved = read(path)["state_dict"]
    for name, value in seen.states[1].items():
        assert torch.equal(saved[f"model.{name}"], value)


def test_not_in_a_row_does_not_raise(tmp_path):
    module = ignored(tmp_path, "ew", batches(6, [0, 2, 4]), max_nonfinite=1)
    assert int(module.balancer.skipped_steps) == 3
