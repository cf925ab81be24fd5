"""What a trial of a search tells the search, and when it gives up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import lightning

from mtl.errors import ConfigError, Pruned
from mtl.metrics import delta_p
from mtl.report.baseline import own_values
from mtl.report.results import protocol_of

if TYPE_CHECKING:
    from mtl.module import MTLModule

Values = dict[str, dict[str, float]]
GAIN = "delta_p"
_LOSS = "minus the mean validation loss"


class SearchTrial(lightning.Callback):
    """Reports a validation value to an Optuna study after every validation; may end the run.

    A trial whose value is below the median of the others at the same epoch raises `Pruned`
    (Optuna's `MedianPruner`). The objective is larger for better runs, and from validation data
    alone: a search that looked at the test data would have used them up.

    Args:
        study: Journal file of the study.
        number: Of the trial.
        objective: `delta_p`: the gain over the validation values of single-task runs of the same
            protocol below `outputs/` and `multirun/`; where there are none when the search
            begins, minus the mean of the tasks' validation losses. Or a name
            `val/<metric>/<task>`; negated where less is better.
        startup_trials: So many trials are completed before one is pruned.
        warmup_epochs: A trial is pruned after so many validations at the earliest.
    """

    def __init__(
        self,
        study: str | Path,
        number: int,
        objective: str = GAIN,
        startup_trials: int = 4,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__()
        self.path = Path(study)
        self.number = number
        self.objective = objective
        self.startup_trials = startup_trials
        self.warmup_epochs = warmup_epochs
        self._trial: Any = None
        self._reference: Values | None = None

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Finds the trial, and what the first one of the search compared with."""
        module = cast("MTLModule", pl_module)
        self._check(module)
        if not trainer.is_global_zero:
            return
        import optuna
        from optuna.storages.journal import JournalFileBackend

        storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.path)))
        study = optuna.load_study(
            study_name=None,  # the only one there
            storage=storage,
            pruner=optuna.pruners.MedianPruner(self.startup_trials, self.warmup_epochs),
        )
        if "objective" not in study.user_attrs:
            data = trainer.datamodule  # type: ignore[attr-defined]
            reference = self._find(module, data) if self.objective == GAIN else None
            stated = _LOSS if self.objective == GAIN and reference is None else self.objective
            study.set_user_attr("reference", reference)
            study.set_user_attr("objective", stated)
        self._reference = study.user_attrs["reference"]
        pl_module.print(f"Objective of the search: {study.user_attrs['objective']}")
        self._trial = optuna.trial.Trial(study, study.trials[self.number]._trial_id)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Reports.

        Raises:
            Pruned: The trial is worse than most.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        module, epoch, prune = cast("MTLModule", pl_module), trainer.current_epoch, False
        if self._trial is not None:
            value = self._value(module)
            if epoch not in self._trial.study.trials[self.number].intermediate_values:
                self._trial.report(value, epoch)
            prune = self._trial.should_prune()
        if trainer.strategy.broadcast(prune):
            raise Pruned(f"Pruned after epoch {epoch}: worse than the median of the other trials.")

    def _value(self, module: MTLModule) -> float:
        values = module.results["val"]
        if self.objective != GAIN:
            _, key, name = self.objective.split("/", 2)
            return values[name][key] if _directions(module)[name].get(key) else -values[name][key]
        if self._reference is None:
            return -fmean(own["loss"] for own in values.values())
        directions = _directions(module)
        scores, reference = (
            {name: {key: of[name][key] for key in keys} for name, keys in directions.items()}
            for of in (values, self._reference)
        )
        return delta_p(scores, reference, directions)

    def _find(self, module: MTLModule, data: Any) -> Values | None:
        protocol = protocol_of(module.config or {}, data.free, data.departures)
        tasks = [task.name for task in module.tasks]
        found = own_values(protocol, tasks, [Path("outputs"), Path("multirun")], "validation")
        return None if found is None else found[0]

    def _check(self, module: MTLModule) -> None:
        known = [
            f"val/{key}/{task.name}" for task in module.tasks for key in (*task.metrics, "loss")
        ]
        if self.objective not in (GAIN, *known):
            raise ConfigError(
                f"`callbacks.trial.objective` should be one of {[GAIN, *known]}. "
                f"Got {self.objective!r}."
            )


def _directions(module: MTLModule) -> Mapping[str, Mapping[str, bool]]:
    return {
        task.name: {key: bool(metric.higher_is_better) for key, metric in task.metrics.items()}
        for task in module.tasks
    }
