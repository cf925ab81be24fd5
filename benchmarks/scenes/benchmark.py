"""The built-in rooms as a benchmark: segmentation, depth and normals, as on NYUv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from benchmarks.base import ArrayData, Arrays, Batch, Benchmark, Head
from benchmarks.dense import tasks as dense
from benchmarks.scenes.cache import load
from benchmarks.scenes.codec import decode
from benchmarks.scenes.sheet import prediction_sheet
from benchmarks.scenes.spec import CLASSES
from mtl.task import Task

_SEEDS = {"train": 1, "val": 2, "test": 3}


class Scenes(Benchmark):
    """Procedurally drawn rooms, the same for every run: the seed decides their order only.

    Args:
        train_count: Pictures to train on.
        val_count: Pictures for validation.
        test_count: Pictures for the final evaluation.
        size: Height and width, multiples of 32.
        batch_size: Pictures a training step.
        cache_dir: Where drawn pictures are kept. Default: the user's cache folder.
        seed: See `Benchmark`.
    """

    def __init__(
        self,
        *,
        train_count: int = 1000,
        val_count: int = 200,
        test_count: int = 400,
        size: Sequence[int] = (64, 64),
        batch_size: int = 16,
        cache_dir: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.height, self.width = size
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def prepare_data(self) -> None:
        """Draws what the cache lacks, in parallel."""
        for split in self.counts:
            self._load(split)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Reads the pictures from the cache."""
        self.train_data, self.val_data, self.test_data = (
            ArrayData(self._load(split), _batch) for split in self.counts
        )

    def tasks(self, head: Head) -> list[Task]:
        """Segmentation (13 classes), depth (metres), normals (camera frame)."""
        return [dense.segmentation(head, len(CLASSES)), dense.depth(head), dense.normal(head)]

    def picture(
        self, inputs: Tensor, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Image.Image:
        """Input, and for each task the prediction beside the label."""
        return prediction_sheet(
            inputs.numpy(),
            {name: value.numpy() for name, value in predictions.items()},
            {name: targets[name].numpy() for name in predictions},
        )

    def _load(self, split: str) -> Arrays:
        count = self.counts[split]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        shown = Console().is_terminal
        with Progress(*columns, transient=True, disable=not shown) as progress:
            bar = progress.add_task(f"Drawing {split} rooms", total=count)
            return load(
                count,
                seed=_SEEDS[split],
                height=self.height,
                width=self.width,
                cache_dir=self.cache_dir,
                progress=lambda done: progress.update(bar, completed=done),
            )


def _batch(arrays: Arrays) -> Batch:
    everything = np.arange(len(arrays["image"]))
    samples = {name: torch.from_numpy(a) for name, a in decode(arrays, everything).items()}
    return samples["image"], {name: samples[name] for name in ("segmentation", "depth", "normal")}
