"""The last epochs of a run, for tables that report their mean."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import lightning

Values = dict[str, dict[str, float]]


class LastEpochs(lightning.Callback):
    """Keeps the results of the last validations; part of the checkpoint.

    CAGrad, Nash-MTL, FAMO and FairGrad report the mean over the last ten epochs on the test split.

    Args:
        count: Number of validations.
    """

    def __init__(self, count: int = 10) -> None:
        super().__init__()
        self.count = count
        self.results: list[Values] = []

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Adds the results of a validation, and forgets the oldest."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            results: Any = pl_module.results
            self.results = [*self.results, results["val"]][-self.count :]

    def mean(self) -> Values:
        """Task -> metric -> mean over the validations that were kept."""
        return {
            task: {key: fmean(own[task][key] for own in self.results) for key in values}
            for task, values in self.results[-1].items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What was kept so far."""
        return {"results": self.results}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues those of the interrupted run."""
        self.results = list(state_dict["results"])
