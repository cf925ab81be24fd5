"""What is compared: every preset, and what TorchJD has of the same name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from benchmarks.speed.gradients import GradientCost, Run
from mtl import Balancer
from mtl.config import build, register_schema
from mtl.errors import ConfigError
from mtl.parts import Combiner, Needs
from mtl.step import Level

OURS = ("parameters", "representation")
TORCHJD = {"TorchJD, default": (None, False), "TorchJD, chunk 1, Gramian": (1, True)}
"""Name -> `parallel_chunk_size`, `optimize_gramian_computation`."""

_WARM_UP = 6  # epochs of one step: longer than the warm-up of any preset
_CONFIGS = Path(__file__).parents[2] / "configs"


def preset_names() -> list[str]:
    """All files of the group `balancer`, but for the one that others start from."""
    return sorted(p.stem for p in (_CONFIGS / "balancer").glob("*.yaml") if p.stem != "default")


def preset(name: str, num_tasks: int, level: Level | None = None) -> Balancer:
    """A balancer as `train.py balancer=name` makes it.

    Args:
        name: Of the preset.
        num_tasks: Number of tasks.
        level: Where gradients are compared. Default: what the preset says.

    Raises:
        ConfigError: It needs more tasks.
    """
    config = _composed(name).copy()
    config.num_tasks = num_tasks
    if level is not None:
        config.balancer.level = level
    try:
        balancer: Balancer = build(config.balancer)
    except InstantiationException as error:
        raise ConfigError(f"{name} does not fit {num_tasks} tasks: {error}") from error
    return balancer


@lru_cache
def _composed(name: str) -> DictConfig:
    register_schema()
    with initialize_config_dir(str(_CONFIGS), version_base="1.3"):
        return compose("train", [f"balancer={name}"])


def combiners_of_rows(num_tasks: int) -> dict[str, Combiner]:
    """Preset -> combiner, of those that ask for the gradients of the tasks one by one."""
    found = {}
    for name in preset_names():
        with contextlib.suppress(ConfigError):
            balancer = preset(name, num_tasks)
            wrapped = balancer.sharpness is not None or any(
                not part.elementwise for part in balancer.transforms.values()
            )
            if balancer.combine.needs & (Needs.GRAMIAN | Needs.JACOBIAN) and not wrapped:
                found[name] = balancer.combine
    return found


def torchjd_aggregators(num_tasks: int) -> dict[str, Callable[[], Any]]:
    """Preset -> TorchJD's aggregator of that method, with its defaults (extra `[bench]`)."""
    import torchjd.aggregation as torchjd

    methods: dict[str, Callable[[], Any]] = {
        "mgda": torchjd.MGDA,
        "pcgrad": torchjd.PCGrad,
        "gradvac": torchjd.GradVac,
        "cagrad": lambda: torchjd.CAGrad(c=0.5),
        "nash_mtl": lambda: torchjd.NashMTL(n_tasks=num_tasks),
        "imtl_g": torchjd.IMTLG,
        "aligned_mtl": torchjd.AlignedMTL,
        "upgrad": torchjd.UPGrad,
        "dualproj": torchjd.DualProj,
        "fairgrad": lambda: torchjd.FairGrad(alpha=1.0),
        "sdmgrad": lambda: torchjd.GramianWeightedAggregator(torchjd.SDMGradWeighting()),
        "cr_mogm": lambda: torchjd.GramianWeightedAggregator(
            torchjd.CRMOGMWeighting(torchjd.MGDAWeighting())
        ),
        "config": torchjd.ConFIG,
        "excess_mtl": torchjd.ExcessMTL,
        "graddrop": torchjd.GradDrop,
    }
    if num_tasks > 2:
        methods["krum"] = lambda: torchjd.Krum(n_byzantine=0)
        methods["trimmed_mean"] = lambda: torchjd.TrimmedMean(trim_number=1)
    return methods


def run_of(problem: GradientCost, method: str, how: str) -> Run:
    """One way to take a step on a problem.

    Args:
        problem: The network and its batch.
        method: Name of a preset.
        how: A level for ours, or one of the keys of `TORCHJD`.
    """
    if how in TORCHJD:
        chunk, optimize = TORCHJD[how]
        aggregator = torchjd_aggregators(problem.num_tasks)[method]()
        allowed = hasattr(aggregator, "gramian_weighting")  # others need the Jacobian
        return problem.torchjd(aggregator, chunk=chunk, optimize=optimize and allowed)
    return problem.balanced(preset(method, problem.num_tasks, cast("Level", how)))


def warmed_up(problem: GradientCost, method: str, level: str) -> Run:
    """A step of a preset that is past the epochs in which some methods do less.

    Raises:
        MTLError: The method does not fit the problem.
    """
    balancer = preset(method, problem.num_tasks, cast("Level", level))
    run = problem.balanced(balancer)
    for epoch in range(_WARM_UP):
        balancer.on_epoch_start(epoch)
        run()
    return run
