"""Recipes from start to end on rooms in the form of the public files."""

import csv
import json
import math
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.shell import QUIET, TINY, invoke
from tests.rooms import OfficeHome, write, write_domains
from tests.support import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")

CPU = [*QUIET, "trainer.accelerator=cpu", "trainer.max_epochs=1", "dataset.num_workers=0"]
SMALL = [*CPU, "dataset.limit=4", "dataset.batch_size=2"]
DEEPLAB = [
    "model.backbone.pretrained=false",
    "model.backbone.name=resnet18",
    "model.head.channels=8",
]
OFFICE = [*CPU, "model.backbone.pretrained=false", "dataset.resize=[32,32]", "dataset.batch_size=4"]

SEGMENTATION, DEPTH = {"miou", "pixel_accuracy"}, {"absolute_error", "relative_error"}
NORMAL = {"mean_angle", "median_angle", "within_11_25", "within_22_5", "within_30"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Root by layout."""
    root = tmp_path_factory.mktemp("data")
    write("mtan", root / "mtan")
    write("cityscapes", root / "cityscapes")
    write_domains(root / "office31", lists=True)
    write_domains(root / "office_home", OfficeHome)
    return root


def trained(done, **expected):
    """Checks that a run has finite values of these metrics, a checkpoint and curves."""
    results = done.ok().results
    assert {task: set(keys) for task, keys in results["higher_is_better"].items()} == expected
    values = [v for metrics in results["metrics"].values() for v in metrics.values()]
    assert all(math.isfinite(value) for value in values)
    assert results["info"]["skipped_steps"] == 0
    assert done.last.is_file()
    return results


def test_nyuv2_deeplab(data, tmp_path):
    pytest.importorskip("timm")
    recipe = ["experiment=nyuv2_deeplab", *SMALL, *DEEPLAB, f"dataset.data_dir={data}/mtan"]
    done = invoke(*recipe, "balancer=rep_mtl", cwd=tmp_path)
    results = trained(done, segmentation=SEGMENTATION, depth=DEPTH, normal=NORMAL)
    assert results["info"]["steps"] == 2
    assert results["baseline"] is None  # a smaller protocol than that of the published values
    assert (done.folder / "pictures" / "predictions.png").is_file()


def test_a_checkpoint_brings_all_weights(data, tmp_path, monkeypatch):
    """Of a run that started from ImageNet: nothing is looked for to evaluate or analyze it."""
    timm = pytest.importorskip("timm")
    recipe = ["experiment=nyuv2_deeplab", *SMALL, f"dataset.data_dir={data}/mtan"]
    recipe += ["model.backbone.name=resnet10t", "model.head.channels=8", "balancer=rep_mtl"]
    done = invoke(*recipe, "model.backbone.pretrained=false", cwd=tmp_path).ok()
    checkpoint = done.checkpoint
    checkpoint["config"]["model"]["backbone"]["pretrained"] = True
    torch.save(checkpoint, done.last)
    asked, create = [], timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: (asked.append(k["pretrained"]), create(*a, **k))[1]
    )
    again = invoke(*recipe, "train=false", f"ckpt_path={done.last}", cwd=tmp_path).ok()
    assert again.results["metrics"] == done.results["metrics"]
    parts = runpy.run_path(str(ROOT / "scripts" / "power_law.py"))["load"](done.last)
    assert parts.keys() == {"backbone", "head segmentation", "head depth", "head normal"}
    assert asked == [False, False]


def test_nyuv2_from_parquet_at_another_size(tmp_path):
    pytest.importorskip("datasets")
    root = write("parquet", tmp_path / "data")
    options = ["dataset.resize=[16,32]", "dataset.augment=corrected", "model=unet"]
    done = invoke(
        *["dataset=nyuv2", f"dataset.data_dir={root}", "model.backbone.width=4", *options, *SMALL],
        f"dataset.cache_dir={tmp_path}/rows",
        cwd=tmp_path,
    )
    trained(done, segmentation=SEGMENTATION, depth=DEPTH, normal=NORMAL)


@pytest.mark.slow
def test_workers_change_nothing(data, tmp_path):
    recipe = ["dataset=nyuv2", "model=unet", "model.backbone.width=4", *SMALL]
    recipe += [f"dataset.data_dir={data}/mtan", "dataset.augment=corrected"]
    alone = invoke(*recipe, cwd=tmp_path).ok().results
    workers = invoke(*recipe, "dataset.num_workers=2", cwd=tmp_path).ok().results
    assert workers["metrics"] == alone["metrics"]
    assert workers["protocol"] == alone["protocol"]


def test_the_best_epoch_is_reported_beside_the_last(data, tmp_path):
    """By LibMTL's rule, on the split that is validation and test in one."""
    recipe = ["dataset=nyuv2", "model=unet", "model.backbone.width=4", *SMALL, "optimizer.lr=0.03"]
    recipe += [f"dataset.data_dir={data}/mtan", "trainer.max_epochs=4", "callbacks.cosines=null"]
    recipe += ["tasks=[depth,normal]"]
    alone = invoke(*recipe, "balancer=stl", cwd=tmp_path).ok().results
    assert alone["best_epoch"] is None
    for path in tmp_path.rglob("metrics.json"):  # no gain over a share of 0
        for keys in alone["metrics"].values():
            keys.update({key: 0.5 for key, value in keys.items() if value == 0})
        path.write_text(json.dumps({"version": 1, **alone}))
    done = invoke(*recipe, cwd=tmp_path).ok()
    gains = [by_hand(row, alone) for row in history(done) if row["val/mean_angle/normal"]]
    assert len(set(gains)) == len(gains) == 4
    best = done.results["best_epoch"]
    assert best["epoch"] == gains.index(max(gains))
    assert best["delta_p"] == pytest.approx(max(gains))
    assert done.results["delta_p"] == pytest.approx(gains[-1])
    assert f"after epoch {best['epoch']}, the best" in done.out
    assert f"{max(gains):+.2f} %" in done.out


def by_hand(row, alone):
    """Mean over tasks of the mean gain of their metrics, in percent."""
    tasks = []
    for task, values in alone["metrics"].items():
        signs = alone["higher_is_better"][task]
        single = {key: values[key] for key in signs}
        tasks.append(
            [
                100 * (float(row[f"val/{key}/{task}"]) / value - 1) * (1 if signs[key] else -1)
                for key, value in single.items()
            ]
        )
    return sum(sum(gains) / len(gains) for gains in tasks) / len(tasks)


def test_nyuv2_segnet_mtan_reports_the_mean_of_the_last_epochs(data, tmp_path):
    recipe = ["experiment=nyuv2_segnet_mtan", "model.backbone.width=4", *SMALL]
    recipe += [f"dataset.data_dir={data}/mtan", "trainer.max_epochs=3", "optimizer.lr=1e-2"]
    done = invoke(*recipe, "callbacks.last_epochs.count=2", cwd=tmp_path)
    results = trained(done, segmentation=SEGMENTATION, depth=DEPTH, normal=NORMAL)
    kept = [c for n, c in done.checkpoint["callbacks"].items() if n.startswith("LastEpochs")]
    second, third = kept[0]["results"]
    assert second != third
    for task, values in results["metrics"].items():
        for key, value in values.items():
            assert value == pytest.approx((second[task][key] + third[task][key]) / 2)


def test_mean_needs_validation_on_the_test_split(tmp_path):
    done = invoke("dataset=multidigits", "selection=mean", cwd=tmp_path)
    done.refused("selection=mean", "MultiDigits")


def test_cityscapes_deeplab(data, tmp_path):
    pytest.importorskip("timm")
    done = invoke(
        *["experiment=cityscapes_deeplab", *SMALL, *DEEPLAB, "dataset.augment=corrected"],
        "balancer=rep_mtl",
        f"dataset.data_dir={data}/cityscapes",
        cwd=tmp_path,
    )
    trained(done, segmentation=SEGMENTATION, depth=DEPTH)
    assert (done.folder / "pictures" / "predictions.png").is_file()


@pytest.mark.parametrize(
    ("name", "domains"),
    [
        ("office31", ["amazon", "dslr", "webcam"]),
        pytest.param(
            "office_home", ["art", "clipart", "product", "real_world"], marks=pytest.mark.slow
        ),
    ],
)
def test_office_resnet18_tests_the_best_epoch(name, domains, data, tmp_path):
    pytest.importorskip("timm")
    recipe = [f"experiment={name}_resnet18", *OFFICE, f"dataset.data_dir={data}/{name}"]
    recipe += ["model.backbone.name=resnet10t", "balancer=rep_mtl"]
    half = invoke(*recipe, cwd=tmp_path).ok()
    done = invoke(*recipe, "trainer.max_epochs=2", f"ckpt_path={half.last}", cwd=tmp_path)
    results = trained(done, **{domain: {"accuracy"} for domain in domains})
    rows = [row for row in history(done) if row["val/accuracy/mean"]]
    means = [float(row["val/accuracy/mean"]) for row in rows]
    assert len(means) == 2
    for row, mean in zip(rows, means, strict=True):
        own = [float(row[f"val/accuracy/{domain}"]) for domain in domains]
        assert sum(own) / len(own) == pytest.approx(mean)
    (best,) = (c for n, c in done.checkpoint["callbacks"].items() if n.startswith("BestEpoch"))
    assert best["score"] == pytest.approx(max(means))
    first = max(means) == means[0]  # then it is the checkpoint of the run that was resumed
    assert Path(best["path"]) == (half if first else done).folder / "checkpoints" / "best.ckpt"
    again = invoke(*recipe, "train=false", f"ckpt_path={best['path']}", cwd=tmp_path)
    assert again.ok().results["metrics"] == results["metrics"]


def test_selection_needs_what_it_selects_by(tmp_path):
    done = invoke(*TINY, "selection=best", "callbacks.best.monitor=val/miou/left", cwd=tmp_path)
    done.refused("monitor", "val/miou/left", "val/accuracy/mean")
    done = invoke(*TINY, "selection=best", "trainer.limit_val_batches=0", cwd=tmp_path)
    done.refused("selection=best", "limit_val_batches")
    done = invoke(*TINY, "selection=best", "~callbacks.best", cwd=tmp_path)
    done.refused("selection=best", "callbacks")
    invoke(*TINY, "selection=best", "debug=fast", cwd=tmp_path).ok()


def history(done):
    with (done.folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_single_domain_then_its_gain(data, tmp_path):
    """`tasks=[...]` reads that domain alone; the runs are found as baselines of the joint one."""
    pytest.importorskip("timm")
    recipe = ["dataset=office31", *OFFICE, f"dataset.data_dir={data}/office31"]
    recipe += ["model.backbone.name=resnet10t", "dataset.limit=8"]
    for domain in ("amazon", "dslr", "webcam"):
        single = invoke(*recipe, f"tasks=[{domain}]", cwd=tmp_path).ok()
        assert list(single.results["metrics"]) == [domain]
    for path in (tmp_path / "outputs").rglob("metrics.json"):  # no gain over an accuracy of 0
        found = json.loads(path.read_text())
        for values in found["metrics"].values():
            values["accuracy"] = 0.5
        path.write_text(json.dumps(found))
    joint = invoke(*recipe, cwd=tmp_path).ok()
    assert "own single-task run" in joint.results["baseline"]
    assert joint.results["delta_p"] is not None


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes", "office31"])
def test_no_data(name, tmp_path):
    """It is said before the network's weights are looked for, which are not there either."""
    pytest.importorskip("timm")
    nowhere = {"HF_HUB_CACHE": str(tmp_path), "HF_HOME": str(tmp_path)}
    done = invoke(f"dataset={name}", *CPU, cwd=tmp_path, **nowhere)
    done.refused("Looked for", "Found there", "Get it", "No data at hand", "scenes")


def test_broken_file_in_training(data, tmp_path):
    root = shutil.copytree(data / "mtan", tmp_path / "data")
    path = root / "train" / "depth" / "8.npy"
    path.write_bytes(path.read_bytes()[:100])
    done = invoke(
        *["dataset=nyuv2", "model=unet", "model.backbone.width=4", *CPU, "dataset.batch_size=2"],
        f"dataset.data_dir={root}",
        cwd=tmp_path,
    )
    done.refused(str(path), "expected a .npy file")


def test_broken_file_in_a_worker(data, tmp_path):
    root = shutil.copytree(data / "mtan", tmp_path / "data")
    path = root / "train" / "image" / "7.npy"
    path.write_text("")
    options = ["model=unet", "model.backbone.width=4", *CPU, "dataset.num_workers=2"]
    done = invoke(
        *["dataset=nyuv2", *options, "dataset.batch_size=2", f"dataset.data_dir={root}"],
        cwd=tmp_path,
    )
    done.refused(str(path), "expected a .npy file")


def test_weights_without_network(data, tmp_path):
    pytest.importorskip("timm")
    done = invoke(
        *["dataset=nyuv2", *CPU, f"dataset.data_dir={data}/mtan"],
        cwd=tmp_path,
        HF_HOME=str(tmp_path),
    )
    done.refused("resnet50.tv_in1k", "model.backbone.pretrained=false", "(in `model.backbone`)")


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    invoke("dataset=nyuv2", cwd=tmp_path).refused('pip install -e ".[vision]"', "model=unet")


# ------------------------------------------------------------------------------ at their own size


@pytest.mark.slow
def test_recipe_with_the_whole_network(data, tmp_path):
    """ResNet-50, heads of 256 channels: two steps, then a resumed third epoch to the bit."""
    pytest.importorskip("timm")
    recipe = ["experiment=nyuv2_deeplab", *SMALL, "model.backbone.pretrained=false"]
    recipe += [
        f"dataset.data_dir={data}/mtan",
        "dataset.resize=[32,32]",
        "dataset.augment=corrected",
    ]
    half = invoke(*recipe, cwd=tmp_path).ok()
    whole = invoke(*recipe, "trainer.max_epochs=2", cwd=tmp_path).ok()
    resumed = invoke(*recipe, "trainer.max_epochs=2", f"ckpt_path={half.last}", cwd=tmp_path).ok()
    assert resumed.results["metrics"] == whole.results["metrics"] != half.results["metrics"]


@pytest.mark.slow
def test_cityscapes_segnet_mtan(data, tmp_path):
    recipe = ["experiment=cityscapes_segnet_mtan", "model.backbone.width=4", *SMALL]
    done = invoke(*recipe, f"dataset.data_dir={data}/cityscapes", cwd=tmp_path)
    trained(done, segmentation=SEGMENTATION, depth=DEPTH)


@pytest.mark.slow
def test_segnet_mtan_learns(tmp_path):
    """On 64 rooms in NYUv2's form it gets better than what it starts with."""
    root = write("mtan", tmp_path / "data", counts={"train": 64, "val": 16})
    recipe = ["experiment=nyuv2_segnet_mtan", f"dataset.data_dir={root}", *CPU]
    recipe += ["model.backbone.width=8", "optimizer.lr=1e-3", "dataset.batch_size=4"]
    recipe += ["selection=last"]
    first = invoke(*recipe, "optimizer.lr=0", cwd=tmp_path).ok().results["metrics"]
    done = invoke(*recipe, "trainer.max_epochs=8", cwd=tmp_path).ok()
    last = done.results["metrics"]
    assert last["segmentation"]["pixel_accuracy"] > first["segmentation"]["pixel_accuracy"] + 0.1
    assert last["depth"]["absolute_error"] < 0.8 * first["depth"]["absolute_error"]
    assert last["normal"]["mean_angle"] < 0.8 * first["normal"]["mean_angle"]
