"""What a data set has to say: its batches, its tasks, and how to show them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from benchmarks.corrupt import CorruptedData, Corruption
from mtl.errors import ConfigError
from mtl.task import Task

Arrays = Mapping[str, np.ndarray]
Batch = tuple[Any, dict[str, Tensor]]
Head = Callable[[int], nn.Module]


class Benchmark(lightning.LightningDataModule, ABC):
    """A data set with its tasks.

    Args:
        batch_size: Samples a training step (in each process).
        seed: Decides the order of the samples; set to the run's seed.
        num_workers: Processes that read samples beside the training; 0: the training itself does.
        drop_last: Leave out the last batch of an epoch where it is smaller than the others.

    A subclass loads its data in `setup` into `train_data`, `val_data`, `test_data`.

    Attributes:
        chosen: Names of the tasks that are trained; `None`: all.
        corruption: How training labels are spoilt on purpose; `None`: not at all.
        num_features: Size of a flat sample, where the model must be told.
        outliers: Names of the tasks that are known not to belong to the others.
        free: Arguments that do not change what is measured: they are no part of the protocol.
        published: What is known of the published data that others can have otherwise.
        departures: Where the data that are there differ from `published`; part of the protocol.
            Known after `setup`.
        shuffles: Whether the loader puts the training samples in a random order. `False` where
            `train_data` does so itself.
        val_is_test: Whether the validation data are the test data.
        clusters: Names of the tasks that are trained, in groups that the balancer wants equally
            many samples of, where every task has samples of its own. `None`: all, each its own.
    """

    clusters: list[list[str]] | None = None

    train_data: Dataset
    val_data: Dataset
    test_data: Dataset
    num_features: int | None = None
    outliers: tuple[str, ...] = ()
    free: ClassVar[tuple[str, ...]] = ("cache_dir", "num_workers")
    published: ClassVar[Mapping[str, Any]] = {}
    departures: Mapping[str, Any] = {}
    shuffles: ClassVar[bool] = True
    val_is_test = False

    def __init__(
        self, *, batch_size: int, seed: int = 0, num_workers: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.chosen: Sequence[str] | None = None
        self.corruption: Corruption | None = None

    @abstractmethod
    def tasks(self, head: Head) -> list[Task]:
        """The tasks, with heads made by `head(size of the prediction)`."""

    def find(self) -> None:
        """Looks whether the data are where they should be, before a network is made for them.

        Raises:
            DataError: They are not there, or not complete.
        """
        return

    def picture(
        self,
        inputs: Tensor,  # noqa: ARG002
        predictions: Mapping[str, Tensor],  # noqa: ARG002
        targets: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Image.Image | None:
        """A sheet of inputs, predictions and labels, for data that can be looked at."""
        return None

    def differing(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from `published`.

        Args:
            found: What the data are, under the same names.
        """
        return {name: value for name, value in found.items() if value != self.published[name]}

    def warn_of(self, departures: Mapping[str, Any]) -> None:
        """Says that the data are not the published ones."""
        for name, value in departures.items():
            warnings.warn(
                f"{type(self).__name__} {name}: expected {self.published[name]}, got {value}. "
                "Results do not compare with published ones.",
                stacklevel=3,
            )

    def train_dataloader(self) -> DataLoader:
        """Shuffled by (seed, epoch); a resumed run sees the batches that were still to come.

        In order where the Trainer overfits: the same batches in every epoch.
        """
        train_data = self._spoilt(self.train_data)
        size, samples = self.batch_size, len(train_data)  # type: ignore[arg-type]
        least = size * self._ranks["num_replicas"] if self.drop_last else 1
        if samples < least:
            raise ConfigError(
                f"`dataset.batch_size`: expected at most the {samples} training samples there are "
                f"(drop_last leaves out smaller batches), got {least}; lower it, or raise limit."
            )
        options = {**self._options, "batch_size": size, "drop_last": self.drop_last}
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return DataLoader(train_data, **options)
        sampler = ResumableSampler(
            train_data, size, seed=self.seed, shuffle=self.shuffles, **self._ranks
        )
        return ResumableLoader(train_data, sampler=sampler, **options)

    def val_dataloader(self) -> DataLoader:
        """In order, each sample once."""
        return self._evaluation(self.val_data)

    def test_dataloader(self) -> DataLoader:
        """In order, each sample once."""
        return self._evaluation(self.test_data)

    def _evaluation(self, data: Dataset) -> DataLoader:
        return DataLoader(
            data,
            batch_size=4 * self.batch_size,
            sampler=_Share(data, shuffle=False, **self._ranks),  # type: ignore[arg-type]
            **self._options,
        )

    def _spoilt(self, data: Dataset) -> Dataset:
        """The training data, with labels spoilt if that is asked for."""
        if self.corruption is None:
            return data
        names = [name for name in data[0][1] if self.chosen is None or name in self.chosen]
        self.outliers = self.corruption.choose(names)
        kind, seed = self.corruption.kind, self.corruption.seed
        return CorruptedData(data, self.outliers, kind=kind, seed=seed)

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "collate_fn": _as_it_is,
            "num_workers": self.num_workers,
            # A loader without its own generator would draw from the global one at every epoch.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    @property
    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"num_replicas": 1, "rank": 0}
        return {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}


class ArrayData(Dataset):
    """Arrays in memory, cut into batches by one indexing each.

    Args:
        arrays: Name -> array, `[n, ...]`.
        decode: From the rows of a batch to `(inputs, targets)`.
    """

    def __init__(self, arrays: Arrays, decode: Callable[[Arrays], Batch]) -> None:
        self.arrays = arrays
        self._decode = decode

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Batch:
        """A batch of one sample."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch; loaders ask for it in one call."""
        return self._decode({name: array[indices] for name, array in self.arrays.items()})


class EpochData(Dataset):
    """Training samples that depend on the epoch: by random augmentation, or by their own order.

    Whatever is random in them is a function of (seed, `epoch`, index), so that it is the same in
    any number of workers and after a resume. The loader sets `epoch` before it starts one.
    """

    epoch = 0


class ResumableSampler(DistributedSampler):
    """Shuffles as a function of (seed, epoch), and can start in the middle of an epoch.

    Args:
        data: What is sampled.
        batch_size: Samples that one batch takes.
        num_replicas: Number of processes; each gets its part of every epoch.
        rank: Which of them this is.
        seed: Of the shuffle.
        shuffle: `False` keeps the order.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        num_replicas: int,
        rank: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        super().__init__(
            data, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed, drop_last=True
        )
        self.skip = 0
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        indices = list(super().__iter__())
        start, self.skip = self.skip * self._batch_size, 0
        return iter(indices[start:])


class ResumableLoader(DataLoader):
    """A loader whose position is part of a checkpoint; its sampler is a `ResumableSampler`."""

    sampler: ResumableSampler
    _delivered = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._delivered = self.sampler.skip
        if isinstance(self.dataset, EpochData):
            self.dataset.epoch = self.sampler.epoch
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch and number of batches delivered in it."""
        return {"epoch": self.sampler.epoch, "delivered": self._delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues where the state was taken; after the last batch, with the next epoch."""
        done = state["delivered"] >= len(self)
        self.sampler.set_epoch(state["epoch"] + int(done))
        self.sampler.skip = 0 if done else state["delivered"]


class _Share(DistributedSampler):
    """Every `world`-th index; no sample is repeated to make the shares equal.

    As a `DistributedSampler` it is left alone by Lightning, which would put one that repeats.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def _indices(self) -> range:
        return range(self.rank, len(self.dataset), self.num_replicas)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
