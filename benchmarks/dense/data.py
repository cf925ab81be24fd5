"""Samples of a source as batches, and what the dense data sets have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from benchmarks.base import Batch, Benchmark, EpochData
from benchmarks.dense.source import Array, Source, spread
from benchmarks.dense.transforms import Sample, ScaleCropFlip, resize
from mtl.errors import ConfigError, DataError

Augmentation = Callable[[Sample, np.random.Generator], Sample]

_HOLDOUT_SEED = 0


class DenseData(EpochData):
    """Samples read when they are asked for, resized, augmented and put together.

    Args:
        source: Where they come from.
        indices: Which of them.
        size: Height and width; `None`: as stored.
        augment: Changes a sample at random.
        seed: Of the augmentation, with the epoch and the index.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        *,
        size: Sequence[int] | None = None,
        augment: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.source = source
        self.indices = indices
        self._size = size
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one sample."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch; loaders ask for it in one call.

        Raises:
            DataError: The samples have different sizes.
        """
        samples = [self._sample(index) for index in indices]
        for index, sample in zip(indices, samples, strict=True):
            size, expected = sample["image"].shape[-2:], samples[0]["image"].shape[-2:]
            if size != expected:
                place = self.source.place(self.indices[index], "image")
                raise DataError(
                    f"{place}: expected the size of the other samples, {list(expected)}, got "
                    f"{list(size)}. Bring all to one size with dataset.resize=[HEIGHT,WIDTH]."
                )
        batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
        return batch.pop("image"), batch

    def _sample(self, index: int) -> Sample:
        arrays = self.source.read(self.indices[index])
        sample = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self._size is not None:
            sample = resize(sample, self._size)
        if self._augment is not None:
            sample = self._augment(sample, np.random.default_rng([self._seed, self.epoch, index]))
        return sample


class DenseBenchmark(Benchmark):
    """A data set of pictures with dense labels, split into `train` and `val`.

    `val` is the official test split; nobody has a validation split. It is therefore used for both,
    unless `holdout` takes one from the training samples: choose nothing by it.

    Args:
        data_dir: Folder of the data.
        batch_size: Samples a training step.
        resize: Height and width to bring samples to; `None`: as stored.
        limit: Samples of each split, evenly spread; `None`: all.
        augment: `null`; `reference`: as in the public code; `corrected`: the same with the
            geometry of labels right.
        holdout: Part in [0, 1) of the training samples that is kept for validation.
        num_workers: See `Benchmark`.
        drop_last: See `Benchmark`.
        seed: See `Benchmark`.
    """

    free: ClassVar = (*Benchmark.free, "data_dir", "download")
    augmentations: ClassVar[Mapping[str, ScaleCropFlip]]

    def __init__(
        self,
        *,
        data_dir: str | Path | None,
        batch_size: int,
        resize: Sequence[int] | None = None,
        limit: int | None = None,
        augment: str | None = None,
        holdout: float = 0.0,
        num_workers: int = 0,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, drop_last=drop_last
        )
        if resize is not None and not (len(resize) == 2 and all(s >= 1 for s in resize)):
            raise ConfigError(f"`dataset.resize`: expected [HEIGHT, WIDTH], got {resize}.")
        if limit is not None and limit < 1:
            raise ConfigError(f"`dataset.limit`: expected 1 or more, or null, got {limit}.")
        if augment is not None and augment not in self.augmentations:
            known = ", ".join(self.augmentations)
            raise ConfigError(f"`dataset.augment`: expected null, {known}; got {augment!r}.")
        if not 0 <= holdout < 1:
            raise ConfigError(f"`dataset.holdout`: expected a part in [0, 1), got {holdout}.")
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.resize = resize
        self.limit = limit
        self.augment = augment
        self.holdout = holdout
        self.val_is_test = holdout == 0

    @abstractmethod
    def open(self) -> dict[str, Source]:
        """The sources of the splits `train` and `val`.

        Raises:
            DataError: They are not there, or not complete.
        """

    def find(self) -> None:
        """Opens the data."""
        self.open()

    def prepare_data(self) -> None:
        """Opens the data and reads the first sample of each split."""
        self.warn_of(self._departures(self.open()))

    def traits(self, sample: Mapping[str, Array]) -> dict[str, Any]:
        """What the data are, under the names of `published`.

        Args:
            sample: The first one.
        """
        return {"size": list(sample["image"].shape[-2:])}

    def _departures(self, sources: Mapping[str, Source]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for split, source in sources.items():
            found |= {f"{split} samples": len(source)} | self.traits(source.read(0))
        return self.differing(found)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Opens the data; samples are read when they are asked for."""
        sources = self.open()
        self.departures = self._departures(sources)
        order = np.random.default_rng(_HOLDOUT_SEED).permutation(len(sources["train"]))
        kept = round(self.holdout * len(order))
        held, trained = np.sort(order[:kept]).tolist(), np.sort(order[kept:]).tolist()
        augment = None if self.augment is None else self.augmentations[self.augment]
        self.train_data = self._data(sources["train"], trained, augment)
        self.test_data = self._data(sources["val"], range(len(sources["val"])))
        self.val_data = self._data(sources["train"], held) if held else self.test_data

    def _data(
        self, source: Source, indices: Sequence[int], augment: Augmentation | None = None
    ) -> DenseData:
        chosen = [indices[i] for i in spread(len(indices), self.limit)]
        return DenseData(source, chosen, size=self.resize, augment=augment, seed=self.seed)
