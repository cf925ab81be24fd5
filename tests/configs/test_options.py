"""Every option of every group composes, passes the checks, and makes what it promises."""

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn

import mtl.callbacks
from benchmarks.base import Benchmark
from mtl import Balancer
from mtl.aggregation import MGDAWeighting
from mtl.config import build, build_all, check_arguments
from mtl.diffusion import Denoiser, Noisy
from mtl.scalarization import EqualWeighting, UncertaintyWeighting
from mtl.transforms import Log
from tests.support import CONFIGS, PRESETS, assert_same, compose_config, set_num_tasks, state_of

FILES = sorted(CONFIGS.rglob("*.yaml"))
OPTIONS = {
    f"{path.parent.relative_to(CONFIGS).as_posix()}={path.stem}"
    for path in FILES
    if path.parent != CONFIGS
}
COMPANIONS = {  # options that others ask for
    "logger=wandb": ["logger.wandb.name=run"],
    "dataset=diffusion_folder": ["dataset.data_dir=."],
    **{f"model=denoiser_{name}": ["dataset=diffusion_mnist"] for name in ("mlp", "unet", "dit")},
}
LISTS = ("balancer/transforms=", "balancer/regularizers=")


def override(option):
    group, name = option.split("=")
    return f"{group}=[{name}]" if option.startswith(LISTS) else option


def options(group):
    return sorted(option for option in OPTIONS if option.startswith(f"{group}="))


def composed(*overrides, folder="."):
    """A configuration as in a run, without the run's folder."""
    config = compose_config(*overrides, f"output_dir={folder}").copy()
    config._set_flag("struct", False)
    del config["hydra"]
    return config


def test_all_groups_are_covered():
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups == {
        "balancer", "balancer/combine", "balancer/regularizers", "balancer/sharpness",
        "balancer/transforms", "callbacks", "dataset", "debug", "experiment", "logger",
        "model", "optimizer", "scheduler", "selection", "sharing", "sweep", "trainer",
    }  # fmt: skip


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_option_composes_and_passes_the_checks(option):
    config = composed(override(option), *COMPANIONS.get(option, ()))
    check_arguments(config)
    assert config.dataset._target_.startswith("benchmarks.")


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(
    "option",
    [o for group in ("balancer", "balancer/combine") for o in options(group)]
    + [o for g in ("regularizers", "sharpness", "transforms") for o in options(f"balancer/{g}")],
)
def test_balancers_are_made(option, num_tasks):
    config = composed(override(option))
    set_num_tasks(config, num_tasks)
    balancer = build(config.balancer)
    assert isinstance(balancer, Balancer)
    group, name = option.split("=")
    named = f"balancer/combine={name}" in OPTIONS  # other presets fill other slots
    if group == "balancer/combine" or (group == "balancer" and named):
        target = composed(f"balancer/combine={name}").balancer.combine._target_
        assert type(balancer.combine).__name__ == target.rsplit(".", 1)[1]
    elif group in ("balancer/transforms", "balancer/regularizers"):
        assert list(getattr(balancer, group.split("/")[1])) == [name]
    elif group == "balancer/sharpness":
        assert balancer.sharpness is not None


@pytest.mark.parametrize("option", options("optimizer"))
@pytest.mark.parametrize("schedule", ["~scheduler", *options("scheduler")])
def test_optimizers_and_schedulers_move_a_parameter(option, schedule):
    config = composed(option, schedule, "dataset=multidigits", "trainer.max_epochs=4")
    parameter = nn.Parameter(torch.ones(3))
    optimizer = build(config.optimizer)([{"params": [parameter]}])
    assert optimizer.param_groups[0]["lr"] == config.optimizer.lr
    scheduler = build(config.scheduler)(optimizer) if config.scheduler else None
    for _ in range(4):
        parameter.square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    assert (parameter < 1).all()
    if schedule == "scheduler=cosine":
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    else:
        assert optimizer.param_groups[0]["lr"] == config.optimizer.lr


RANDOM = "backbone.pretrained=false"
SMALL = {  # models of published tables, made smaller and without their weights
    "mtl.models.DilatedResNet": [RANDOM, "backbone.name=resnet18", "head.channels=8"],
    "mtl.models.ResNet": [RANDOM],
}


def small(option, folder):
    """The configuration of a data set whose data and model can be made here."""
    companions = COMPANIONS.get(option, ())
    config = composed(option, *companions)
    target = config.model.backbone._target_
    if target in SMALL:
        pytest.importorskip("timm")
    changes = [f"model.{change}" for change in SMALL.get(target, [])]
    if config.dataset._target_.endswith("ManyTaskTable"):
        file = folder / "table.csv"
        rows = [f"{i % 7},{i % 2},{i}" for i in range(60)]
        file.write_text("\n".join(["x,t,y", *rows]))
        changes += ["dataset.name=null", f"dataset.csv={file}"]
        changes += ["dataset.task_column=t", "dataset.target_column=y"]
    return composed(option, *companions, *changes)


