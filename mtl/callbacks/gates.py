"""Which share each task takes of the experts."""

from __future__ import annotations

from typing import cast

import lightning

from mtl.model import MultiTaskModel
from mtl.models import gates


class Gates(lightning.Callback):
    """Logs the gate of every task, `gate/<task>`, in [0, 1]; with K > 2 experts `gate/<task>/<k>`.

    Args:
        every_n_steps: Interval in optimizer steps, > 0.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps

    def on_after_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Logs before the step moves the gates."""
        if trainer.global_step % self.every_n_steps:
            return
        model = cast("MultiTaskModel", pl_module.model)
        for name, proportions in gates(model.heads).items():
            first, *others = proportions[1:].unbind()
            numbered = {f"gate/{name}/{k}": p for k, p in enumerate([first, *others], start=1)}
            pl_module.log_dict({f"gate/{name}": first} if not others else numbered)
