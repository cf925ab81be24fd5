"""Data set and denoiser of a finished run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from benchmarks.diffusion.base import DiffusionBenchmark
from mtl.callbacks import AtomicCheckpointIO
from mtl.config import build
from mtl.diffusion import Denoiser
from mtl.errors import DataError


def rebuild(path: Path) -> tuple[DiffusionBenchmark, Denoiser]:
    """Makes data set and denoiser as they were in a run; averaged weights, if it kept them.

    Args:
        path: A checkpoint of `train.py`.

    Raises:
        DataError: It is not of a diffusion model.
        MTLError: It cannot be read.
    """
    checkpoint = AtomicCheckpointIO().load_checkpoint(path)
    config = OmegaConf.create(checkpoint.get("config", {}))
    dataset = build(config.dataset) if "dataset" in config else None
    denoiser = build(config.model.backbone) if "model" in config else None
    if not isinstance(dataset, DiffusionBenchmark) or not isinstance(denoiser, Denoiser):
        raise DataError(
            f"{path} should be the checkpoint of a diffusion model, trained by train.py on a data "
            f"set diffusion_*. Got one of {type(dataset).__name__}."
        )
    state = checkpoint["state_dict"]
    averaged = any(name.startswith("averaged.") for name in state)
    prefix = "averaged.backbone." if averaged else "model.backbone."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    denoiser.load_state_dict(own)
    dataset.clusters = [[name] for name in checkpoint["tasks"]]
    return dataset, denoiser.eval()
