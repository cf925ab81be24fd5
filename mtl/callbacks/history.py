"""What was logged, kept in memory for the pictures, and as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning


class History(lightning.Callback):
    """Records the logged scalars: of training every `log_every_n_steps`, of validation each epoch.

    It is part of the checkpoint, so that a resumed run has the whole history.

    Attributes:
        rows: Dicts with `step`, `epoch` and the scalars by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Records what was logged in this step."""
        del pl_module, outputs, batch, batch_idx
        step = trainer.global_step
        if step % trainer.log_every_n_steps and step != 1:  # type: ignore[attr-defined]
            return
        if self.rows and self.rows[-1]["step"] == step:
            return  # another part of the same accumulated step
        self._record(trainer, ("train/", "balancer/", "cosine/", "gate/"))

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Records the validation."""
        del pl_module
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record(trainer, ("val/",))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the rows of the interrupted run."""
        self.rows = list(state_dict["rows"])

    def write(self, path: Path) -> None:
        """Writes the rows as a CSV file with one column a scalar."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(self.rows)

    def _record(self, trainer: lightning.Trainer, prefixes: tuple[str, ...]) -> None:
        scalars = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefixes) and not self._stale(name, float(value))
        }
        position = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        self.rows.append(position | scalars)

    def _stale(self, name: str, value: float) -> bool:
        """Lightning shows a value until the next one: the same cosine again was not measured."""
        known = (row[name] for row in reversed(self.rows) if name in row)
        return name.startswith("cosine/") and next(known, None) == value
