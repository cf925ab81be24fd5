"""What is misspelt is named, with what exists; exit code 2 and no traceback."""

import pytest

from tests.integration.shell import TINY, invoke, shell
from tests.support import CONFIGS

GROUPS = ("dataset", "model", "balancer", "optimizer", "trainer", "logger")

WRONG = {
    # where: (options, what the message must name)
    "top level": (["sed=1"], ["'sed'", "seed", "Did you mean 'seed'"]),
    "top level, close to a group": (["optmizer.lr=1"], ["optmizer", *GROUPS]),
    "appended at the top level": (["+sed=1"], ["'sed'", *GROUPS, "Did you mean 'seed'"]),
    "nested": (["balancer.lvl=x"], ["balancer.lvl", "head_grad", "Did you mean 'level'"]),
    "nested deeper": (
        ["model.backbone.widht=4"],
        ["model.backbone.widht", "in_channels", "'width'"],
    ),
    "appended in a node": (["+trainer.max_epoch=3"], ["'trainer.max_epoch'", "'max_epochs'"]),
    "appended in an optimizer": (["+optimizer.beta=1"], ["'optimizer.beta'", "betas", "eps"]),
    "appended in a part": (
        ["+balancer.combine.temp=1"],
        ["balancer.combine.temp", "There are: none"],
    ),
    "appended in a callback": (["+callbacks.history.a=1"], ["'callbacks.history.a'", "none"]),
    "group": (["balancr=uw"], ["balancr", "Did you mean 'balancer'"]),
    "nested group": (["balancer/combin=uw"], ["balancer/combin", "balancer/combine"]),
    "option": (["balancer=pcgrd"], ["balancer/pcgrd", "pcgrad", "graddrop", "mgda"]),
    "nested option": (["balancer/combine=pc"], ["balancer/combine/pc", "pcgrad", "graddrop"]),
    "experiment": (["experiment=mnist"], ["experiment/mnist", "multimnist_pcgrad"]),
    "type at the top level": (["seed=one"], ["seed", "one"]),
    "type of the tasks": (["tasks=left"], ["tasks", "list"]),
    "type of a trainer's option": (
        ["trainer.max_epochs=ten"],
        ["trainer.max_epochs", "int", "ten"],
    ),
    "type of a data set's option": (["dataset.train_count=x"], ["dataset.train_count", "int", "x"]),
    "type of a switch": (["optimizer.lr=fast"], ["optimizer", "'lr': 'fast'"]),
    "value of an optimizer": (["optimizer.lr=-1"], ["optimizer", "'lr': -1"]),
    "value of a balancer": (["balancer.level=head"], ["level", "parameters", "representation"]),
    "null for a number": (["dataset.train_count=null"], ["dataset.train_count", "int"]),
    "target, folder": (
        ["balancer.combine._target_=nope.Worst"],
        ["balancer.combine._target_", "nope"],
    ),
    "target, class": (
        ["balancer.combine._target_=mtl.scalarization.EqualWeights"],
        ["balancer.combine._target_", "Did you mean 'EqualWeighting'", "UncertaintyWeighting"],
    ),
    "target, a module": (["balancer.combine._target_=mtl.scalarization"], ["_target_", "module"]),
    "target, empty": (["balancer.combine._target_="], ["balancer.combine._target_"]),
    "target, another slot's": (
        ["balancer.combine._target_=mtl.regularizers.Activity"],
        ["combine", "Combiner"],
    ),
    "task": (["tasks=[left,rihgt]"], ["tasks", "rihgt", "right"]),
    "no task": (["tasks=[]"], ["tasks", "left"]),
    "task twice": (["tasks=[left,left]"], ["tasks", "once"]),
    "evaluation of nothing": (["train=false"], ["ckpt_path"]),
    "baseline": (["baseline=nowhere.json"], ["baseline", "nowhere.json"]),
}


@pytest.mark.parametrize("where", WRONG)
def test_command_line(where, tmp_path):
    options, named = WRONG[where]
    data = [] if "model" in options[0] else TINY
    invoke(*data, *options, cwd=tmp_path).refused(*named)


def test_in_a_shell(tmp_path):
    done = shell("balancer.lvl=x", cwd=tmp_path)
    done.refused("balancer.lvl", "head_grad", "Did you mean 'level'")
    assert not list(tmp_path.rglob("*.ckpt"))


def write_experiment(folder, text):
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sed: 1\n", ["sed", "Did you mean 'seed'"]),
        ("balancr:\n  level: representation\n", ["balancr", "Did you mean 'balancer'"]),
        ("trainer:\n  max_epoch: 1\n", ["'trainer.max_epoch'", "Did you mean 'max_epochs'"]),
        ("balancer:\n  combine:\n    temp: 1\n", ["'balancer.combine.temp'", "none"]),
        ("callbacks:\n  cosines:\n    every: 1\n", ["'callbacks.cosines.every'", "every_n_steps"]),
        ("defaults:\n  - override /balancer: pc\n", ["balancer/pc", "pcgrad"]),
        ("defaults:\n  - override /balancr: uw\n", ["balancr"]),
        ("seed: one\n", ["seed", "one"]),
    ],
)
def test_experiment_file(text, named, tmp_path):
    write_experiment(tmp_path, text)
    invoke(*TINY, "experiment=mine", "--config-dir", str(tmp_path), cwd=tmp_path).refused(*named)


def test_experiment_file_on_the_search_path(tmp_path):
    write_experiment(tmp_path, "trainer:\n  max_epoch: 1\n")
    place = f"hydra.searchpath=[file://{tmp_path}]"
    done = invoke(*TINY, "experiment=mine", place, cwd=tmp_path)
    done.refused("'trainer.max_epoch'", "Did you mean 'max_epochs'")


def test_experiment_file_without_mistake_is_found(tmp_path):
    write_experiment(tmp_path, "seed: 7\nbalancer:\n  level: representation\n")
    done = invoke(
        "--config-dir", str(tmp_path), "experiment=mine", "--cfg", "job", cwd=tmp_path
    ).ok()
    assert "seed: 7" in done.out
    assert "level: representation" in done.out


def test_help_lists_the_options_of_every_group(tmp_path):
    out = invoke("--help", cwd=tmp_path).ok().out
    folders = {path.parent for path in CONFIGS.rglob("*.yaml")} - {CONFIGS}
    for folder in folders:
        if CONFIGS / "hydra" in folder.parents:
            continue  # listed with Hydra's own groups
        group = folder.relative_to(CONFIGS).as_posix()
        names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        assert f"{group}: {names}\n" in out


def test_cfg_job_prints_and_runs_nothing(tmp_path):
    out = invoke("balancer=uw", "seed=3", "--cfg", "job", cwd=tmp_path).ok().out
    assert "mtl.scalarization.UncertaintyWeighting" in out
    assert "seed: 3" in out
    assert not (tmp_path / "outputs").exists()
