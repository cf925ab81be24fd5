"""Trains one network on several tasks: `python train.py balancer=pcgrad dataset=multimnist`."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from benchmarks.base import Benchmark
from benchmarks.corrupt import Corruption
from mtl.balancer import Balancer
from mtl.callbacks import AtomicCheckpointIO, BestEpoch, History, LastEpochs
from mtl.config import build, build_all, check_arguments, explain, plain, register_schema
from mtl.errors import ConfigError, MTLError, message_of
from mtl.metrics import delta_m, delta_p
from mtl.model import MultiTaskModel
from mtl.models import HardSharing, gates, outliers, require
from mtl.module import MTLModule
from mtl.report import (
    FAILURE,
    FILE,
    Baseline,
    PeakMemory,
    Results,
    best_epoch,
    describe_cost,
    find_baseline,
    print_table,
    protocol_of,
)
from mtl.rerun import continued
from mtl.task import Task

ROOT = Path(__file__).parent
CONFIGS = ROOT / "configs"

register_schema()
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
# Raised inside Lightning 2.6 by torch 2.14's own containers; nothing of ours can mend it.
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(config: DictConfig) -> float | None:
    """Trains, evaluates, prints the table; returns delta_p for searches."""
    check_arguments(config)
    folder = Path(config.output_dir)
    results = take_up(config, folder) if config.resume else None
    if results is not None:
        return results.delta_p
    check_files(config)
    failure = folder / FAILURE
    failure.unlink(missing_ok=True)
    try:
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        module, benchmark = assemble(config, look=True)
        return run(config, module, benchmark).delta_p
    except Exception:
        failure.write_text(traceback.format_exc())  # for the report on a sweep
        raise


def take_up(config: DictConfig, folder: Path) -> Results | None:
    """With `resume=true`: the results of a run that is complete; or sets its last checkpoint."""
    if (folder / FILE).is_file():
        print(f"{folder} is complete: nothing to do.")
        return Results.read(folder / FILE)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        print(f"Resuming from {checkpoint}")
        config.ckpt_path = str(checkpoint)
    return None


def check_files(config: DictConfig) -> None:
    """Finds out before the training, not after it, that a file is missing."""
    if config.ckpt_path is None and not config.train:
        raise ConfigError("train=false evaluates a checkpoint: expected ckpt_path=FILE. Got none.")
    named = {"ckpt_path": config.ckpt_path}
    if config.baseline != "auto":
        named["baseline"] = config.baseline
    for key, path in named.items():
        if path is not None and not Path(path).exists():
            raise ConfigError(f"`{key}` should be an existing file or folder. Got {path!r}.")


def assemble(config: DictConfig, *, look: bool = False) -> tuple[MTLModule, Benchmark]:
    """Builds data, tasks, model and balancer.

    Args:
        config: As composed; what the data decide is filled in. With a `ckpt_path`, which brings
            all weights, none are downloaded.
        look: Whether to find out first if packages and data are there: the weights of a network
            can be a download.
    """
    benchmark: Benchmark = build(config.dataset)
    if look:
        for node in config.model.values():
            if isinstance(node, DictConfig) and "_target_" in node:
                require(hydra.utils.get_object(node._target_))
        benchmark.find()
    benchmark.seed = config.seed
    if config.corrupt_tasks is not None:
        benchmark.corruption = spoiling(config.corrupt_tasks)
    config.num_features = benchmark.num_features
    backbone, head = network(config)
    available = benchmark.tasks(head)
    tasks = choose(available, config.tasks)
    benchmark.chosen = [task.name for task in tasks]
    config.num_tasks = len(tasks)
    positions = [task.position for task in tasks if task.position is not None]
    config.positions = positions if len(positions) == len(tasks) else None
    balancer: Balancer = build(config.balancer)
    benchmark.clusters = balancer.clusters([task.name for task in tasks])
    module = MTLModule(
        MultiTaskModel(backbone, tasks),
        tasks,
        balancer,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler) if config.scheduler else None,
        config=plain(config),
    )
    return module, benchmark


def spoiling(options: DictConfig) -> Corruption:
    """How labels are spoilt."""
    try:
        return Corruption(**plain(options))
    except TypeError as error:
        raise ConfigError(
            "`corrupt_tasks` should be a mapping with `kind`, `fraction` or `tasks`, and `seed`, "
            f"as in corrupt_tasks={{fraction: 0.3, kind: permute}}. Got {options}."
        ) from error


def network(config: DictConfig) -> tuple[nn.Module, Callable[[Any], nn.Module]]:
    """The backbone, and what makes a head for a size of the prediction."""
    sharing: HardSharing = build(config.sharing)
    node = config.model.backbone.copy()
    if config.ckpt_path is not None and "pretrained" in node:
        node.pretrained = False
    backbone = sharing.backbone(lambda: build(node))
    make_head = build(config.model.head)
    return backbone, lambda size: sharing.head(make_head(backbone.out_channels, size))


def choose(available: list[Task], names: list[str] | None) -> list[Task]:
    """The tasks of the given names, in the data set's order."""
    known = [task.name for task in available]
    unknown = [name for name in names or () if name not in known]
    if unknown or names == [] or len(set(names or ())) < len(names or ()):
        raise ConfigError(f"`tasks` should name some of {known}, each once. Got {names}.")
    return [task for task in available if names is None or task.name in names]


