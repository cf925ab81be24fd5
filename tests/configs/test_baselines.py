"""Published single-task values belong to the protocols that the configurations have now."""

import yaml
from omegaconf import OmegaConf

from benchmarks.scenes.benchmark import Scenes
from mtl.report import protocol_of
from tests.support import ROOT, compose_config

PARTS = ("dataset", "model", "optimizer", "scheduler", "trainer")


def test_scenes():
    config = compose_config("dataset=scenes")
    plain = {part: OmegaConf.to_container(config[part], resolve=True) for part in PARTS}
    (entry,) = yaml.safe_load((ROOT / "benchmarks" / "baselines" / "scenes.yaml").read_text())
    assert entry["protocol"] == protocol_of(plain)
    tasks = {task.name: task for task in Scenes().tasks(lambda size: _Head(size))}
    assert entry["values"].keys() == tasks.keys()
    for name, values in entry["values"].items():
        assert values.keys() == tasks[name].metrics.keys()


class _Head:
    def __init__(self, size):
        self.size = size
