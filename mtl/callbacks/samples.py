"""Samples of a diffusion model, as sheets and in numbers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from mtl.callbacks.pictures import show
from mtl.diffusion import sample
from mtl.diffusion.sampling import Predictor, Sampler
from mtl.errors import ConfigError

_SHOWN = 64
_CHUNK = 1000


class Samples(lightning.Callback):
    """A sheet of samples after validations, and after the test the quality of many.

    The noise that samples start from is the same every time and in every run. The data module
    says `shape`, `sample_range`, `no_label`, and draws (`sheet`) and judges (`quality`). With
    `WeightAverage`, samples are those of the average.

    Files: `samples_epoch<n>.png` and `samples.png` in the folder; `quality.json` beside it.

    Args:
        folder: Where pictures go.
        count: Number of samples that are judged; 0: none.
        steps: Evaluations of the network a sample.
        sampler: See `mtl.diffusion.sample`.
        guidance: The same.
        every_n_epochs: A sheet after so many epochs; 0: none during training.

    Raises:
        ConfigError: The package diffusers is missing.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        count: int = 2000,
        steps: int = 50,
        sampler: Sampler = "ddim",
        guidance: float = 1.0,
        every_n_epochs: int = 1,
    ) -> None:
        super().__init__()
        if importlib.util.find_spec("diffusers") is None:
            raise ConfigError(
                "Sampling needs the package diffusers, which is not installed. Install the extra, "
                'pip install -e ".[diffusion]", or train without samples: ~callbacks.samples'
            )
        self.folder = Path(folder)
        self.count = count
        self.steps = steps
        self.sampler: Sampler = sampler
        self.guidance = guidance
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draws a sheet, if it is time."""
        epoch = trainer.current_epoch + 1
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = self.every_n_epochs and epoch % self.every_n_epochs == 0
        if training and due and trainer.is_global_zero:
            self._sheet(trainer, self.draw(trainer, pl_module, _SHOWN), f"samples_epoch{epoch}")

    def on_test_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draws the last sheet, and judges."""
        if not self.count or not trainer.is_global_zero:
            return
        samples = self.draw(trainer, pl_module, self.count)
        self._sheet(trainer, samples[:_SHOWN] if samples.dim() > 2 else samples, "samples")
        quality = trainer.datamodule.quality(samples)  # type: ignore[attr-defined]
        path = self.folder.parent / "quality.json"
        path.write_text(json.dumps(quality, indent=2) + "\n")
        for logger in trainer.loggers:
            named = {f"quality/{name}": value for name, value in quality.items()}
            logger.log_metrics(named, trainer.global_step)

    def draw(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, count: int
    ) -> Tensor:
        """So many samples, on the CPU."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        denoiser: Any = pl_module.model.backbone  # type: ignore[union-attr]
        return draw_samples(
            denoiser,
            data,
            count,
            device=pl_module.device,
            steps=self.steps,
            sampler=self.sampler,
            guidance=self.guidance,
        )

    def _sheet(self, trainer: lightning.Trainer, samples: Tensor, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.png"
        trainer.datamodule.sheet(samples).save(path)  # type: ignore[attr-defined]
        show(trainer.loggers, path, trainer.global_step)


def draw_samples(
    denoiser: Predictor,
    data: Any,
    count: int,
    *,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Tensor:
    """Samples of a denoiser for a data module, from the same noise every time, on the CPU.

    Args:
        denoiser: What is sampled from.
        data: Says `shape`, `sample_range` and `no_label`.
        count: Number of samples; where there are classes, equally many of each.
        device: Where the denoiser is.
        options: Of `mtl.diffusion.sample`.
    """
    generator = torch.Generator(device).manual_seed(0)
    parts = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        label = torch.arange(start, start + size, device=device) % max(1, data.no_label)
        part = sample(
            denoiser,
            (size, *data.shape),
            generator=generator,
            label=label,
            no_label=data.no_label,
            clip=None if data.sample_range == float("inf") else data.sample_range,
            **options,
        )
        parts.append(part.cpu())
    return torch.cat(parts)
