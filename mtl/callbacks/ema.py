"""Moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from mtl.errors import ConfigError


class WeightAverage(lightning.Callback):
    """Keeps an exponential moving average of the model's weights, and evaluates with it.

    After every optimizer step `average += (1 - d) (weights - average)`, with
    `d = min(decay, (1 + n) / (10 + n))` at step n: the average does not linger at the initial
    weights. Buffers are copied. It lies beside the model as `module.averaged`, so that it is part
    of checkpoints; in validation and test it takes the place of `module.model`.

    Args:
        decay: d, at least 0 and below 1.

    Raises:
        ConfigError: `decay` is out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f"`decay` should be at least 0 and below 1. Got {decay}.")
        self.decay = decay
        self._steps = 0

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Puts a copy of the model beside it, before a checkpoint is loaded."""
        del trainer, stage
        if not hasattr(pl_module, "averaged"):
            pl_module.averaged = copy.deepcopy(pl_module.model).requires_grad_(False)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves the average, if the optimizer has stepped."""
        del outputs, batch, batch_idx
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
            _follow(pl_module.averaged, pl_module.model, 1 - decay)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Number of steps so far."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues."""
        self._steps = state_dict["steps"]

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Evaluates the average."""
        del trainer
        _swap(pl_module)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Goes on with the weights themselves."""
        del trainer
        _swap(pl_module)

    def on_test_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Evaluates the average."""
        del trainer
        _swap(pl_module)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Goes on with the weights themselves."""
        del trainer
        _swap(pl_module)


def _swap(module: lightning.LightningModule) -> None:
    module.model, module.averaged = module.averaged, module.model


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, weight: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    pairs: list[tuple[Tensor, Tensor]] = list(zip(average.buffers(), model.buffers(), strict=True))
    for old, new in pairs:
        old.copy_(new)
