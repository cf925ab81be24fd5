"""Pictures of a run, as files and in the loggers that show pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from mtl.callbacks.history import History
from mtl.report.curves import draw_curves


class Pictures(lightning.Callback):
    """After training: curves; after the test: a sheet of predictions, if the data has one.

    Args:
        folder: Where the PNG files go.
        count: Samples on the sheet.
    """

    def __init__(self, folder: str | Path, count: int = 6) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.count = count

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draws the curves of the recorded history."""
        del pl_module
        histories = [c for c in trainer.callbacks if isinstance(c, History)]  # type: ignore[attr-defined]
        if trainer.is_global_zero and histories:
            self.folder.mkdir(parents=True, exist_ok=True)
            histories[0].write(self.folder.parent / "history.csv")
            for path in draw_curves(histories[0].rows, self.folder):
                show(trainer.loggers, path, trainer.global_step)

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first samples of the first batch."""
        del outputs, dataloader_idx
        inputs, targets = batch
        draw = getattr(getattr(trainer, "datamodule", None), "picture", None)
        if batch_idx or draw is None or not trainer.is_global_zero or not torch.is_tensor(inputs):
            return
        with torch.no_grad():
            predictions = pl_module(inputs)
        sheet = draw(self._first(inputs), self._first(predictions), self._first(targets))
        if sheet is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "predictions.png"
            sheet.save(path)
            show(trainer.loggers, path, trainer.global_step)

    def _first(self, values: Any) -> Any:
        """The first samples, on the CPU, in full precision."""
        if isinstance(values, Mapping):
            return {name: self._first(value) for name, value in values.items()}
        first = values[: self.count].cpu()
        return first.float() if first.is_floating_point() else first


def show(loggers: list[Logger], path: Path, step: int) -> None:
    """Passes a picture on to the loggers that show pictures.

    Args:
        loggers: Of the trainer.
        path: The file.
        step: Optimizer steps so far.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(path.stem, [str(path)])
