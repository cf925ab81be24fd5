"""Batches in which every task has pictures of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.base import Batch, EpochData
from benchmarks.office.files import Labelled, read_picture

_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


class JointData(EpochData):
    """Training samples: one of each domain, side by side.

    An epoch is as long as the full batches of the largest domain; the others start again, in
    another order, when they are through, as in LibMTL. Item p of an epoch has, from each domain,
    item p of that domain's own shuffled sequence: a batch of consecutive items has no picture twice
    (unless a domain is smaller than a batch).

    Args:
        domains: Task name -> pictures.
        size: Height and width.
        batch_size: Items in a batch.
        seed: Of the order, with the epoch.
    """

    def __init__(
        self,
        domains: Mapping[str, Labelled],
        *,
        size: Sequence[int],
        batch_size: int,
        seed: int,
    ) -> None:
        self._domains = domains
        self._size = size
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return max(self._cycle(len(pictures)) for pictures in self._domains.values())

    def __getitem__(self, index: int) -> Batch:
        """A batch of one item."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch: inputs and targets by task."""
        pairs = [
            _stack(pictures, self._chosen(number, len(pictures), indices), self._size)
            for number, pictures in enumerate(self._domains.values())
        ]
        return _by_task(dict(zip(self._domains, pairs, strict=True)))

    def _chosen(self, domain: int, count: int, items: Sequence[int]) -> list[int]:
        """The pictures of a domain at some items of this epoch."""
        length = self._cycle(count)
        orders: dict[int, np.ndarray] = {}
        for item in items:
            turn = item // length
            if turn not in orders:
                rng = np.random.default_rng([self._seed, self.epoch, domain, turn])
                orders[turn] = rng.permutation(count)
        return [int(orders[item // length][item % length]) for item in items]

    def _cycle(self, count: int) -> int:
        """Items until a domain starts again: its full batches, or all if it has not even one."""
        return count // self._batch_size * self._batch_size or count


class SeparateData(Dataset):
    """Evaluation samples: every picture of every domain once.

    Args:
        domains: Task name -> pictures.
        size: Height and width.
    """

    def __init__(self, domains: Mapping[str, Labelled], *, size: Sequence[int]) -> None:
        self._domains = domains
        self._size = size
        self._places = [(name, i) for name, own in domains.items() for i in range(len(own))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch with the tasks whose pictures are among them."""
        chosen: dict[str, list[int]] = defaultdict(list)
        for index in indices:
            name, own = self._places[index]
            chosen[name].append(own)
        return _by_task(
            {name: _stack(self._domains[name], own, self._size) for name, own in chosen.items()}
        )


def _stack(
    pictures: Labelled, indices: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    chosen = pictures.take(indices)
    images = np.stack([read_picture(path, size) for path in chosen.paths])
    normalised = (images.astype(np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(normalised), torch.tensor(chosen.labels)


def _by_task(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Batch:
    inputs = {name: images for name, (images, _) in pairs.items()}
    return inputs, {name: labels for name, (_, labels) in pairs.items()}
