"""What a run leaves as files, in the loggers that take files."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image


class Publish(lightning.Callback):
    """After training, gives the last checkpoint to the loggers.

    Weights & Biases keeps it as an artifact of the type `model`, MLflow below `checkpoints/`;
    TensorBoard, which has no place for files, notes where it lies.

    Args:
        checkpoint: The file.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        super().__init__()
        self.checkpoint = Path(checkpoint)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Publishes it."""
        del pl_module
        if trainer.is_global_zero and self.checkpoint.is_file():
            for logger in trainer.loggers:
                _keep(logger, self.checkpoint, trainer.global_step)


def show(loggers: list[Logger], path: Path, step: int) -> None:
    """Gives a picture to the loggers.

    Args:
        loggers: Those of the trainer; those that show no pictures are left out.
        path: A PNG file.
        step: At which it was made.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(path.stem, [str(path)])
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), "pictures")


def _keep(logger: Logger, path: Path, step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("checkpoint", str(path), step)
    elif isinstance(logger, WandbLogger):
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{logger.experiment.id}", type="model")
        artifact.add_file(str(path))
        logger.experiment.log_artifact(artifact)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "checkpoints")
