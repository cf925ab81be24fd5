"""Training labels spoilt on purpose, so that it is known which tasks are outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.tabular.corruption import CORRUPTIONS
from benchmarks.tabular.corruption import Corruption as Kind
from mtl.errors import ConfigError

Batch = tuple[Any, dict[str, Tensor]]

_PROBED = 256


class Corruption:
    """Which tasks are spoilt, and how.

    Kinds:
        * `permute`: each sample has the label of another one, the same in all epochs; labels stay
          with themselves as a set. Any kind of label.
        * `negate`: `y -> -y`. Real-valued labels.
        * `noise`: `y ~ N(mean, sd^2)` of the labels, the same in all epochs. Real-valued labels.

    Tables of many tasks have rows of their own: there `benchmarks.tabular.corruption.spoil` does it
    within each task, reflects about the mean of all, and draws noise three times as loud.

    Args:
        kind: One of them.
        fraction: Share of the tasks, in [0, 1); rounded, and at least one task unless it is 0.
        tasks: Names of the tasks instead.
        seed: Decides the tasks and the labels.

    Raises:
        ConfigError: The options do not fit together, or name an unknown task.
    """

    def __init__(
        self,
        *,
        kind: Kind = "permute",
        fraction: float | None = None,
        tasks: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if kind not in CORRUPTIONS:
            raise ConfigError(f"`corrupt_tasks.kind` should be one of {CORRUPTIONS}. Got {kind!r}.")
        if (fraction is None) == (tasks is None):
            raise ConfigError(
                "`corrupt_tasks` should have `fraction` or `tasks`, one of them. Got "
                f"fraction={fraction} and tasks={tasks}."
            )
        if fraction is not None and not 0 <= fraction < 1:
            raise ConfigError(f"`corrupt_tasks.fraction` should be in [0, 1). Got {fraction}.")
        self.kind = kind
        self.fraction = fraction
        self.named = tasks
        self.seed = seed

    def choose(self, names: Sequence[str]) -> tuple[str, ...]:
        """The tasks to spoil, of all that there are.

        Args:
            names: The tasks in training.
        """
        if self.named is not None:
            unknown = sorted(set(self.named) - set(names))
            if unknown:
                raise ConfigError(
                    f"`corrupt_tasks.tasks` should name some of {list(names)}. Got {unknown}."
                )
            return tuple(self.named)
        assert self.fraction is not None
        count = max(1, round(self.fraction * len(names))) if self.fraction else 0
        chosen = np.random.default_rng(self.seed).permutation(len(names))[:count]
        return tuple(names[i] for i in sorted(chosen))


class CorruptedData(Dataset):
    """A data set whose labels of some tasks are spoilt.

    Args:
        data: Gives batches by `__getitems__(indices)`, all tasks on the same inputs.
        tasks: Names of the tasks to spoil.
        kind: See `Corruption`.
        seed: Decides the labels.
    """

    def __init__(self, data: Dataset, tasks: Sequence[str], *, kind: str, seed: int) -> None:
        self.data = data
        self.tasks = tuple(tasks)
        self.kind = kind
        self.seed = seed
        count = len(data)  # type: ignore[arg-type]
        self._order = np.random.default_rng(seed).permutation(count)
        inputs, targets = self._batch(range(min(count, _PROBED)))
        if isinstance(inputs, Mapping):
            raise ConfigError(
                "`corrupt_tasks` needs tasks that share their inputs. Got inputs of their own; "
                "choose a data set of shared inputs, or one of benchmarks.tabular."
            )
        self._scale: dict[str, tuple[float, float]] = {}
        for name in self.tasks:
            labels = targets[name]
            if kind != "permute" and not labels.is_floating_point():
                raise ConfigError(
                    f"corrupt_tasks.kind={kind} needs real-valued labels. Got {labels.dtype} of "
                    f"task {name!r}. Use kind=permute."
                )
            if kind == "noise":
                known = labels[labels.isfinite()].double()
                self._scale[name] = (float(known.mean()), float(known.std()))

    @property
    def epoch(self) -> int:
        """Passed on to data that depend on it."""
        return self.data.epoch  # type: ignore[attr-defined]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.data.epoch = epoch  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch."""
        inputs, targets = self._batch(indices)
        targets = dict(targets)
        others = self._batch(self._order[list(indices)])[1] if self.kind == "permute" else targets
        for name in self.tasks:
            targets[name] = self._spoil(name, others[name], indices)
        return inputs, targets

    def __getitem__(self, index: int) -> Batch:
        """A batch of one sample."""
        return self.__getitems__([index])

    def _batch(self, indices: Any) -> Batch:
        return self.data.__getitems__([int(i) for i in indices])  # type: ignore[attr-defined]

    def _spoil(self, name: str, labels: Tensor, indices: Sequence[int]) -> Tensor:
        if self.kind == "permute":
            return labels
        if self.kind == "negate":
            return -labels
        mean, deviation = self._scale[name]
        stream = self.tasks.index(name)
        drawn = np.stack(
            [
                np.random.default_rng([self.seed, stream, int(i)]).normal(mean, deviation, shape)
                for i, shape in ((i, labels.shape[1:]) for i in indices)
            ]
        )
        return torch.where(labels.isnan(), labels, torch.from_numpy(drawn).to(labels))
