"""NYUv2 with 13 classes, depth and normals, as MTAN prepared it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from PIL import Image
from torch import Tensor

from benchmarks.base import Head
from benchmarks.dense import hub, tasks
from benchmarks.dense.data import DenseBenchmark
from benchmarks.dense.source import CHANNELS, NpyFolders, Source
from benchmarks.dense.transforms import ScaleCropFlip
from benchmarks.files import first_with, not_found
from benchmarks.scenes.sheet import prediction_sheet
from benchmarks.scenes.spec import CLASSES
from mtl.errors import DataError
from mtl.task import Task

HUB_NAME = "tanganke/nyuv2"
SUBFOLDERS = {"image": "image", "segmentation": "label", "depth": "depth", "normal": "normal"}

_GET = (
    "the README of github.com/lorenmt/mtan, or `huggingface-cli download tanganke/nyuv2 "
    "--repo-type dataset --local-dir DIR`; then dataset.data_dir=DIR. Or dataset.download=true."
)
_INSTEAD = "dataset=scenes is built in and has the same three tasks."
_NORMAL_SHEET = 128


class NYUv2(DenseBenchmark):
    """795 training and 654 test pictures of rooms, 288 x 384: segmentation, depth (m), normals.

    One sample form for all sources: image in 0..1 without further normalisation (as LibMTL, CAGrad
    and Nash-MTL have it), class ids 0..12 with -1 for unlabelled, depth with 0 for invalid, unit
    normals (x right, y down, z to the camera) with zero for invalid.

    Args:
        data_dir: One of: `train/` and `val/` with `image/`, `label/`, `depth/`, `normal/` of
            `.npy` files (MTAN, LibMTL), also below `nyuv2/` or `NYUv2/`; parquet files of
            `tanganke/nyuv2`, also below `data/`; a folder that `datasets` saved. Default: the copy
            of `tanganke/nyuv2` in the local Hugging Face cache.
        download: Get `tanganke/nyuv2` from the hub where `data_dir` is not given and the local
            cache lacks it, or some of its files.
        cache_dir: Where rows of parquet files are kept once decoded (6 GB). Default: Hugging
            Face's cache.
        batch_size: See `DenseBenchmark`, as the other arguments.
        resize: See there.
        limit: See there.
        augment: See there.
        holdout: See there.
        num_workers: See there.
        drop_last: See there.
        seed: See there.
    """

    published: ClassVar = {"train samples": 795, "val samples": 654, "size": [288, 384]}
    augmentations: ClassVar = {
        "reference": ScaleCropFlip(),
        "corrected": ScaleCropFlip(unit_normals=True, centres=True),
    }

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        download: bool = False,
        cache_dir: str | Path | None = None,
        batch_size: int = 8,
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
        self.download = download
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def tasks(self, head: Head) -> list[Task]:
        """Segmentation (13 classes), depth (metres), normals (camera frame)."""
        return [tasks.segmentation(head, len(CLASSES)), tasks.depth(head), tasks.normal(head)]

    def open(self) -> dict[str, Source]:
        """Opens the form that is there; see `DenseBenchmark.open`."""
        if self.data_dir is not None:
            return self._open(self.data_dir)
        cached = hub.cached_snapshot(HUB_NAME)
        if self.download and (cached is None or not hub.is_complete(cached)):
            return hub.download(HUB_NAME, list(CHANNELS), len(CLASSES), self.cache_dir)
        if cached is None:
            raise not_found("NYUv2", Path("data_dir=null"), *_LOOKED_FOR)
        return self._open(cached)

    def _open(self, root: Path) -> dict[str, Source]:
        roots = [root, root / "nyuv2", root / "NYUv2"]
        folder = first_with(roots, "train/image", "val/image")
        if folder is not None:
            return {
                split: NpyFolders(folder / split, SUBFOLDERS, len(CLASSES)) for split in hub.SPLITS
            }
        saved = first_with(roots, "dataset_dict.json")
        if saved is not None:
            return hub.read_saved(saved, list(CHANNELS), len(CLASSES))
        for place in (root, root / "data"):
            if shards := hub.find_shards(place):
                return hub.read_shards(shards, list(CHANNELS), len(CLASSES), self.cache_dir)
        raw = next(root.glob("*.mat"), None)
        if raw is not None:
            raise DataError(
                f"{raw}: expected the prepared form of MTAN, got the raw file, which has 894 "
                f"classes and no normals. Get it: {_GET}"
            )
        raise not_found("NYUv2", root, *_LOOKED_FOR)

    def picture(
        self, inputs: Tensor, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Image.Image:
        """Input, and for each task the prediction beside the label."""
        return prediction_sheet(
            inputs.numpy(),
            {name: value.numpy() for name, value in predictions.items()},
            {name: targets[name].numpy() for name in predictions},
            zoom=2 if inputs.shape[-1] <= _NORMAL_SHEET else 1,
        )


_LOOKED_FOR = (
    "train/image/0.npy (MTAN, LibMTL; also below nyuv2/), data/train-*.parquet (Hugging Face "
    "tanganke/nyuv2, also in its local cache), dataset_dict.json (saved by the package datasets)",
    _GET,
    _INSTEAD,
)
