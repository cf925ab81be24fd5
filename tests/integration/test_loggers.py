"""Each logger, as a run leaves it."""

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml

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


def mlflow_left(folder):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mtl")
    (run,) = client.search_runs([experiment.experiment_id])
    files = {path.name for path in (folder / "mlflow").rglob("*")}
    return run.data.metrics, files, run.data.params


def tensorboard_left(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    scalars = {name: events.Scalars(name)[-1].value for name in tags["scalars"]}
    (told,) = events.Tensors("checkpoint/text_summary")
    checkpoint = told.tensor_proto.string_val[0].decode()
    files = {f"{name}.png" for name in tags["images"]} | {Path(checkpoint).name}
    config = yaml.safe_load((folder / "tensorboard" / "hparams.yaml").read_text())
    return scalars, files, {"trainer/max_epochs": str(config["trainer"]["max_epochs"])}


def records(path):
    """Of a log in LevelDB's format: blocks of 32 KiB, parts with headers of 7 bytes."""
    content, at, record = path.read_bytes(), 7, b""
    while at + 7 < len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield record
            record = b""


def wandb_left(folder):
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("*.wandb")
    files = {f"{picture.name.split('_')[0]}.png" for picture in path.parent.rglob("*.png")}
    scalars, config = {}, {}
    for content in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            value = json.loads(item.value_json)
            if isinstance(value, int | float):
                scalars[name] = value
        files |= {entry.path for entry in record.artifact.manifest.contents}
        files |= {e.path for e in record.request.log_artifact.artifact.manifest.contents}
        for item in (*record.config.update, *record.run.config.update):
            if item.key == "trainer":
                config["trainer/max_epochs"] = str(json.loads(item.value_json)["max_epochs"])
    return scalars, files, config


@pytest.mark.parametrize(
    ("logger", "left"),
    [("wandb", wandb_left), ("tensorboard", tensorboard_left), ("mlflow", mlflow_left)],
)
def test_every_logger_carries_the_same(tmp_path, logger, left):
    pytest.importorskip(logger)
    done = shell(
        *OPTIONS,
        f"logger={logger}",
        cwd=tmp_path,
        WANDB_MODE="offline",
        HOME=str(tmp_path),
    ).ok()
    scalars, files, config = left(done.folder)
    with (done.folder / "history.csv").open() as file:
        own = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    own = own - {"step", "epoch"}
    if logger == "mlflow":  # Lightning leaves out what MLflow does not take in names
        own = {name.replace("~", "") for name in own}
    assert own <= scalars.keys()
    found = done.results["metrics"]["right"]["accuracy"]
    assert scalars["test/accuracy/right"] == pytest.approx(found, rel=1e-5)
    assert {path.name for path in (done.folder / "pictures").iterdir()} <= files
    assert "last.ckpt" in files
    assert config["trainer/max_epochs"] == "1"


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
