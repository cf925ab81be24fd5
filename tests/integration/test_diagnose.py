"""`callbacks=diagnose` against gradients taken by hand, under what a Trainer may do."""

import csv
import itertools
import math

import lightning
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtl import MTLModule, Step
from mtl.callbacks import Diagnose
from mtl.callbacks.diagnose import COLUMNS, Conflicts
from mtl.errors import ConfigError
from tests.contract.test_training import fit
from tests.integration.shell import TINY, invoke
from tests.support import ToyData, assert_same, make_balancer, make_model, state_of


def rows_of(path):
    with path.open() as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == COLUMNS
    return rows


def by_hand(model, tasks, batch):
    """Layer -> gradients of the tasks as rows, one `autograd.grad` each."""
    inputs, targets = batch
    predictions = model(inputs).predictions
    layers = {"0": model.backbone[0], "2": model.backbone[2], "all": model.backbone}
    return {
        name: torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(
                            task.evaluate(predictions[task.name], targets[task.name])[0],
                            list(layer.parameters()),
                            retain_graph=True,
                        )
                    ]
                )
                for task in tasks
                if task.name in targets
            ]
        ).double()
        for name, layer in layers.items()
    }


def module_of(variant="ew"):
    model, tasks = make_model()
    return MTLModule(model, tasks, make_balancer(variant))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_are_those_of_gradients_by_hand(tmp_path, accumulate):
    model, tasks = make_model()
    batch = next(iter(ToyData().loader()))
    expected = by_hand(model, tasks, batch)
    diagnose = Diagnose(tmp_path / "diagnosis.csv")
    fit(
        MTLModule(model, tasks),
        tmp_path,
        callbacks=[diagnose],
        max_epochs=1,
        accumulate_grad_batches=accumulate,
    )
    rows = rows_of(tmp_path / "diagnosis.csv")
    assert {row["step"] for row in rows} == {"0"}
    assert [r["layer"] for r in rows] == [name for name in ("0", "2", "all") for _ in range(6)]
    names = [task.name for task in tasks]
    for row in rows:
        gradients = expected[row["layer"]]
        a, b = (gradients[names.index(row[key])] for key in ("task_a", "task_b"))
        assert float(row["norm_a"]) == pytest.approx(float(a.norm()), rel=1e-4)
        assert float(row["norm_b"]) == pytest.approx(float(b.norm()), rel=1e-4)
        cosine = float(nn.functional.cosine_similarity(a, b, dim=0))
        assert float(row["cosine"]) == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "variant",
    [
        *("ew", "uw", "famo", "pcgrad", "graddrop", "mgda at the representation"),
        "log + mgda + activity + joint_sam",
    ],
)
def test_training_is_as_without(tmp_path, variant, accumulate):
    plain, watched = module_of(variant), module_of(variant)
    fit(plain, tmp_path, accumulate_grad_batches=accumulate)
    diagnose = Diagnose(tmp_path / "diagnosis.csv", every_n_steps=2)
    fit(watched, tmp_path, callbacks=[diagnose], accumulate_grad_batches=accumulate)
    assert_same(state_of(plain), state_of(watched))
    steps = 12 // accumulate
    assert [record.step for record in diagnose.records] == list(range(0, steps, 2))


def test_absent_tasks_have_no_rows(tmp_path):
    batches = [ToyData().batch(slice(6 * i, 6 * i + 6)) for i in range(3)]
    del batches[0][1]["task1"], batches[0][1]["task2"]  # one task: the next step takes its turn
    batches[1][1]["task2"][:] = torch.nan
    model, tasks = make_model()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Diagnose(tmp_path / "diagnosis.csv", every_n_steps=2)],
    )
    trainer.fit(MTLModule(model, tasks), torch.utils.data.DataLoader(batches, batch_size=None))
    rows = rows_of(tmp_path / "diagnosis.csv")
    tasks_of = {row["step"]: set() for row in rows}
    for row in rows:
        tasks_of[row["step"]] |= {row["task_a"], row["task_b"]}
    assert tasks_of == {"1": {"task0", "task1"}, "2": {"task0", "task1", "task2"}}


