"""Published single-task values belong to the protocols that the configurations have now."""

import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import OmegaConf

from mtl.config import build
from mtl.report import protocol_of
from mtl.report.baseline import published_values
from tests.support import CONFIGS, PRESETS, ROOT, compose_config

PARTS = ("dataset", "model", "optimizer", "scheduler", "trainer", "selection")
FILES = sorted((ROOT / "benchmarks" / "baselines").glob("*.yaml"))
ENTRIES = [
    pytest.param(path.stem, entry, id=f"{path.stem}-{entry.get('experiment', 'default')}")
    for path in FILES
    for entry in yaml.safe_load(path.read_text())
]


def protocol(option, departures=None):
    config = compose_config(option)
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, PARTS), resolve=True, throw_on_missing=False
    )
    return protocol_of(plain, get_class(config.dataset._target_).free, departures)


@pytest.mark.parametrize(("dataset", "entry"), ENTRIES)
def test_protocol_and_metrics(dataset, entry):
    experiment = entry.get("experiment")
    option = f"experiment={experiment}" if experiment else f"dataset={dataset}"
    assert entry["protocol"] == protocol(option)
    assert entry["source"]
    benchmark = build(compose_config(option).dataset)
    tasks = {task.name: task for task in benchmark.tasks(lambda size: _Head(size))}
    assert entry["values"].keys() == tasks.keys()
    for name, values in entry["values"].items():
        assert values.keys() == tasks[name].metrics.keys()


@pytest.mark.parametrize(("dataset", "entry"), ENTRIES)
def test_other_data_have_no_published_values(dataset, entry):
    """Or a recipe on exported rooms would be compared with the paper's row."""
    experiment = entry.get("experiment")
    option = f"experiment={experiment}" if experiment else f"dataset={dataset}"
    path = ROOT / "benchmarks" / "baselines" / f"{dataset}.yaml"
    assert published_values(path, protocol(option), entry["values"]).source == entry["source"]
    other = protocol(option, {"train samples": 64})
    assert published_values(path, other, entry["values"]) is None
    assert other != protocol(option, {"train samples": 63})


@pytest.mark.parametrize("dataset", ["nyuv2", "cityscapes", "office31", "office_home"])
def test_a_data_set_alone_is_its_first_recipe(dataset):
    first, *_ = yaml.safe_load((ROOT / "benchmarks" / "baselines" / f"{dataset}.yaml").read_text())
    assert protocol(f"dataset={dataset}") == first["protocol"]


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("dataset.data_dir=elsewhere", False),
        ("dataset.num_workers=9", False),
        ("dataset.download=true", False),
        ("dataset.resize=[96,128]", True),
        ("dataset.augment=reference", True),
        ("selection=mean", True),
        ("model.backbone.pretrained=false", True),
    ],
)
def test_what_makes_a_protocol(option, changes):
    config = compose_config("dataset=nyuv2", option)
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, PARTS), resolve=True)
    free = get_class(config.dataset._target_).free
    assert (protocol_of(plain, free) != protocol("dataset=nyuv2")) == changes


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "sweep").glob("*_table*.yaml")), ids=lambda p: p.stem
)
def test_tables_name_what_there_is(path):
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    assert (CONFIGS / "experiment" / f"{params['experiment']}.yaml").is_file()
    override = OverridesParser.create().parse_override(f"balancer={params['balancer']}")
    names = [str(name) for name in override.sweep_iterator()]
    assert len(set(names)) == len(names)
    assert set(names) <= set(PRESETS)
    assert {"ew", "ew_log", "rep_mtl"} <= set(names)
    assert names[0] == "stl"  # what the others are compared with
    assert params["seed"] == "0,1,2"


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "sweep").glob("*_table*.yaml")), ids=lambda p: p.stem
)
def test_lines_of_tables_compose(path):
    """As Hydra reads them first, before an experiment is chosen, and again for every run."""
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    lines = [line for line in path.read_text().splitlines() if "python train.py" in line]
    assert len(lines) == 2
    for line in lines:
        given = [word for word in shlex.split(line.split("train.py")[1]) if word != "-m"]
        given = [word.split("],[")[0] + "]" * ("],[" in word) for word in given]
        first = compose_config(*given)
        assert first.dataset.data_dir == "DIR"
    run = compose_config(f"experiment={params['experiment']}", *given)
    assert run.dataset._target_ == first.dataset._target_


class _Head:
    def __init__(self, size):
        self.size = size
