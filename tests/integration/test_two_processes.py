"""`trainer=ddp` from the command line, with two processes on this machine's CPU."""

import os

import pytest
import torch

from tests.integration.shell import TINY, invoke, read, shell
from tests.support import ROOT, assert_same

OPTIONS = [*TINY[:-2], "trainer.max_epochs=2", "optimizer=sgd", *TINY[-1:]]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "dataset.batch_size=25"]
CALLBACK = """
from pathlib import Path

import lightning
import torch


class Keep(lightning.Callback):
    def __init__(self, folder):
        self.folder = Path(folder)

    def on_fit_end(self, trainer, pl_module):
        torch.save(pl_module.model.state_dict(), self.folder / f"{trainer.global_rank}.pt")
"""


def two(*options, cwd):
    """A run in two processes, which leave their weights in `0.pt` and `1.pt`."""
    (cwd / "kept.py").write_text(CALLBACK)
    keep = ["+callbacks.keep._target_=kept.Keep", f"+callbacks.keep.folder={cwd}"]
    path = os.pathsep.join([str(ROOT), str(cwd)])
    done = shell(*OPTIONS, *TWO, *keep, *options, cwd=cwd, PYTHONPATH=path).ok()
    assert_same(read(cwd / "0.pt"), read(cwd / "1.pt"))
    return done


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["moco", "excess_mtl", "cagrad"])
def test_accumulation_and_clipping_are_those_of_the_joint_batch(balancer, tmp_path):
    accumulated = [
        f"balancer={balancer}",
        "trainer.precision=64-true",
        "trainer.accumulate_grad_batches=2",
    ]
    clipped = [*accumulated, "trainer.gradient_clip_val=0.1"]
    double = two(*clipped, cwd=tmp_path)
    single = invoke(*OPTIONS, *clipped, cwd=tmp_path).ok()
    assert single.results["info"]["steps"] == double.results["info"]["steps"] == 4
    found, expected = (run.checkpoint["state_dict"] for run in (double, single))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12, equal_nan=True)
    loose = invoke(*OPTIONS, *accumulated, cwd=tmp_path).ok().checkpoint["state_dict"]
    weight = next(name for name in expected if name.endswith("weight"))
    assert not torch.allclose(loose[weight], expected[weight], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["moco", "db_mtl"])
def test_bf16_resumes_to_the_bit_in_the_middle_of_an_epoch(balancer, tmp_path):
    options = [f"balancer={balancer}", "trainer.precision=bf16-mixed"]
    middle = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, every_n_train_steps: 3"
    middle += f", dirpath: {tmp_path}, filename: '{{step}}', save_top_k: -1}}"
    whole = two(*options, f"+callbacks.middle={middle}", cwd=tmp_path)
    assert read(tmp_path / "step=3.ckpt")["epoch"] == 0
    assert whole.checkpoint["global_step"] == 8
    resumed = two(*options, f"ckpt_path='{tmp_path / 'step=3.ckpt'}'", cwd=tmp_path)
    assert resumed.folder != whole.folder
    found, expected = (run.checkpoint["state_dict"] for run in (resumed, whole))
    assert expected["balancer.combine.memory._extra_state"]["rows"].any()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