def test_a_resumed_run_has_the_whole_file(tmp_path):
    def trained(folder, **options):
        diagnose = Diagnose(folder / "diagnosis.csv", every_n_steps=3)
        return fit(module_of(), folder, callbacks=[diagnose], **options)

    trained(tmp_path / "whole", max_epochs=2)
    trainer = trained(tmp_path / "part", max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with (tmp_path / "part" / "diagnosis.csv").open("a") as file:
        file.write("5,all,task0,task0,1,1,1\n")  # of a step after the checkpoint
    trained(tmp_path / "part", max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    for name in ("diagnosis.csv", "diagnosis_layers.csv"):
        whole, part = ((tmp_path / kind / name).read_text() for kind in ("whole", "part"))
        assert whole == part


def test_where_nothing_is_shared_it_says_so(tmp_path):
    model, tasks = make_model()
    model.backbone.requires_grad_(False)
    diagnose = Diagnose(tmp_path / "diagnosis.csv", every_n_steps=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[diagnose],
    )
    with pytest.warns(UserWarning, match="share no parameters") as told:
        trainer.fit(MTLModule(model, tasks), ToyData().loader())
    assert sum("No diagnosis" in str(w.message) for w in told) == 1
    assert rows_of(tmp_path / "diagnosis.csv") == []
    assert not (tmp_path / "diagnosis_layers.csv").exists()


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model, tasks = make_model()
    inputs, targets = ToyData().batch(slice(0, 8))
    rows = slice(4 * rank, 4 * rank + 4)
    batch = inputs[rows], {name: values[rows] for name, values in targets.items()}
    diagnose = Diagnose(f"{folder}/unused.csv")
    record = diagnose.measure(model, Step.evaluate(model, tasks, batch))
    torch.save(record.gramians, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_measure_the_joint_batch(tmp_path):
    mp.spawn(process, (str(tmp_path),), nprocs=2)
    model, tasks = make_model()
    expected = by_hand(model, tasks, ToyData().batch(slice(0, 8)))
    gramians = torch.stack([rows @ rows.T for rows in expected.values()])
    for rank in range(2):
        measured = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(measured, gramians, rtol=1e-4, atol=1e-6)


@given(st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_measures_are_those_of_the_gradients(tasks, seed):
    rows = np.random.default_rng(seed).normal(size=(tasks, 7)) * np.arange(1, tasks + 1)[:, None]
    found = Conflicts.of(torch.from_numpy(rows @ rows.T))
    norms = np.linalg.norm(rows, axis=1)
    pairs = list(itertools.combinations(range(tasks), 2))
    similar = [2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2) for i, j in pairs]
    assert found.conflict_rate == pytest.approx(np.mean([rows[i] @ rows[j] < 0 for i, j in pairs]))
    assert found.condition_number == pytest.approx(np.linalg.cond(rows), rel=1e-6)
    assert found.magnitude_similarity == pytest.approx(np.mean(similar))


@pytest.mark.parametrize("gram", [torch.ones(2, 2), torch.zeros(2, 2)])
def test_dependent_gradients_have_no_finite_condition(gram):
    assert Conflicts.of(gram).condition_number == math.inf


def test_the_interval_is_positive(tmp_path):
    with pytest.raises(ConfigError, match="every_n_steps"):
        Diagnose(tmp_path / "diagnosis.csv", every_n_steps=0)


def test_from_the_command_line(tmp_path):
    done = invoke(
        *TINY, "callbacks=diagnose", "callbacks.diagnose.every_n_steps=2", cwd=tmp_path
    ).ok()
    assert "Diagnosis: 2 steps" in done.out
    rows = rows_of(done.folder / "diagnosis.csv")
    assert {row["layer"] for row in rows} == {"layers.1", "layers.3", "all"}
    with (done.folder / "diagnosis_layers.csv").open() as file:
        (whole,) = [row for row in csv.DictReader(file) if row["layer"] == "all"]
    cosines = [
        float(r["cosine"]) for r in rows if r["layer"] == "all" and r["task_b"] != r["task_a"]
    ]
    assert float(whole["conflict_rate"]) == np.mean([c < 0 for c in cosines])
    with (done.folder / "csv" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["diagnosis/condition_number"]]
    assert [row["step"] for row in logged] == ["0", "2"]
