"""Do the tasks pull in the same direction?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mtl.errors import UnsupportedError
from mtl.linalg import cosines

if TYPE_CHECKING:
    from mtl.module import MTLModule


class GradientCosines(lightning.Callback):
    """Logs the cosine between the gradients of every pair of tasks, as `cosine/<task>~<task>`.

    Where the balancer computes the Gramian anyway, its own is used; otherwise gradients are
    compared at the representation, which costs one pass through the heads alone.

    Args:
        every_n_steps: Interval in optimizer steps, > 0.
    """

    def __init__(self, every_n_steps: int = 25) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self._own: bool | None = None  # does the balancer compute a Gramian? known after a step
        self._last = -1

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Measures at the representation, while the graph is there."""
        del loss
        module = cast("MTLModule", pl_module)
        step = module.step
        if self._own is not False or step is None or not self._due(trainer):
            return
        if len(step.present) < 2 or not step.all_finite:
            return
        self._last = trainer.global_step
        try:
            gramian = step.products("representation").gramian
        except UnsupportedError as error:
            rank_zero_warn(f"Gradient cosines are not recorded: {error}")
            self._own = True
            return
        self._log(module, step.present, gramian)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Takes the balancer's Gramian, if it has one."""
        del outputs, batch, batch_idx
        report = cast("MTLModule", pl_module).report
        if report is None or report.nonfinite:
            return
        if self._own is None:
            self._own = report.gramian is not None
        gramian = report.gramian
        if gramian is not None and len(gramian) == len(report.tasks) and self._due(trainer):
            self._last = trainer.global_step
            self._log(cast("MTLModule", pl_module), report.tasks, gramian)

    def state_dict(self) -> dict[str, Any]:
        """When it measured last, and where."""
        return {"own": self._own, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues at the interval of the interrupted run."""
        self._own, self._last = state_dict["own"], state_dict["last"]

    def _due(self, trainer: lightning.Trainer) -> bool:
        return trainer.global_step - self._last >= self.every_n_steps or self._last < 0

    def _log(self, module: MTLModule, names: Sequence[str], gramian: Tensor) -> None:
        matrix = cosines(gramian).float()
        pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
        module.log_dict({f"cosine/{names[i]}~{names[j]}": matrix[i, j] for i, j in pairs})
