"""The epoch with the best validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning

from mtl.errors import ConfigError


class BestEpoch(lightning.Callback):
    """Saves a checkpoint whenever the validation is better than all before.

    What was best is part of the checkpoints, so a resumed run goes on comparing (Lightning's
    `ModelCheckpoint` forgets it where the resumed run has a folder of its own).

    Args:
        folder: Where `best.ckpt` goes.
        monitor: Name of the logged value, `val/<metric>/<task>`, or `val/<metric>/mean` of a metric
            that all tasks have.
        mode: `max`: higher is better; or `min`.

    Attributes:
        path: The checkpoint; `None` before the first validation.
        score: Its value.

    Raises:
        ConfigError: The mode is another one.
    """

    def __init__(self, folder: str | Path, monitor: str, mode: str = "max") -> None:
        super().__init__()
        if mode not in ("max", "min"):
            raise ConfigError(f"`mode` should be 'max' or 'min'. Got {mode!r}.")
        self.folder = Path(folder)
        self.monitor = monitor
        self.path: str | None = None
        self.score: float | None = None
        self._sign = 1 if mode == "max" else -1

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Compares, and saves.

        Raises:
            ConfigError: The value was not logged.
        """
        del pl_module
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            there = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise ConfigError(f"`monitor` should be one of {there}. Got {self.monitor!r}.")
        score = float(trainer.callback_metrics[self.monitor])
        if self.score is None or self._sign * score > self._sign * self.score:
            self.path, self.score = str(self.folder / "best.ckpt"), score
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """What was best so far."""
        return {"path": self.path, "score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on comparing with it."""
        self.path, self.score = state_dict["path"], state_dict["score"]
