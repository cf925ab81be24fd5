"""What several tests share: the registered balancers, and a toy problem for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import hydra
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanSquaredError

import mtl.config
from benchmarks.base import ResumableLoader, ResumableSampler
from mtl import Aggregator, Balancer, MultiTaskModel, Task, Weighting

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
PRESETS = sorted(p.stem for p in (CONFIGS / "balancer").glob("*.yaml") if p.stem != "default")


@lru_cache
def compose_config(*overrides: str):
    mtl.config.register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


def compares(preset: str) -> bool:
    """Whether a preset takes gradients of single tasks: at either level, then."""
    balancer = compose_config(f"balancer={preset}").balancer
    combine = hydra.utils.get_class(balancer.combine._target_)
    return issubclass(combine, Weighting | Aggregator) and balancer.get("sharpness") is None


# The toy problem has few tasks: fewer clusters.
CLUSTERS = "balancer.transforms.interval_clusters.k=2"


def preset(name: str) -> list[str]:
    """Options of a preset on the toy problem."""
    transforms = compose_config(f"balancer={name}").balancer.get("transforms") or {}
    return [f"balancer={name}", *([CLUSTERS] if "interval_clusters" in transforms else [])]


def set_num_tasks(config, num_tasks: int) -> None:
    """What train.py fills in from the data set; no more clusters than tasks."""
    config.num_tasks = num_tasks
    clusters = (config.balancer.get("transforms") or {}).get("interval_clusters")
    if clusters is not None:
        clusters.k = min(clusters.k, num_tasks)


# Presets alone, those that compare gradients at the other level too, slots on top of each other.
VARIANTS = {name: preset(name) for name in PRESETS} | {
    **{
        f"{name} at the representation": [*preset(name), "balancer.level=representation"]
        for name in PRESETS
        if compares(name)
    },
    "pcgrad, heads weighted": ["balancer=pcgrad", "balancer.head_grad=weighted"],
    "log + mgda + activity + joint_sam": [
        "balancer=mgda",
        "balancer/transforms=[log]",
        "balancer/regularizers=[activity]",
        "balancer/sharpness=joint_sam",
    ],
    "clusters by size + log + pcgrad + activity + joint_sam": [
        "balancer=ant_pcgrad",
        "balancer/transforms=[interval_clusters,log]",
        CLUSTERS,
        "balancer.transforms.interval_clusters.weighting=size",
        "balancer/regularizers=[activity]",
        "balancer/sharpness=joint_sam",
    ],
    "clusters + gradnorm": [
        "balancer=gradnorm",
        "balancer/transforms=[interval_clusters]",
        CLUSTERS,
    ],
    "log + pcgrad + activity, two rows kept": [
        "balancer=pcgrad",
        "balancer/transforms=[log]",
        "balancer/regularizers=[activity]",
        "balancer.max_rows=2",
    ],
    "uw with its own learning rate": ["balancer=uw", "balancer.combine.learning_rate=0.1"],
    "uw + joint_sam": ["balancer=uw", "balancer/sharpness=joint_sam"],
    "log + pcgrad + activity + task_sam": [
        "balancer=pcgrad",
        "balancer/transforms=[log]",
        "balancer/regularizers=[activity]",
        "balancer/sharpness=task_sam",
    ],
    "uw + activity + task_sam": [
        "balancer=uw",
        "balancer/regularizers=[activity]",
        "balancer/sharpness=task_sam",
    ],
    "uw + joint task_sam every second step": [
        "balancer=uw",
        "balancer/sharpness=task_sam",
        "balancer.sharpness={perturbation: joint, every: 2}",
    ],
    "gradvac + task_sam every second step": [
        "balancer=gradvac",
        "balancer/sharpness=task_sam",
        "balancer.sharpness={adaptive: true, norm: joint, every: 2}",
    ],
    "db_mtl + joint task_sam every second step": [
        "balancer=db_mtl",
        "balancer/sharpness=task_sam",
        "balancer.sharpness={perturbation: joint, every: 2}",
    ],
    "famo + task_sam": ["balancer=famo", "balancer/sharpness=task_sam"],
    **{
        f"graddrop + task_sam, {mode}": [
            "balancer=graddrop",
            "balancer/sharpness=task_sam",
            f"balancer.sharpness.combine={mode}",
        ]
        for mode in ("direct", "second", "each")
    },
    "stch after the warm-up": ["balancer=stch", "balancer.combine.warmup_epochs=0"],
    "stch of the paper": ["balancer=stch", "balancer.combine={like: paper, warmup_epochs: null}"],
    "moco of libmtl": ["balancer=moco", "balancer.combine.like=libmtl"],
    "graddrop of the paper": [
        "balancer=graddrop",
        "balancer.combine.like=paper",
        "balancer.level=representation",
    ],
    "gradnorm of libmtl": ["balancer=gradnorm", "balancer.combine.like=libmtl"],
    "mgda every second step": ["balancer/combine=every", "balancer.combine.every=2"],
    "mgda every second step, heads weighted": [
        "balancer/combine=every",
        "balancer.combine.every=2",
        "balancer.head_grad=weighted",
    ],
    "pcgrad of log losses every second step at the representation": [
        "balancer/combine=every",
        "balancer/combine@balancer.combine.combine=pcgrad",
        "balancer.combine.every=2",
        "balancer/transforms=[log]",
        "balancer.level=representation",
    ],
    "moving average of torchjd's pcgrad": [
        "balancer=cr_mogm",
        "balancer/combine@balancer.combine.weighting=imtl_g",  # without arguments, as theirs
        "balancer.combine.weighting._target_=torchjd.aggregation.PCGradWeighting",
    ],
    "pcgrad of torchjd": ["balancer.combine._target_=torchjd.aggregation.PCGrad"],
    "graddrop of torchjd": ["balancer.combine._target_=torchjd.aggregation.GradDrop"],
    "rep_mtl of pcgrad at the representation": [
        "balancer=rep_mtl",
        "balancer/combine=pcgrad",
        "balancer.level=representation",
    ],
    "rep_mtl + joint_sam": ["balancer=rep_mtl", "balancer/sharpness=joint_sam"],
    "gradnorm at the parameters": ["balancer=gradnorm", "balancer.level=parameters"],
}


def make_balancer(variant: str, num_tasks: int = 3, seed: int = 0) -> Balancer:
    """A registered balancer, as train.py builds it."""
    torch.manual_seed(seed)
    config = compose_config(*VARIANTS[variant], "dataset=multidigits").copy()
    set_num_tasks(config, num_tasks)
    return mtl.config.build(config.balancer)


def make_model(
    num_tasks: int = 3, *, noisy: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[MultiTaskModel, list[Task]]:
    """A small regression model; `noisy` adds dropout and BatchNorm."""
    torch.manual_seed(1)
    extras = [nn.BatchNorm1d(16), nn.Dropout(0.3)] if noisy else []
    backbone = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), *extras, nn.Linear(16, 8), nn.Tanh())
    tasks = [
        Task(f"task{i}", nn.Linear(8, 1), nn.MSELoss(), {"mse": MeanSquaredError()})
        for i in range(num_tasks)
    ]
    return MultiTaskModel(backbone, tasks).to(dtype), tasks


class ToyData(Dataset):
    """Regression targets that conflict: functions of the input with different signs and scales."""

    def __init__(self, count: int = 24, num_tasks: int = 3, dtype=torch.float32) -> None:
        generator = torch.Generator().manual_seed(2)
        self.inputs = torch.randn(count, 5, generator=generator, dtype=dtype)
        self.targets = {
            f"task{i}": (-1.0) ** i * (1 + 3 * i) * self.inputs[:, i % 5, None].sin()
            + 0.1 * torch.randn(count, 1, generator=generator, dtype=dtype)
            for i in range(num_tasks)
        }

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], {name: values[index] for name, values in self.targets.items()}

    def batch(self, rows: slice = slice(None)):
        return self.inputs[rows], {name: values[rows] for name, values in self.targets.items()}

    def loader(self, batch_size: int = 6) -> DataLoader:
        sampler = ResumableSampler(self, batch_size, num_replicas=1, rank=0, seed=0)
        return ResumableLoader(
            self,
            batch_size=batch_size,
            sampler=sampler,
            generator=torch.Generator().manual_seed(0),
        )


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().clone()
        for name, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal to the bit."""
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different
