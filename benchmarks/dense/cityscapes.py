"""Cityscapes with 7 or 19 classes and inverse depth, as MTAN prepared it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.base import Head
from benchmarks.dense import tasks
from benchmarks.dense.data import DenseBenchmark
from benchmarks.dense.hub import SPLITS
from benchmarks.dense.source import Array, NpyFolders, Source
from benchmarks.dense.transforms import ScaleCropFlip
from benchmarks.files import first_with, not_found
from benchmarks.scenes.sheet import prediction_sheet
from mtl.errors import ConfigError, DataError
from mtl.task import Task

_NEAREST = 0.1  # inverse depth that is shown darkest
_COLOURS = np.array(
    [
        *[[128, 64, 128], [244, 35, 232], [70, 70, 70], [102, 102, 156], [190, 153, 153]],
        *[[153, 153, 153], [250, 170, 30], [220, 220, 0], [107, 142, 35], [152, 251, 152]],
        *[[70, 130, 180], [220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70]],
        *[[0, 60, 100], [0, 80, 100], [0, 0, 230], [119, 11, 32]],
    ],
    dtype=np.uint8,
)


class Cityscapes(DenseBenchmark):
    """2,975 training and 500 test pictures of streets, 128 x 256: segmentation, inverse depth.

    The files called `depth` hold inverse depth, 0 to 0.4922 (0: invalid): the disparity of
    Cityscapes as a fraction of 65535. Its median is small, so relative errors of 27 to 46 (not per
    cent) are usual.

    Args:
        data_dir: Folder with `train/` and `val/` of `image/`, `depth/` and labels as `.npy` files,
            also below `cityscapes/` or `cityscapes2/`.
        num_classes: 7, 19 or 2. Labels are read from `label_<num_classes>/`, and for 7 classes also
            from `label/`, where LibMTL has them. Values out of range are an error.
        batch_size: See `DenseBenchmark`, as the other arguments.
        resize: See there.
        limit: See there.
        augment: See there; the reference divides inverse depth by the scale.
        holdout: See there.
        num_workers: See there.
        drop_last: See there.
        seed: See there.
    """

    published: ClassVar = {
        "train samples": 2975,
        "val samples": 500,
        "size": [128, 256],
        "depth": "inverse depth of at most 1",
    }
    augmentations: ClassVar = {
        "reference": ScaleCropFlip(),
        "corrected": ScaleCropFlip(inverse_depth=True, unit_normals=True, centres=True),
    }

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        num_classes: int = 7,
        batch_size: int = 64,
        resize: Sequence[int] | None = None,
        limit: int | None = None,
        augment: str | None = None,
        holdout: float = 0.0,
        num_workers: int = 0,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            data_dir=data_dir,
            batch_size=batch_size,
            resize=resize,
            limit=limit,
            augment=augment,
            holdout=holdout,
            num_workers=num_workers,
            drop_last=drop_last,
            seed=seed,
        )
        if num_classes not in (2, 7, 19):
            raise ConfigError(f"`dataset.num_classes`: expected 2, 7 or 19, got {num_classes}.")
        self.num_classes = num_classes

    def tasks(self, head: Head) -> list[Task]:
        """Segmentation and inverse depth."""
        return [tasks.segmentation(head, self.num_classes), tasks.depth(head)]

    def open(self) -> dict[str, Source]:
        """Opens the folders; see `DenseBenchmark.open`."""
        root = Path("data_dir=null") if self.data_dir is None else self.data_dir
        roots = [root, root / "cityscapes", root / "cityscapes2"]
        folder = first_with(roots, "train/image", "val/image")
        if self.data_dir is None or folder is None:
            raise not_found(
                "Cityscapes",
                root,
                "train/image/0.npy (MTAN, LibMTL; also below cityscapes/)",
                "the README of github.com/lorenmt/mtan; then dataset.data_dir=DIR.",
                "dataset=scenes is built in; scripts/export_scenes.py writes it in this form.",
            )
        return {split: self._split(folder / split) for split in SPLITS}

    def traits(self, sample: Mapping[str, Array]) -> dict[str, Any]:
        """Size, and whether depth is inverse."""
        inverse = sample["depth"].max() <= 1
        depth = self.published["depth"] if inverse else "more, as depth in metres is"
        return {**super().traits(sample), "depth": depth}

    def _split(self, folder: Path) -> Source:
        wanted = [f"label_{self.num_classes}", *(["label"] if self.num_classes == 7 else [])]
        label = next((name for name in wanted if (folder / name).is_dir()), None)
        if label is None:
            there = sorted(path.name for path in folder.glob("label*"))
            raise DataError(
                f"{folder}: expected the labels of {self.num_classes} classes in "
                f"{' or '.join(name + '/' for name in wanted)}, got {', '.join(there) or 'none'}. "
                "dataset.num_classes=19 reads label_19/, 7 reads label_7/ or label/."
            )
        subfolders = {"image": "image", "segmentation": label, "depth": "depth"}
        return NpyFolders(folder, subfolders, self.num_classes)

    def picture(
        self, inputs: Tensor, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Image.Image:
        """Input, and for each task the prediction beside the label; what is near is dark."""
        return prediction_sheet(
            inputs.numpy(),
            {name: value.numpy() for name, value in predictions.items()},
            {name: targets[name].numpy() for name in predictions},
            classes=[f"class {number}" for number in range(self.num_classes)],
            palette=_COLOURS[: self.num_classes],
            farthest=_NEAREST,
        )
