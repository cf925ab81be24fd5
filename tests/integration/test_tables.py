"""The sweeps of published tables, by the lines in their files, on rooms in the public form."""

import json
import shlex

import pytest

from tests.integration.shell import QUIET, invoke
from tests.rooms import OfficeHome, write, write_domains
from tests.support import CONFIGS

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")

QUICK = [
    *QUIET,
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "dataset.num_workers=0",
    "dataset.batch_size=2",
    "callbacks.pictures=null",
    "model.backbone.pretrained=false",
    "seed=0",
    "baseline=null",  # whose values may be 0 after a step
]
DEEPLAB = ["model.backbone.name=resnet18", "model.head.channels=8"]
OFFICE = ["model.backbone.name=resnet10t", "dataset.resize=[32,32]"]
TABLES = {  # table -> data, and what makes its network small
    1: ("nyuv2", DEEPLAB),
    2: ("cityscapes", DEEPLAB),
    3: ("office_home", OFFICE),
    4: ("nyuv2", DEEPLAB),
    5: ("office31", OFFICE),
}


def lines(table):
    """The commands in the head of a sweep file: its methods, and its single tasks."""
    text = (CONFIGS / "sweep" / f"rep_mtl_table{table}.yaml").read_text()
    found = [line.split("train.py ")[1] for line in text.splitlines() if "python train.py" in line]
    return [shlex.split(line) for line in found]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders by data set, written when they are asked for."""
    root = tmp_path_factory.mktemp("data")
    writers = {
        "nyuv2": lambda path: write("mtan", path, {"train": 4, "val": 2}),
        "cityscapes": lambda path: write("cityscapes", path, {"train": 4, "val": 2}),
        "office31": lambda path: write_domains(path, lists=True),
        "office_home": lambda path: write_domains(path, OfficeHome),
    }

    def folder(name):
        path = root / name
        return path if path.is_dir() else writers[name](path)

    return folder


def sweep(table, line, data, cwd, *changed):
    """Runs a documented line with so few steps and small networks; results by folder."""
    pytest.importorskip("timm")
    name, small = TABLES[table]
    command = [word.replace("DIR", str(data(name))) for word in lines(table)[line]]
    invoke(*command, *QUICK, *small, *changed, cwd=cwd).ok()
    (folder,) = (cwd / "multirun").iterdir()
    found = [path for path in folder.iterdir() if path.is_dir()]
    results = [json.loads((path / "metrics.json").read_text()) for path in sorted(found)]
    assert {r["dataset"] for r in results} == {name}
    assert len({r["protocol"] for r in results}) == 1
    return results


def test_a_run_and_its_folder(data, tmp_path):
    """However many options there are, and with slashes in them: one folder a run."""
    options = ["balancer=rep_mtl", "balancer/combine=pcgrad", "trainer.log_every_n_steps=1"]
    options += ["optimizer.lr=0.00011", "optimizer.weight_decay=0.00011", "scheduler.gamma=0.501"]
    (results,) = sweep(1, 0, data, tmp_path, *options)
    assert results["balancer"] == "rep_mtl"
    assert results["info"] | {"steps": 1, "skipped_steps": 0} == results["info"]
    (folder,) = tmp_path.glob("multirun/*/0_*")
    assert folder.name.startswith("0_balancer.combine=pcgrad,balancer=rep_mtl,callbacks.pictures")
    assert "data_dir" not in folder.name
    assert (folder / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_methods(table, data, tmp_path):
    """Single-task learning first: what the others are compared with."""
    first, second = sweep(table, 0, data, tmp_path, "balancer=stl,rep_mtl")
    assert (first["balancer"], first["shared"]) == ("stl", False)
    assert (second["balancer"], second["shared"]) == ("rep_mtl", True)


@pytest.mark.slow
@pytest.mark.parametrize("table", [1, 5])
def test_single_tasks(table, data, tmp_path):
    results = sweep(table, 1, data, tmp_path)
    tasks = [task for r in results for task in r["metrics"]]
    assert len(tasks) == len(results) == len(set(tasks)) == 3
    assert {r["balancer"] for r in results} == {"ew"}
