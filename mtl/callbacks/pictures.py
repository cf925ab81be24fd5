"""Pictures of a run, as files and in the loggers that show pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import move_data_to_device
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
                _show(trainer.loggers, path, trainer.global_step)

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
        benchmark = getattr(trainer, "datamodule", None)
        if batch_idx or not trainer.is_global_zero or not hasattr(benchmark, "picture"):
            return
        inputs, targets = batch
        with torch.no_grad():
            predictions = pl_module(inputs)
        first = [
            {
                k: v[: self.count].float() if v.is_floating_point() else v[: self.count]
                for k, v in move_data_to_device(values, torch.device("cpu")).items()
            }
            for values in ({"inputs": inputs}, predictions, targets)
        ]
        sheet = benchmark.picture(first[0]["inputs"], first[1], first[2])
        if sheet is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "predictions.png"
            sheet.save(path)
            _show(trainer.loggers, path, trainer.global_step)


def _show(loggers: list[Logger], path: Path, step: int) -> None:
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(path.stem, [str(path)])
