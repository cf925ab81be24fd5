"""What all diffusion data sets share: tasks, draws of timesteps and noise, samples' quality."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanSquaredError

from benchmarks.base import ArrayData, Arrays, Batch, Benchmark, Head
from mtl.diffusion import Diffusion, Intervals, NoiseError, Noisy, sorted_by_time
from mtl.errors import ConfigError
from mtl.metrics import frechet_distance, precision_recall
from mtl.task import Task

_EVALUATION_SEEDS = {"val": 1, "test": 2}


class Clean(NamedTuple):
    """Training samples before noise.

    Attributes:
        x: `[B, ...]`, float32.
        label: Classes, int64 `[B]`.
    """

    x: Tensor
    label: Tensor


class DiffusionBenchmark(Benchmark):
    """A denoiser's timesteps, in fine intervals of which each is a task with samples of its own.

    Training: timestep and noise are drawn on the device when a batch has arrived there, as a
    function of seed, process and number of the batch. Every task gets an equal share of a batch,
    or every cluster where the balancer clusters tasks. Validation and test: samples, timesteps and
    noise are drawn once, alike for all runs; weights of the loss are left out.

    Args:
        diffusion: The process.
        intervals: Number of tasks, 1 to T.
        batch_size: Samples a step over all tasks; a run on some of them takes their part.
        steps_per_epoch: An epoch is so many steps, however many data there are.
        val_draws: Samples of each task in the validation.
        test_draws: Samples of each task in the test.
        num_classes: 0: unconditional; otherwise the number of classes in the data.
        label_dropout: Share of training samples that lose their class, for guidance, 0 to 1.
        seed: See `Benchmark`.

    A subclass gives `clean`, `shape`, `features` and `sheet`.

    Attributes:
        sample_range: Where data lie, `[-r, r]`; samplers clip there.
        no_label: The class that stands for none.
    """

    sample_range: float
    metric = "eps_mse"

    def __init__(
        self,
        diffusion: Diffusion,
        *,
        intervals: int = 20,
        batch_size: int = 250,
        steps_per_epoch: int = 500,
        val_draws: int = 200,
        test_draws: int = 500,
        num_classes: int = 0,
        label_dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if not 0 <= label_dropout <= 1:
            raise ConfigError(f"`label_dropout` should be between 0 and 1. Got {label_dropout}.")
        self.diffusion = diffusion
        self.intervals = Intervals(diffusion.timesteps, intervals)
        self.steps_per_epoch = steps_per_epoch
        self.draws = {"val": val_draws, "test": test_draws}
        self.no_label = num_classes
        self.label_dropout = label_dropout

    @abstractmethod
    def clean(self, part: str) -> Dataset:
        """Samples of `train`, `val` or `test`; `__getitems__(indices)` gives `Clean`."""

    @abstractmethod
    def features(self, samples: Tensor) -> np.ndarray:
        """Features of samples, `[n, d]`, in which their quality is measured."""

    @abstractmethod
    def reference(self, count: int) -> Tensor:
        """Up to so many data that samples are compared with."""

    @abstractmethod
    def sheet(self, samples: Tensor) -> Image.Image:
        """A picture of samples."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample."""

    @cached_property
    def trained(self) -> list[str]:
        """Names of the tasks that are trained."""
        return [n for n in self.intervals.names if self.chosen is None or n in self.chosen]

    def tasks(self, head: Head) -> list[Task]:
        """One task an interval of timesteps, in the order of growing noise."""
        positions = self.intervals.positions(self.diffusion)
        error = NoiseError()
        return [
            Task(name, head(1), error, {self.metric: MeanSquaredError()}, position=position)
            for name, position in zip(self.intervals.names, positions, strict=True)
        ]

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Draws what is evaluated."""
        batch = self._step_size
        self.train_data = _Repeated(self.clean("train"), batch * self.steps_per_epoch * self._world)
        self.val_data, self.test_data = self._evaluated("val"), self._evaluated("test")

    def _spoilt(self, data: Dataset) -> Dataset:
        if self.corruption is not None:
            raise ConfigError("`corrupt_tasks` spoils labels. Got a diffusion data set: no labels.")
        return data

    def train_dataloader(self) -> DataLoader:
        """As for other data; a run on some of the tasks takes their part of a batch."""
        whole, self.batch_size = self.batch_size, self._step_size
        try:
            return super().train_dataloader()
        finally:
            self.batch_size = whole

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Adds noise to clean samples."""
        if not isinstance(batch, Clean):
            return batch
        loops = self.trainer.fit_loop  # type: ignore[union-attr]
        position = loops.epoch_loop.total_batch_idx + 1
        mixed = (self.seed * 65537 + self._ranks["rank"]) * 2**32 + position
        generator = torch.Generator(batch.x.device).manual_seed(mixed % 2**63)
        return self.noised(batch, generator)

    def noised(self, clean: Clean, generator: torch.Generator) -> Batch:
        """A training batch: timesteps and noise are drawn, labels dropped.

        Args:
            clean: The samples.
            generator: Decides the draws.

        Returns:
            Task name -> `Noisy`, and task name -> `gain * eps`.
        """
        x, label = clean
        diffusion = self.diffusion.to(x.device)
        clusters = self.clusters or [[name] for name in self.trained]
        t = self.intervals.draw(len(x), clusters, generator)
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        dropped = torch.rand(len(x), generator=generator, device=x.device) < self.label_dropout
        label = torch.where(dropped, self.no_label, label)
        gain = diffusion.gain[t]
        noisy = Noisy(diffusion.add_noise(x, t, eps), t, label, gain)
        return self.intervals.by_task(noisy, gain.view(-1, *[1] * (x.dim() - 1)) * eps)

    def target(self, noisy: Noisy, eps: Tensor) -> Tensor:  # noqa: ARG002
        """What predictions are compared with in validation and test: the noise itself."""
        return eps

    def quality(self, samples: Tensor) -> dict[str, float]:
        """Frechet distance, precision and recall against data, in the space of features."""
        real = self.features(self.reference(len(samples)))
        fake = self.features(samples)
        precision, recall = precision_recall(real, fake)
        return {
            "frechet": frechet_distance(real, fake),
            "precision": precision,
            "recall": recall,
        }

    @property
    def _step_size(self) -> int:
        return max(1, round(self.batch_size * len(self.trained) / len(self.intervals.names)))

    @property
    def _world(self) -> int:
        return self._ranks["num_replicas"]

    def _evaluated(self, part: str) -> ArrayData:
        """Samples with timesteps and noise, drawn once; the same for a run on some of the tasks."""
        data: Any = self.clean(part)
        bounds = self.intervals.bounds
        drawn: list[tuple[Tensor, Tensor, Tensor]] = []
        for index, name in enumerate(self.intervals.names):
            seed = _EVALUATION_SEEDS[part] * 10**6 + index
            generator = torch.Generator().manual_seed(seed)
            size = (self.draws[part],)
            rows = torch.randint(len(data), size, generator=generator)
            t = torch.randint(bounds[index], bounds[index + 1], size, generator=generator)
            eps = torch.randn(*size, *self.shape, generator=generator)
            if name in self.trained:
                drawn.append((rows, t, eps))
        rows, t, eps = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        clean: Clean = data.__getitems__(rows.tolist())
        arrays = {"x": clean.x, "label": clean.label, "t": t, "eps": eps}
        return ArrayData({k: v.numpy() for k, v in arrays.items()}, self._decode)

    def _decode(self, arrays: Arrays) -> Batch:
        x, label, t, eps = (torch.from_numpy(arrays[k]) for k in ("x", "label", "t", "eps"))
        noisy = Noisy(self.diffusion.add_noise(x, t, eps), t, label, torch.ones(len(t)))
        return self.intervals.by_task(*sorted_by_time(noisy, self.target(noisy, eps)))


class CleanData(Dataset):
    """Samples in memory.

    Args:
        x: `[n, ...]`, float32.
        label: int64 `[n]`.
    """

    def __init__(self, x: Tensor, label: Tensor) -> None:
        self.x, self.label = x, label

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Clean:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Clean:
        """A batch."""
        return Clean(self.x[indices], self.label[indices])


class _Repeated(Dataset):
    """Goes through data again until there are `length` samples."""

    def __init__(self, data: Dataset, length: int) -> None:
        self.data: Any = data
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clean:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Clean:
        return self.data.__getitems__([index % len(self.data) for index in indices])
