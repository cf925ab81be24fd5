"""A Hydra sweeper that searches with Optuna: `python train.py hparams_search=optuna`.

Hydra's own plugin for Optuna is bound to Optuna 2, knows no pruning, and ends at the first
objective that is NaN. This one speaks the same language on the command line.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mtl.errors import ConfigError, Pruned

if TYPE_CHECKING:
    import optuna

STUDY = "search"
_OWN_GROUPS = ("hparams_search", "launcher")
_FREE = ("resume", "ckpt_path")

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Asks Optuna (TPE) for parameters, has the launcher run them, and tells it what came out.

    The study lies in `study.journal` in the sweep's folder; the same command with `resume=true`
    goes on with it, and with the runs that were not done. A run that fails, or whose objective
    is NaN, is a failed trial; the search goes on. `trials.csv` lists them, and the best one is
    written as an experiment.

    Args:
        n_trials: Trials in all, > 0.
        n_jobs: Trials that the launcher gets at once, > 0.
        seed: Of the sampler.
        spaces: Balancer -> key -> range, in Hydra's language for sweeps: `interval(0, 1)`,
            `tag(log, interval(1e-3, 1))`, `range(1, 10)`, `choice(a, b)`. Ranges on the command
            line come on top, a plain value there takes a key out of the search.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, seed: int, spaces: Mapping[str, Mapping[str, str]]
    ) -> None:
        for name, value in {"n_trials": n_trials, "n_jobs": n_jobs}.items():
            if value < 1:
                raise ConfigError(f"`hydra.sweeper.{name}` should be 1 or more. Got {value}.")
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.seed = seed
        self.spaces = spaces

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what Hydra gives."""
        self.config = self._settings = config
        self._loader = hydra_context.config_loader
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the trials that are still to be run."""
        optuna = _optuna()
        folder = Path(self._settings.hydra.sweep.dir)
        fixed, space = self._split(arguments)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._settings, folder / "multirun.yaml")
        study = open_study(folder / "study.journal", create=True)
        waiting = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
        study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + len(study.trials), constant_liar=self.n_jobs > 1
        )
        for trial in waiting:  # of a search that was interrupted
            self._run(study, fixed, [trial])
        while (left := self.n_trials - len(study.trials)) > 0:
            asked = [study.ask(space) for _ in range(min(left, self.n_jobs))]
            self._run(study, fixed, asked)
        self._finish(study, fixed, folder)

    def _split(self, arguments: Sequence[str]) -> tuple[list[Override], dict[str, Any]]:
        """What all trials share, and what is searched."""
        balancer = str(self._settings.hydra.runtime.choices.balancer)
        given = [f"{key}={value}" for key, value in self.spaces.get(balancer, {}).items()]
        overrides = OverridesParser.create(config_loader=self._loader).parse_overrides(
            [*given, *arguments]
        )
        last = {override.get_key_element(): override for override in overrides}
        space = {k: _distribution(o) for k, o in last.items() if o.is_sweep_override()}
        if not space:
            raise ConfigError(
                f"Expected a range to search. Got none, and none is known for balancer={balancer}. "
                f"Give one, as in 'balancer.combine.KEY=interval(0, 1)'; known are those of "
                f"{', '.join(self.spaces)} (configs/hydra/sweeper/optuna.yaml)."
            )
        if "seed" in space:
            raise ConfigError(
                "`seed` should be one number in a search: the luckiest seed is not a parameter. "
                "Train the best configuration with several seeds afterwards."
            )
        return [o for k, o in last.items() if k not in space], space

    def _run(self, study: optuna.Study, fixed: Sequence[Override], trials: Sequence[Any]) -> None:
        shared = [_written(override) for override in fixed]
        jobs = [[*shared, *(f"{k}={v}" for k, v in trial.params.items())] for trial in trials]
        returns = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
        for trial, result in zip(trials, returns, strict=True):
            _tell(study, trial.number, result)

    def _finish(self, study: optuna.Study, fixed: Sequence[Override], folder: Path) -> None:
        _write_trials(study, folder / "trials.csv")
        objective = study.user_attrs.get("objective", "the objective")
        states = [trial.state.name.lower() for trial in study.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        if "complete" not in states:
            print(f"No trial of {len(states)} was completed ({counts}): {folder / 'trials.csv'}")
            return
        best = study.best_trial
        path = folder / "experiment" / "best.yaml"
        path.parent.mkdir(exist_ok=True)
        usage = f"python train.py --config-dir '{folder}' experiment=best"
        found = f"{objective} = {best.value:.4g}, trial {best.number} of {len(states)} ({counts})"
        content = yaml.safe_dump(self._experiment(fixed, best.params), sort_keys=False)
        path.write_text(f"# @package _global_\n# {found}\n# {usage}\n{content}")
        print(f"Best: {found}: {best.params}\nUse it: {usage}")

    def _experiment(self, fixed: Sequence[Override], params: Mapping[str, Any]) -> dict[str, Any]:
        """The choices and values of a trial, as an `experiment` file has them."""
        parser = OverridesParser.create(config_loader=self._loader)
        chosen = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        groups: list[dict[str, Any]] = []
        values = OmegaConf.create({})
        for override in [*fixed, *chosen]:
            key = override.key_or_group
            if key in (*_OWN_GROUPS, *_FREE) or key.startswith("hydra"):
                continue
            if self._loader.get_group_options(key):
                value = None if override.is_delete() else override.value()
                groups.append({f"override /{override.get_key_element().lstrip('+~')}": value})
            else:
                OmegaConf.update(values, key, override.value(), force_add=True)
        return {"defaults": [*groups, "_self_"], **OmegaConf.to_container(values)}  # type: ignore[dict-item]


def open_study(path: Path, *, create: bool = False) -> optuna.Study:
    """The study in a journal file, which several processes may read and write.

    Args:
        path: The file.
        create: Make one if there is none.
    """
    optuna = _optuna()
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    if not create:
        return optuna.load_study(study_name=STUDY, storage=storage)
    return optuna.create_study(
        study_name=STUDY, storage=storage, direction="maximize", load_if_exists=True
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            'hparams_search=optuna needs Optuna: pip install -e ".[search]".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(override: Override) -> Any:
    """Optuna's form of a range."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        values = list(sweep.range())
        kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
        return kind(values[0], values[-1], step=sweep.step)
    assert isinstance(sweep, ChoiceSweep | RangeSweep)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _written(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _tell(study: optuna.Study, number: int, result: JobReturn) -> None:
    """Notes what came of a run; nothing that a run does ends the search."""
    from optuna.trial import TrialState

    trial = study.trials[number]
    reported = trial.intermediate_values
    value = reported[max(reported)] if reported else math.nan
    error = None if result.status is JobStatus.COMPLETED else result._return_value
    if isinstance(error, Pruned):
        study.tell(number, state=TrialState.PRUNED)
    elif error is None and math.isfinite(value):
        study.tell(number, value)
    else:
        log.warning("Trial %d failed: %s", number, error or f"its objective is {value}")
        study.tell(number, state=TrialState.FAIL)


def _write_trials(study: optuna.Study, path: Path) -> None:
    keys = list(dict.fromkeys(key for trial in study.trials for key in trial.params))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "objective", *keys])
        for trial in study.trials:
            values = [trial.params.get(key) for key in keys]
            writer.writerow([trial.number, trial.state.name.lower(), trial.value, *values])
