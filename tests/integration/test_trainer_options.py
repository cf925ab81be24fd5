"""What the Trainer offers works from the command line, with balancers of one's own as well."""

import os

import pytest
import torch

from tests.integration.shell import TINY, environment, invoke, shell
from tests.support import ROOT


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return invoke(*TINY, cwd=tmp_path_factory.mktemp("plain")).ok()


def differs(first, second):
    states = first.checkpoint["state_dict"], second.checkpoint["state_dict"]
    return any(not torch.equal(states[0][k], states[1][k]) for k in states[0] if "model" in k)


def test_debug_fast(tmp_path):
    done = invoke("dataset=multidigits", "debug=fast", cwd=tmp_path).ok()
    assert done.results["info"]["steps"] == 2
    assert (done.folder / "pictures" / "losses.png").exists()


def test_debug_overfit(tmp_path):
    """Two batches, fifty times, always the same ones: they are learned by heart."""
    done = invoke(*TINY[:-2], "debug=overfit", "dataset.batch_size=16", cwd=tmp_path).ok()
    rows = (done.folder / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss/left")
    losses = [float(value) for row in rows[1:] if (value := row.split(",")[column])]
    assert len(rows) == 1 + 100 + 1  # with one validation
    assert done.results["info"]["steps"] == len(losses) == 100
    assert losses[-1] < losses[0] / 10


def test_debug_profile(tmp_path):
    done = invoke(*TINY, "debug=profile", cwd=tmp_path).ok()
    assert "FIT Profiler Report" in done.out + done.err
    assert "run_training_batch" in done.out + done.err


@pytest.mark.parametrize("balancer", ["ew", "mgda"])
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["trainer.precision=bf16-mixed"], 4),
        (["trainer.gradient_clip_val=0.01"], 4),
        (["trainer.accumulate_grad_batches=2"], 2),
        (["trainer.max_steps=3"], 3),
        (["balancer/sharpness=joint_sam", "balancer/transforms=[log]"], 4),
    ],
)
def test_flags_change_the_training(options, steps, balancer, plain, tmp_path):
    done = invoke(*TINY, f"balancer={balancer}", *options, cwd=tmp_path).ok()
    assert done.results["info"]["steps"] == done.checkpoint["global_step"] == steps
    assert differs(done, plain)
    assert all(v.isfinite().all() for k, v in done.checkpoint["state_dict"].items() if "model" in k)


def test_same_seed_same_run_other_seed_other_run(plain, tmp_path):
    assert not differs(invoke(*TINY, cwd=tmp_path).ok(), plain)
    assert differs(invoke(*TINY, "seed=1", cwd=tmp_path).ok(), plain)


def test_two_processes(tmp_path):
    """The processes take every second sample of the epoch: their joint batch is the big one."""
    options = [*TINY, "balancer=pcgrad", "trainer.max_epochs=2", "optimizer=sgd"]
    double = shell(
        *options, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
        "dataset.batch_size=25", cwd=tmp_path,
    ).ok()  # fmt: skip
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
    assert double.out.count("delta_p") == 1
    single = invoke(*options, cwd=tmp_path).ok()
    assert single.results["info"]["steps"] == double.results["info"]["steps"] == 8
    first, second = (run.checkpoint["state_dict"] for run in (single, double))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.startswith("model"):
            torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)

    # 51 test samples: one process has one more, and none counts twice.
    alone = invoke(*options, "train=false", f"ckpt_path={double.last}", cwd=tmp_path).ok()
    for task, metrics in alone.results["metrics"].items():
        assert double.results["metrics"][task] == pytest.approx(metrics, rel=1e-5)


METHOD = """
from mtl import Scalarizer

class Worst(Scalarizer):
    def forward(self, losses):
        return losses.max()
"""


def test_balancer_of_ones_own(plain, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "my_methods.py").write_text(METHOD)
    path = os.pathsep.join([str(ROOT), str(tmp_path / "methods")])
    options = [*TINY, "balancer.combine._target_=my_methods.Worst"]
    done = shell(*options, cwd=tmp_path, PYTHONPATH=path).ok()
    assert done.checkpoint["config"]["balancer"]["combine"] == {"_target_": "my_methods.Worst"}
    assert differs(done, plain)
    rows = (done.folder / "history.csv").read_text().splitlines()
    columns = [rows[0].split(",").index(f"balancer/weight/{t}") for t in ("left", "right")]
    weights = [tuple(float(row.split(",")[c]) for c in columns) for row in rows[1:2]]
    assert set(weights) <= {(1.0, 0.0), (0.0, 1.0)}
    assert str(tmp_path / "methods") not in environment(tmp_path)["PYTHONPATH"]
    invoke(*options, cwd=tmp_path).refused("my_methods", "PYTHONPATH")
