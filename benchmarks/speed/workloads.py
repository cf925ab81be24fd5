"""What is timed: the built-in data sets with their default models."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lightning
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig

from benchmarks.base import Batch, Benchmark
from benchmarks.speed.gradients import GradientCost, sum_of_losses
from mtl import Balancer, MTLModule, MultiTaskModel, Task
from mtl.callbacks import GradientCosines, History
from mtl.config import build, register_schema

_WARMUP = 3
_CONFIGS = Path(__file__).parents[2] / "configs"


class Workload:
    """A data set with its default model, and the loops that are compared on it.

    Args:
        dataset: Name of the configuration.
        steps: Optimizer steps that one call of a whole-loop contender takes.
    """

    def __init__(self, dataset: str, steps: int) -> None:
        register_schema()
        with initialize_config_dir(str(_CONFIGS), version_base="1.3"):
            self.config: DictConfig = compose("train", [f"dataset={dataset}"])
        self.steps = steps
        self.benchmark: Benchmark = build(self.config.dataset)
        self.benchmark.prepare_data()
        self.benchmark.setup("fit")
        self.batch: Batch = next(iter(self.benchmark.train_dataloader()))

    def model(self) -> tuple[MultiTaskModel, list[Task]]:
        """The default model, the same initial weights every time."""
        torch.manual_seed(0)
        backbone, head = build(self.config.model.backbone), build(self.config.model.head)
        tasks = self.benchmark.tasks(lambda size: head(backbone.out_channels, size))
        return MultiTaskModel(backbone, tasks), tasks

    def batches(self) -> Iterator[Batch]:
        """So many batches as one call takes, loaded afresh."""
        epochs = itertools.chain.from_iterable(
            self.benchmark.train_dataloader() for _ in itertools.count()
        )
        return itertools.islice(epochs, _WARMUP + self.steps)

    # --------------------------------------------------------------------------- whole training

    def bare_loop(self) -> float:
        """CPU seconds of equal weighting as one writes it by hand."""
        model, tasks = self.model()
        optimizer = build(self.config.optimizer)(model.parameters())
        watch = _Stopwatch(self.steps)
        for inputs, targets in self.batches():
            loss = sum_of_losses(model, tasks, inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.tick()
        return watch.seconds

    def lightning_loop(self) -> float:
        """CPU seconds of equal weighting as `train.py` runs it, recording and logging."""
        model, tasks = self.model()
        module = MTLModule(model, tasks, Balancer(), optimizer=build(self.config.optimizer))
        watch = _Stopwatch(self.steps)
        with tempfile.TemporaryDirectory() as folder:
            trainer = lightning.Trainer(
                accelerator="cpu",
                max_steps=_WARMUP + self.steps,
                limit_val_batches=0,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                log_every_n_steps=self.config.trainer.log_every_n_steps,
                callbacks=[
                    History(),
                    GradientCosines(self.config.callbacks.cosines.every_n_steps),
                    LambdaCallback(on_train_batch_end=lambda *_: watch.tick()),
                ],
                logger=CSVLogger(folder),
            )
            trainer.fit(module, self.benchmark)
        return watch.seconds

    def gradients(self) -> GradientCost:
        """Contenders on one batch."""
        return GradientCost(self.model, self.batch)


class _Stopwatch:
    """CPU seconds of so many steps, after a few that do not count."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._ticks = 0
        self._started = 0.0
        self.seconds = 0.0

    def tick(self) -> None:
        """A step has ended."""
        self._ticks += 1
        if self._ticks == _WARMUP:
            self._started = time.process_time()
        if self._ticks == _WARMUP + self._steps:
            self.seconds = time.process_time() - self._started