@pytest.mark.parametrize("option", options("dataset"))
def test_datasets_with_their_own_model(option, tmp_path):
    config = small(option, tmp_path)
    benchmark = build(config.dataset)
    config.num_features = benchmark.num_features
    assert isinstance(benchmark, Benchmark)
    assert benchmark.batch_size == config.dataset.batch_size
    backbone, head = build(config.model.backbone), build(config.model.head)
    tasks = benchmark.tasks(lambda size: head(backbone.out_channels, size))
    assert len(tasks) > 1
    assert all(task.metrics for task in tasks)
    shapes = {
        "scenes": (3, 64, 64),
        "multimnist": (1, 28, 28),
        "multidigits": (1, 12, 12),
        "diffusion_gmm": (2,),
        "diffusion_digits": (1, 8, 8),
        "diffusion_mnist": (1, 28, 28),
    }
    pictures = shapes.get(option.split("=")[1], (3, 32, 32))
    flat = benchmark.num_features
    inputs = torch.zeros(2, *(pictures if flat is None else (flat,)))
    if isinstance(backbone, Denoiser):
        inputs = Noisy(inputs, torch.zeros(2).long(), torch.zeros(2).long(), torch.ones(2))
    features = backbone(inputs)
    assert all(task.head(features).isfinite().all() for task in tasks)


@pytest.mark.parametrize("option", options("model"))
def test_models_are_those_of_some_data_set_or_recipe(option):
    recipes = [*options("dataset"), *options("experiment")]
    chosen = {composed(recipe).model.backbone._target_ for recipe in recipes}
    assert composed(option).model.backbone._target_ in chosen


def test_callbacks_are_made(tmp_path):
    made = build_all(composed(folder=tmp_path).callbacks)
    assert all(isinstance(callback, lightning.Callback) for callback in made)
    own = {type(c).__name__ for c in made} & set(mtl.callbacks.__all__)
    assert own == {"GradientCosines", "History", "Pictures", "RandomState"}
    assert (
        len(build_all(composed("~callbacks.cosines", folder=tmp_path).callbacks)) == len(made) - 1
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("csv", CSVLogger), ("tensorboard", TensorBoardLogger), ("wandb", WandbLogger)],
)
def test_loggers_are_made_and_write_into_the_run(name, kind, tmp_path):
    extra = ["logger.wandb.name=run", "logger.wandb.offline=true"] if name == "wandb" else []
    (logger,) = build_all(composed(f"logger={name}", *extra, folder=tmp_path).logger)
    assert type(logger) is kind
    assert str(logger.save_dir).startswith(str(tmp_path))
    assert {f"logger={n}" for n in ("csv", "tensorboard", "wandb")} == set(options("logger"))


def test_no_logger():
    assert build_all(composed("~logger").logger) == []


@pytest.mark.parametrize("option", ["trainer=cpu", "trainer=default"])
def test_trainers_are_made(option, tmp_path):
    config = composed(option, "trainer.accelerator=cpu")
    trainer = build(config.trainer, default_root_dir=tmp_path, logger=False)
    assert isinstance(trainer, lightning.Trainer)
    assert trainer.max_epochs == 8  # what the data set of the default configuration says


def test_trainers_of_other_machines_differ_from_the_default_where_they_say():
    names = ("default", "gpu", "ddp", "fsdp")
    default, gpu, ddp, fsdp = (composed(f"trainer={name}").trainer for name in names)
    assert {key for key in default if default[key] != gpu[key]} == {"accelerator"}
    for several in (ddp, fsdp):
        assert {key for key in default if default[key] != several[key]} == {"strategy", "devices"}


PYTHON = {
    "uw": lambda: Balancer(UncertaintyWeighting(3)),
    "mgda": lambda: Balancer(MGDAWeighting()),
    "ew_log": lambda: Balancer(EqualWeighting(), transforms={"log": Log(eps=1e-8)}),
}


@pytest.mark.parametrize("name", PYTHON)
def test_preset_equals_its_python_form(name):
    config = composed(f"balancer={name}")
    config.num_tasks = 3
    preset, written = build(config.balancer), PYTHON[name]()
    assert repr(preset) == repr(written)
    assert_same(state_of(preset), state_of(written))
    for option in ("level", "head_grad", "on_nonfinite", "max_nonfinite", "needs"):
        assert getattr(preset, option) == getattr(written, option)


def test_presets_differ_from_each_other():
    configs = [composed(f"balancer={name}") for name in PRESETS]
    nodes = [str((config.balancer, config.sharing)) for config in configs]
    assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_file_says_what_it_is(path):
    """A comment on top, or nothing but one part: a target (a group of it) and its arguments."""
    lines = path.read_text().splitlines()
    if not lines[0].startswith("#"):
        targets = [line for line in lines if line.strip().startswith("_target_:")]
        assert len(targets) == 1
        assert "defaults:" not in lines
    elif lines[0].startswith("# @package"):
        assert lines[1].startswith("# ")
