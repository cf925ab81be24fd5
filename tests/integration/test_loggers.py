"""Each logger, as a run leaves it."""

import csv

import numpy as np
import pytest

from tests.integration.shell import TINY, invoke, shell

OPTIONS = [*TINY, "trainer.log_every_n_steps=2"]


def test_csv_is_the_default(tmp_path):
    done = invoke(*OPTIONS, cwd=tmp_path).ok()
    with (done.folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss/left"]] == ["1", "3"]
    assert sum(bool(row["val/accuracy/left"]) for row in rows) == 1
    (tested,) = [row for row in rows if row["test/accuracy/left"]]
    found = float(tested["test/accuracy/left"])
    assert found == pytest.approx(done.results["metrics"]["left"]["accuracy"], rel=1e-5)
    assert "max_epochs: 1" in (done.folder / "csv" / "hparams.yaml").read_text()


def test_tensorboard_has_scalars_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = invoke(*OPTIONS, "logger=tensorboard", cwd=tmp_path).ok()
    events = accumulator.EventAccumulator(str(done.folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    for name in ("train/loss/left", "val/accuracy/right", "balancer/weight/left"):
        assert name in tags["scalars"]
    (tested,) = events.Scalars("test/accuracy/right")
    assert tested.value == pytest.approx(done.results["metrics"]["right"]["accuracy"], rel=1e-5)
    assert {"losses", "metrics", "weights", "cosines"} <= set(tags["images"])
    assert events.Images("losses")[0].encoded_image_string.startswith(b"\x89PNG")
    assert not (done.folder / "csv").exists()


def test_wandb_offline(tmp_path):
    """No proxy answers: a run that asked for the network would fail or hang."""
    done = shell(
        *OPTIONS,
        "logger=wandb",
        cwd=tmp_path,
        WANDB_MODE="offline",
        HTTPS_PROXY="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
        WANDB_BASE_URL="http://127.0.0.1:9",
        HOME=str(tmp_path),
    ).ok()
    (written,) = done.folder.rglob("*.wandb")
    content = written.read_bytes()
    for text in (b"train/loss/left", b"test/accuracy/right", b"max_epochs"):
        assert text in content
    pictures = {path.name.split("_")[0] for path in written.parent.rglob("*.png")}
    assert {"losses", "metrics", "weights"} <= pictures


def test_no_logger(tmp_path):
    """`group=null`, as configuration files write it."""
    done = invoke(*OPTIONS, "logger=null", cwd=tmp_path).ok()
    files = {path.relative_to(done.folder).parts[0] for path in done.folder.rglob("*")}
    assert files == {
        ".hydra", "train.log", "checkpoints", "metrics.json", "history.csv", "pictures"
    }  # fmt: skip
    assert done.checkpoint["config"]["logger"] is None


def test_history_has_the_values_of_its_steps(tmp_path):
    """The rows of the table are those of the logger, which Lightning counts from zero."""
    done = invoke(*OPTIONS, "balancer=uw", cwd=tmp_path).ok()
    with (done.folder / "history.csv").open() as file:
        own = {int(row["step"]): row for row in csv.DictReader(file) if row["train/loss/left"]}
    with (done.folder / "csv" / "metrics.csv").open() as file:
        logged = {int(r["step"]) + 1: r for r in csv.DictReader(file) if r["train/loss/left"]}
    assert sorted(own) == [1, 2, 4]
    assert sorted(logged) == [2, 4]
    for step, row in logged.items():
        for name in ("train/loss/left", "train/loss/right", "balancer/weight/left"):
            np.testing.assert_allclose(float(own[step][name]), float(row[name]), rtol=1e-5)
