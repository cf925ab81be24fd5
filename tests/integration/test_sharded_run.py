"""`trainer=fsdp`: the same run as in one process, and checkpoints that go either way."""

import pytest
import torch

from tests.integration.shell import TINY, invoke, shell

pytestmark = pytest.mark.skipif(
    not hasattr(torch.cpu.current_stream(), "record_event"),
    reason="this torch shards on accelerators only",
)
OPTIONS = [*TINY, "balancer=pcgrad", "balancer.level=representation"]
SHARDED = ["trainer=fsdp", "trainer.accelerator=cpu", "dataset.batch_size=25"]


def close(first, second):
    assert first.checkpoint["global_step"] == second.checkpoint["global_step"]
    first, second = first.checkpoint["state_dict"], second.checkpoint["state_dict"]
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.startswith("model"):
            torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_sharded_run_goes_on_in_one_process(tmp_path):
    whole = invoke(*OPTIONS, "trainer.max_epochs=2", cwd=tmp_path).ok()
    first = shell(*OPTIONS, *SHARDED, cwd=tmp_path).ok()
    assert first.folder != whole.folder

    # 51 test samples: one process has one more batch, and no sample counts twice.
    alone = invoke(*OPTIONS, "train=false", f"ckpt_path={first.last}", cwd=tmp_path).ok()
    for task, metrics in alone.results["metrics"].items():
        assert first.results["metrics"][task] == pytest.approx(metrics, rel=1e-5)

    resumed = [*OPTIONS, "trainer.max_epochs=2", f"ckpt_path={first.last}"]
    close(whole, invoke(*resumed, cwd=tmp_path).ok())


@pytest.mark.slow
def test_sharded_run_resumes(tmp_path):
    whole = shell(*OPTIONS, *SHARDED, "trainer.max_epochs=2", cwd=tmp_path).ok()
    first = invoke(*OPTIONS, cwd=tmp_path).ok()
    resumed = [*OPTIONS, *SHARDED, "trainer.max_epochs=2", f"ckpt_path={first.last}"]
    close(whole, shell(*resumed, cwd=tmp_path).ok())


@pytest.mark.slow
def test_parameter_level_is_refused(tmp_path):
    refused = shell(*TINY, *SHARDED, "balancer=pcgrad", cwd=tmp_path)
    refused.refused("sharded", "balancer.level=representation", "trainer=ddp")