def run(config: DictConfig, module: MTLModule, benchmark: Benchmark) -> Results:
    """Trains and tests, and leaves everything in the run's folder."""
    folder = Path(config.output_dir)
    trainer: lightning.Trainer = build(
        config.trainer,
        callbacks=build_all(config.callbacks),
        logger=build_all(config.logger) or False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    if trainer.is_global_zero and config.train:
        objectives = benchmark.clusters or module.tasks
        print(describe_cost(module.balancer, module.model, len(objectives)))
    check_selection(config, trainer, benchmark)
    for logger in trainer.loggers:
        logger.log_hyperparams(plain(config))
    memory = PeakMemory()
    started = time.perf_counter()
    if config.train:
        try:
            trainer.fit(module, benchmark, ckpt_path=config.ckpt_path)
        except BaseException as error:  # Lightning turns Ctrl-C into SystemExit
            tell_how_to_resume(folder)
            if isinstance(error, SIGTERMException):
                sys.exit(128 + signal.SIGTERM)  # Lightning's own code is 0, as if all were done
            raise
    seconds = time.perf_counter() - started
    results = summarize(config, module, benchmark, tested(config, trainer, module, benchmark))
    results.info = {
        "seconds": round(seconds, 2),
        "steps": trainer.global_step,
        "peak_memory": memory.read(on_gpu=trainer.strategy.root_device.type == "cuda"),
        "resumed": config.ckpt_path is not None,
        "skipped_steps": int(module.balancer.skipped_steps),
        **describe_gates(module.model),
        **({"true_outliers": list(benchmark.outliers)} if benchmark.outliers else {}),
    }
    if trainer.is_global_zero:
        rows = validations(trainer) if benchmark.val_is_test else []
        finish(config, results, folder, rows)
    return results


def validations(trainer: lightning.Trainer) -> list[dict[str, float]]:
    """The history of the run, if it kept one."""
    return next((c.rows for c in trainer.callbacks if isinstance(c, History)), [])  # type: ignore[attr-defined]


def describe_gates(model: MultiTaskModel) -> dict[str, Any]:
    """Of a model with gates: where they are, and which tasks they set apart."""
    found = gates(model.heads)
    if not found:
        return {}
    shares = {name: [round(p, 4) for p in values.tolist()] for name, values in found.items()}
    return {"gates": shares, "outliers": list(outliers(found))}


def tell_how_to_resume(folder: Path) -> None:
    """Says where the last checkpoint is, after a run that did not end well."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        options = [o for o in HydraConfig.get().overrides.task if not o.startswith("ckpt_path=")]
        options.append(f"ckpt_path={os.path.relpath(checkpoint)}")
        command = f"python train.py {shlex.join(options)}"
        print(f"\nThe last checkpoint is kept. Resume with: {command}", file=sys.stderr)


def tested(
    config: DictConfig, trainer: lightning.Trainer, module: MTLModule, benchmark: Benchmark
) -> dict[str, dict[str, float]]:
    """Test values of the last epoch, of the best one, or the mean of the last ones."""
    ckpt_path = None if config.train else config.ckpt_path
    kept = selector(trainer)
    if config.train and isinstance(kept, BestEpoch):
        ckpt_path = kept.path
    trainer.test(module, benchmark, ckpt_path=ckpt_path, verbose=False)
    if config.train and isinstance(kept, LastEpochs):
        return kept.mean()
    return module.results["test"]


def selector(trainer: lightning.Trainer) -> BestEpoch | LastEpochs | None:
    """The callback that decides what is tested; `None`: the last epoch is."""
    kinds = BestEpoch | LastEpochs
    return next((c for c in trainer.callbacks if isinstance(c, kinds)), None)  # type: ignore[attr-defined]


def check_selection(config: DictConfig, trainer: lightning.Trainer, benchmark: Benchmark) -> None:
    """Finds out before the training that its validations will not say what to test."""
    kept = selector(trainer)
    kind = {"best": BestEpoch, "mean": LastEpochs, "last": None}.get(config.selection)
    if (None if kept is None else type(kept)) is not kind:
        raise ConfigError(
            f"selection={config.selection} does not go with the callbacks, which have "
            f"{type(kept).__name__}. Choose the group selection=last, best or mean."
        )
    if kept is not None and config.train and not trainer.limit_val_batches:
        raise ConfigError(
            f"selection={config.selection} needs validations. Got limit_val_batches=0."
        )
    if isinstance(kept, LastEpochs) and not benchmark.val_is_test:
        raise ConfigError(
            "selection=mean reports the last validations as test results: expected data whose "
            f"validation split is the test split. Got {type(benchmark).__name__} with its own."
        )


def summarize(
    config: DictConfig,
    module: MTLModule,
    benchmark: Benchmark,
    metrics: dict[str, dict[str, float]],
) -> Results:
    """Test values with their directions and what they can be compared with."""
    choices = HydraConfig.get().runtime.choices
    directions = {
        task.name: {key: bool(m.higher_is_better) for key, m in task.metrics.items()}
        for task in module.tasks
    }
    return Results(
        dataset=str(choices["dataset"]),
        balancer=str(choices["balancer"]),
        seed=config.seed,
        protocol=protocol_of(plain(config), benchmark.free, benchmark.departures),
        metrics=metrics,
        validation=module.results.get("val", {}),
        shared=bool(module.model.shared_parameters()),
        higher_is_better=directions,
    )


def compare(config: DictConfig, results: Results, rows: list[dict[str, float]]) -> Baseline | None:
    """Finds the single-task values of the run's protocol and notes the gains over them.

    Args:
        config: Says where to look.
        results: The run, which is completed.
        rows: Its history, where validations are on the test data.
    """
    published = ROOT / "benchmarks" / "baselines" / f"{results.dataset}.yaml"
    baseline = find_baseline(
        results,
        config.baseline,
        searched=[Path("outputs"), Path("multirun")],
        published=published if published.is_file() else None,
    )
    if baseline is not None:
        scores = {
            task: {key: values[key] for key in results.higher_is_better[task]}
            for task, values in results.metrics.items()
        }
        reference = {
            task: {key: baseline.values[task][key] for key in keys} for task, keys in scores.items()
        }
        results.baseline = baseline.source
        results.delta_m = delta_m(scores, reference, results.higher_is_better)
        results.delta_p = delta_p(scores, reference, results.higher_is_better)
        results.best_epoch = best_epoch(rows, reference, results.higher_is_better)
    return baseline


def finish(
    config: DictConfig, results: Results, folder: Path, rows: list[dict[str, float]]
) -> None:
    """Compares with single-task runs, writes metrics.json, prints the table and the files."""
    try:
        baseline = compare(config, results, rows)
    finally:
        written = results.write(folder)  # also if there is nothing to compare with
    console = Console()
    print_table(results, baseline, console)
    for label, path in (
        ("Checkpoint", folder / "checkpoints" / "last.ckpt"),
        ("Metrics", written),
        ("Curves", folder / "history.csv"),
        ("Pictures", folder / "pictures"),
    ):
        if path.exists():
            console.out(f"{label + ':':<12}{os.path.relpath(path)}", highlight=False)


def spell_null(argument: str) -> str:
    """`group=null`, as it is written in files, is `~group` on Hydra's command line."""
    group, _, value = argument.partition("=")
    return f"~{group}" if value == "null" and (CONFIGS / group).is_dir() else argument


def command_line() -> int:
    """Runs `main`; errors that the user can mend are printed without a traceback, exit code 2."""
    sys.argv[1:] = map(spell_null, sys.argv[1:])
    earlier = continued(sys.argv[1:], runs=Path("outputs"), sweeps=Path("multirun"))
    if earlier is not None:
        sys.argv += [f"hydra.{kind}.dir='{earlier.absolute()}'" for kind in ("run", "sweep")]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra hides what `explain` needs
    try:
        main()
    except MTLError as error:
        print(f"\n{type(error).__name__}: {message_of(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        message = explain(error, CONFIGS)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
