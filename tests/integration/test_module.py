"""MTLModule and the callbacks against computations by hand."""

import random

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from mtl import MTLModule, MultiTaskModel, Task
from mtl.callbacks import GradientCosines, History, RandomState
from tests.support import ToyData, assert_same, make_balancer, make_model, state_of


def trainer_with(folder, *callbacks, **options):
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "log_every_n_steps": 1, **options},
    )


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def uneven(kind):
    """Batches of 10, 10 and 4; with labels missing in the second kind."""
    data = ToyData()
    batches = [data.batch(slice(i, i + 10)) for i in (0, 10, 20)]
    if kind == "partial":
        batches[0][1]["task0"][3:] = torch.nan
        batches[2][1]["task1"][:] = torch.nan
        del batches[1][1]["task2"]
    return batches


@pytest.mark.parametrize("kind", ["full", "partial"])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_metrics_are_those_of_the_whole_set(kind, stage, tmp_path):
    model, tasks = make_model()
    module = MTLModule(model, tasks)
    batches = uneven(kind)
    (logged,) = getattr(trainer_with(tmp_path), stage)(module, loader(batches), verbose=False)
    key = "val" if stage == "validate" else "test"
    for name in ("task0", "task1", "task2"):
        rows = [(x, t[name]) for x, t in batches if name in t]
        inputs, targets = (torch.cat(parts) for parts in zip(*rows, strict=True))
        known = ~targets.isnan().squeeze(1)
        with torch.no_grad():
            error = (model(inputs).predictions[name] - targets)[known].square().mean()
        for value in ("loss", "mse"):
            assert module.results[key][name][value] == pytest.approx(error.item(), rel=1e-5)
            assert logged[f"{key}/{value}/{name}"] == pytest.approx(error.item(), rel=1e-5)


def test_metrics_start_anew_in_each_evaluation(tmp_path):
    model, tasks = make_model()
    module, trainer = MTLModule(model, tasks), trainer_with(tmp_path)
    first, second = (
        trainer.validate(module, loader(uneven(kind)), verbose=False) for kind in ("full", "full")
    )
    assert first == second


@pytest.mark.parametrize("balancer", ["ew", "uw", "pcgrad", "mgda"])
def test_every_task_may_have_inputs_of_its_own(balancer, tmp_path):
    torch.manual_seed(3)
    backbone = nn.Linear(4, 6)
    tasks = [
        Task(name, nn.Linear(6, 1), nn.MSELoss(), {"mse": MeanSquaredError()})
        for name in ("first", "second")
    ]
    sizes = {"first": 8, "second": 5}
    batch = (
        {name: torch.randn(n, 4) for name, n in sizes.items()},
        {name: torch.randn(n, 1) for name, n in sizes.items()},
    )
    module = MTLModule(
        MultiTaskModel(backbone, tasks),
        tasks,
        make_balancer(balancer, num_tasks=2),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05),
    )
    before = state_of(module.model)
    history = History()
    trainer_with(tmp_path, history, max_epochs=30).fit(module, loader([batch]), loader([batch]))
    after = state_of(module.model)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    losses = [[row[f"train/loss/{name}"] for name in sizes] for row in history.rows if
              "train/loss/first" in row]  # fmt: skip
    assert sum(losses[-1]) < 0.8 * sum(losses[0])
    for name in sizes:
        assert module.results["val"][name]["mse"] == pytest.approx(
            module.results["val"][name]["loss"], rel=1e-5
        )


