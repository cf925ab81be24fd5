"""`hparams_search=optuna`: from ranges to an experiment file."""

import csv
import math

import pytest
import yaml
from hydra.utils import get_class
from omegaconf import OmegaConf

from tests.integration.shell import TINY, invoke
from tests.support import CONFIGS, PRESETS, compose_config

optuna = pytest.importorskip("optuna")
SEARCH = [*TINY, "hparams_search=optuna", "hydra.sweep.subdir=${hydra.job.num}"]


def trials(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("search")
    done = invoke(*SEARCH, "balancer=cagrad", "hydra.sweeper.n_trials=2", cwd=cwd).ok()
    (folder,) = (cwd / "multirun").iterdir()
    return cwd, folder, done


def test_the_best_trial_is_an_experiment(search):
    cwd, folder, done = search
    rows = trials(folder)
    assert [row["state"] for row in rows] == ["complete"] * 2
    assert "Objective of the search: minus the mean validation loss" in done.out
    best = max(rows, key=lambda row: float(row["objective"]))
    config = yaml.safe_load((folder / "experiment" / "best.yaml").read_text())
    assert config["balancer"]["combine"]["c"] == float(best["balancer.combine.c"])
    used = invoke("--config-dir", str(folder), "experiment=best", cwd=cwd).ok()
    trial = yaml.safe_load((folder / best["trial"] / "metrics.json").read_text())
    assert used.results["metrics"] == trial["metrics"]
    losses = [values["loss"] for values in trial["validation"].values()]
    assert float(best["objective"]) == pytest.approx(-sum(losses) / len(losses))


def test_the_same_command_goes_on(search):
    cwd, folder, _ = search
    first = trials(folder)
    study = reopened(folder)
    asked = study.ask({"balancer.combine.c": optuna.distributions.FloatDistribution(0, 1)})
    options = [*SEARCH, "balancer=cagrad", "hydra.sweeper.n_trials=2", "resume=true"]
    invoke(*options, cwd=cwd).ok()  # trial 2 was asked for, and its run killed
    again = trials(folder)
    assert again[:2] == first
    assert [row["state"] for row in again] == ["complete"] * 3
    assert float(again[2]["balancer.combine.c"]) == asked.params["balancer.combine.c"]


def reopened(folder):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))


def test_failed_and_nan_trials_do_not_end_a_search(tmp_path):
    """One learning rate is refused, one makes all values NaN, one is fine."""
    ranges = ["optimizer=sgd", "optimizer.lr=choice(-1,1e30,0.01)", "hydra.sweeper.n_trials=8"]
    done = invoke(*SEARCH, *ranges, "balancer.max_nonfinite=1000", cwd=tmp_path).ok()
    (folder,) = (tmp_path / "multirun").iterdir()
    states = {float(row["optimizer.lr"]): row["state"] for row in trials(folder)}
    assert states[0.01] == "complete"
    assert states[-1] == "fail"
    assert states[1e30] in ("fail", "pruned")
    assert "Best: " in done.out


def test_trials_below_the_median_are_pruned(tmp_path):
    """The fifth trial and later may be pruned: those that do not learn are."""
    options = ["optimizer.lr=choice(0.003,0.0)", "hydra.sweeper.n_trials=7", "trainer.max_epochs=3"]
    invoke(*SEARCH, *options, "callbacks.trial.startup_trials=2", cwd=tmp_path).ok()
    (folder,) = (tmp_path / "multirun").iterdir()
    rows = trials(folder)
    assert "pruned" in [row["state"] for row in rows]
    for row in rows:
        if row["state"] == "pruned":
            assert "Pruned after epoch" in (folder / row["trial"] / "error.txt").read_text()
            assert not (folder / row["trial"] / "metrics.json").exists()


def test_with_single_task_runs_the_objective_is_the_gain(tmp_path):
    invoke(*TINY, "balancer=stl", cwd=tmp_path).ok()
    done = invoke(*SEARCH, "balancer=cagrad", "hydra.sweeper.n_trials=1", cwd=tmp_path).ok()
    (folder,) = (tmp_path / "multirun").iterdir()
    assert "Objective of the search: delta_p" in done.out
    (single,) = (tmp_path / "outputs").rglob("metrics.json")
    reference = yaml.safe_load(single.read_text())["validation"]
    found = yaml.safe_load((folder / "0" / "metrics.json").read_text())["validation"]
    gains = [
        100 * (found[t]["accuracy"] - reference[t]["accuracy"]) / reference[t]["accuracy"]
        for t in reference
    ]
    assert all(map(math.isfinite, gains))
    assert float(trials(folder)[0]["objective"]) == pytest.approx(sum(gains) / 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["balancer=ew"], ["a range to search", "balancer=ew"]),
        (["balancer=cagrad", "seed=0,1"], ["`seed` should be one number"]),
        (["balancer=cagrad", "hydra.sweeper.n_trials=0"], ["n_trials", "1 or more"]),
    ],
)
def test_what_cannot_be_searched(tmp_path, options, words):
    invoke(*SEARCH, *options, cwd=tmp_path).refused(*words)


SPACES = yaml.safe_load((CONFIGS / "hydra" / "sweeper" / "optuna.yaml").read_text())["spaces"]


@pytest.mark.parametrize("preset", SPACES)
def test_ranges_are_of_arguments_that_exist(preset):
    assert preset in PRESETS
    config = compose_config(f"balancer={preset}", "dataset=multidigits")
    for key in SPACES[preset]:
        part, _, name = key.rpartition(".")
        node = OmegaConf.select(config, part)
        assert get_class(node._target_)
        assert name in node


def test_the_sweep_of_balancers_has_the_single_tasks():
    params = yaml.safe_load((CONFIGS / "sweep" / "balancers.yaml").read_text())
    names = [name.strip() for name in params["hydra"]["sweeper"]["params"]["balancer"].split(",")]
    assert {"stl", "ew"} <= set(names) <= set(PRESETS)
    assert len(names) == len(set(names))
