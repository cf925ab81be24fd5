"""Resuming and evaluating checkpoints through the command line."""

import re

import pytest
import torch

from tests.integration.shell import TINY, invoke, read

BALANCERS = ["balancer=uw", "balancer=pcgrad", "balancer=dwa"]


def assert_same(first, second):
    """Equal to the bit, for tensors (where NaN is "not known yet") and plain states."""
    assert first.keys() == second.keys()
    assert len(first) > 5
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module", params=BALANCERS)
def runs(request, tmp_path_factory):
    """Two epochs at once, and one epoch after another."""
    cwd = tmp_path_factory.mktemp("resume")
    options = [*TINY, request.param, "trainer.log_every_n_steps=1"]
    whole = invoke(*options, "trainer.max_epochs=2", cwd=cwd).ok()
    half = invoke(*options, cwd=cwd).ok()
    resumed = invoke(*options, "trainer.max_epochs=2", f"ckpt_path={half.last}", cwd=cwd).ok()
    return whole, half, resumed


def test_resumes_to_the_bit(runs):
    whole, half, resumed = runs
    assert whole.checkpoint["global_step"] == resumed.checkpoint["global_step"] == 8
    assert_same(whole.checkpoint["state_dict"], resumed.checkpoint["state_dict"])
    assert whole.results["metrics"] == resumed.results["metrics"]
    assert half.results["metrics"] != whole.results["metrics"]
    assert (whole.folder / "history.csv").read_text() == (
        resumed.folder / "history.csv"
    ).read_text()


def test_checkpoint_holds_the_plain_configuration(runs):
    whole, *_ = runs
    config = whole.checkpoint["config"]
    assert config["trainer"]["max_epochs"] == 2
    assert config["dataset"]["train_count"] == 200
    assert config["num_tasks"] == 2
    assert type(config) is dict
    assert type(config["trainer"]) is dict
    assert whole.checkpoint["tasks"] == ["left", "right"]


def test_only_evaluates(runs):
    whole, *_ = runs
    (balancer,) = [f"balancer={whole.results['balancer']}"]
    before = whole.last.read_bytes()
    done = invoke(
        *TINY, balancer, "train=false", f"ckpt_path={whole.last}", "seed=9", cwd=whole.cwd
    ).ok()
    assert done.results["metrics"] == whole.results["metrics"]
    assert done.results["info"]["steps"] == 0
    assert not done.last.exists()
    assert not (done.folder / "history.csv").exists()
    assert whole.last.read_bytes() == before


@pytest.fixture(scope="module")
def uw(tmp_path_factory):
    return invoke(*TINY, "balancer=uw", cwd=tmp_path_factory.mktemp("uw")).ok()


@pytest.mark.parametrize("train", ["train=true", "train=false"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["balancer=uw", "tasks=[left]"], ["`tasks`", "['left', 'right'] there", "['left'] here"]),
        (["balancer=ew"], ["`balancer.combine`", "UncertaintyWeighting", "EqualWeighting"]),
        (
            ["balancer=uw", "balancer/transforms=[log]"],
            ["`balancer.transforms`", "mtl.transforms.Log"],
        ),
        (
            ["balancer=uw", "model.backbone.hidden=[32]"],
            ["`model.backbone.hidden` is [128, 64] there and [32] here"],
        ),
        (["balancer=uw", "model.head.hidden=8"], ["`model.head.hidden` is None there and 8 here"]),
    ],
)
def test_checkpoint_of_another_run(options, named, train, uw, tmp_path):
    done = invoke(*TINY, *options, f"ckpt_path={uw.last}", train, cwd=tmp_path)
    done.refused("checkpoint", *named)
    assert not done.last.exists()


def test_what_a_resumed_run_may_change(uw, tmp_path):
    free = ["balancer.max_nonfinite=3", "balancer.on_nonfinite=raise", "trainer.max_epochs=2"]
    done = invoke(*TINY, "balancer=uw", *free, f"ckpt_path={uw.last}", cwd=tmp_path).ok()
    assert done.checkpoint["global_step"] == 8


def test_checkpoint_of_another_model_of_the_same_name(uw, tmp_path):
    """Where the data set decides the model."""
    done = invoke(
        "dataset=multimnist", "balancer=uw", f"ckpt_path={uw.last}", "train=false", cwd=tmp_path
    )
    done.refused("`model.backbone` is 'mtl.models.MLP' there and 'mtl.models.LeNet' here")


def break_file(kind, good, path):
    if kind == "missing":
        return
    content = good.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint\n")
    elif kind == "overwritten":
        middle = len(content) // 2
        path.write_bytes(content[:200] + b"\0" * middle + content[200 + middle :])
    elif kind == "folder":
        path.mkdir()
    elif kind == "state_dict":
        torch.save(read(good)["state_dict"], path)
    elif kind == "other objects":
        torch.save({"pattern": re.compile("a")}, path)


@pytest.mark.parametrize("train", ["train=true", "train=false"])
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "empty",
        "text",
        "overwritten",
        "folder",
        "state_dict",
        "other objects",
    ],
)
def test_unreadable_checkpoint(kind, train, uw, tmp_path):
    path = tmp_path / "mine.ckpt"
    break_file(kind, uw.last, path)
    done = invoke(*TINY, "balancer=uw", f"ckpt_path={path}", train, cwd=tmp_path)
    done.refused(str(path))