@pytest.mark.parametrize("balancer", ["ew", "pcgrad"])
def test_cosines_are_those_of_the_gradients(balancer, tmp_path):
    """With equal weighting at the representation, with pcgrad at the shared parameters."""
    batches = [ToyData().batch(slice(6 * i, 6 * i + 6)) for i in range(4)]
    expected, logged = [], []

    class Compare(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            model, (inputs, targets) = pl_module.model, batch
            features = model.backbone(inputs)
            at = [features] if balancer == "ew" else list(model.backbone.parameters())
            rows = []
            for name, head in model.heads.items():
                loss = nn.functional.mse_loss(head(features), targets[name])
                gradients = torch.autograd.grad(loss, at, retain_graph=True)
                rows.append(torch.cat([g.flatten() for g in gradients]).double())
            pairs = [(0, 1), (0, 2), (1, 2)]
            expected.append([torch.cosine_similarity(rows[i], rows[j], 0).item() for i, j in pairs])

        def on_train_batch_end(self, trainer, *args):
            names = ["cosine/task0~task1", "cosine/task0~task2", "cosine/task1~task2"]
            values = trainer.callback_metrics
            logged.append([float(values[n]) for n in names] if names[0] in values else None)

    model, tasks = make_model()
    module = MTLModule(model, tasks, make_balancer(balancer))
    callbacks = [GradientCosines(every_n_steps=1), Compare()]
    trainer_with(tmp_path, *callbacks).fit(module, loader(batches))
    first = 1 if balancer == "ew" else 0  # whether the balancer has a Gramian shows in a step
    assert logged[:first] == [None] * first
    np.testing.assert_allclose(logged[first:], expected[first:], rtol=1e-4, atol=1e-6)


def test_history_survives_a_resume(tmp_path):
    def fit(epochs, ckpt_path=None):
        model, tasks = make_model()
        history = History()
        trainer = trainer_with(tmp_path, history, max_epochs=epochs, log_every_n_steps=2)
        data = ToyData()
        trainer.fit(
            MTLModule(model, tasks), data.loader(), loader([data.batch()]), ckpt_path=ckpt_path
        )
        return trainer, history.rows

    def without_nothing(rows):
        return [sorted(row.items()) for row in rows]

    _, whole = fit(3)
    half, _ = fit(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(3, tmp_path / "half.ckpt")
    assert without_nothing(resumed) == without_nothing(whole)
    kinds = [(row["step"], "train/loss/task0" in row) for row in resumed]
    assert len(set(kinds)) == len(kinds) == 7 + 3
    path = tmp_path / "history.csv"
    history = History()
    history.rows = resumed
    history.write(path)
    assert len(path.read_text().splitlines()) == 11


def test_history_leaves_out_the_sanity_check(tmp_path):
    model, tasks = make_model()
    history, data = History(), loader([ToyData().batch()])
    trainer_with(tmp_path, history, num_sanity_val_steps=2).fit(MTLModule(model, tasks), data, data)
    assert [row["step"] for row in history.rows] == [1, 1]


def test_random_states_come_back(tmp_path):
    def draw():
        return (
            torch.rand(3).tolist(),
            np.random.rand(3).tolist(),  # noqa: NPY002
            [random.random(), random.gauss(0, 1)],
        )

    torch.manual_seed(1)
    np.random.seed(2)  # noqa: NPY002
    random.seed(3)
    np.random.randn()  # noqa: NPY002 - leaves half of a pair of normals behind
    random.gauss(0, 1)
    path = tmp_path / "state.pt"
    torch.save(RandomState().state_dict(), path)
    expected = draw()
    draw()
    restored = RandomState()
    restored.load_state_dict(torch.load(path, weights_only=True))
    restored.on_train_start(None, None)
    assert draw() == expected
    following = draw()
    restored.on_train_start(None, None)  # once only
    assert draw() not in (expected, following)


@pytest.mark.parametrize("balancer", ["uw", "ew"])
def test_what_the_balancer_learns_is_a_group_without_decay(balancer, tmp_path):
    model, tasks = make_model()
    module = MTLModule(
        model,
        tasks,
        make_balancer(balancer),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.5),
    )
    groups = module.configure_optimizers().param_groups
    assert groups[0]["weight_decay"] == 0.5
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.parameters()}
    learned = list(module.balancer.parameters())
    assert len(groups) == 1 + bool(learned)
    assert bool(learned) == (balancer == "uw")
    if learned:
        assert groups[1]["weight_decay"] == 0
        assert groups[1]["params"] == learned
        trainer_with(tmp_path).fit(module, ToyData().loader())
        assert all((parameter != 0).all() for parameter in learned)  # they began at 0


def test_frozen_parameters_are_left_alone(tmp_path):
    model, tasks = make_model()
    model.backbone[0].requires_grad_(False)
    module = MTLModule(model, tasks)
    before = state_of(model)
    trainer_with(tmp_path).fit(module, ToyData().loader())
    after = state_of(model)
    frozen = {name for name in before if name.startswith("backbone.0")}
    assert_same({n: before[n] for n in frozen}, {n: after[n] for n in frozen})
    assert all(not torch.equal(before[n], after[n]) for n in before.keys() - frozen)
