"""Writes rooms in the forms in which NYUv2 and Cityscapes are distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.dense.hub import require_datasets
from benchmarks.dense.source import CHANNELS, Array
from benchmarks.scenes.codec import decode
from benchmarks.scenes.spec import CLASSES

Rooms = Mapping[str, Array]

_GROUPS: Final = {  # what a room has in the place of Cityscapes' 7 groups
    "floor": 0,
    **dict.fromkeys(("wall", "ceiling"), 1),
    **dict.fromkeys(("objects", "books", "picture", "tv"), 2),
    **dict.fromkeys(("bed", "sofa"), 3),
    "window": 4,
    "chair": 5,
    **dict.fromkeys(("table", "furniture"), 6),
}
_DISPARITY: Final = 0.2
"""Inverse depth at 1 m: rooms from 0.41 m on stay below Cityscapes' largest value, 0.4922."""


def samples(rooms: Rooms) -> Iterator[dict[str, Array]]:
    """Rooms one by one, in the form of `Source.read`.

    Args:
        rooms: Stored arrays from `benchmarks.scenes.load`.
    """
    kept = {name: rooms[name] for name in CHANNELS}
    for index in range(len(kept["image"])):
        yield decode(kept, index)


def write_mtan(rooms: Rooms, folder: Path, dtype: str = "float32") -> None:
    """Writes a split of NYUv2 in MTAN's form: `image/`, `label/`, `depth/`, `normal/`.

    Args:
        rooms: As in `samples`.
        folder: For example `.../train`.
        dtype: Of all files, labels too.
    """
    for index, room in enumerate(samples(rooms)):
        for name, array in room.items():
            sub = "label" if name == "segmentation" else name
            _save(folder / sub / f"{index}.npy", array, dtype)


def write_cityscapes(rooms: Rooms, folder: Path, dtype: str = "float32") -> None:
    """Writes a split of Cityscapes in MTAN's form: `image/`, `depth/`, `label_7/`, `label_19/`.

    Args:
        rooms: As in `samples`.
        folder: For example `.../train`.
        dtype: Of all files, labels too.
    """
    groups = np.array([_GROUPS[name] for name in CLASSES])
    for index, room in enumerate(samples(rooms)):
        labels, depth = room["segmentation"], room["depth"]
        arrays = {
            "image": room["image"],
            "label_19": labels,
            "label_7": np.where(labels < 0, -1, groups[labels]),
            "depth": np.divide(_DISPARITY, depth, out=np.zeros_like(depth), where=depth > 0),
        }
        for name, array in arrays.items():
            _save(folder / name / f"{index}.npy", array, dtype)


def write_parquet(rooms: Rooms, folder: Path, split: str, shards: int = 1) -> None:
    """Writes a split of NYUv2 as the hub's `tanganke/nyuv2` has it: `data/<split>-*.parquet`.

    Args:
        rooms: As in `samples`.
        folder: Root of the data set.
        split: `train` or `val`.
        shards: Number of files.

    Raises:
        ConfigError: The package datasets is not installed.
    """
    library: Any = require_datasets()
    size = rooms["image"].shape[-2:]
    features = {
        name: library.Array2D(size, "int64")
        if channels is None
        else library.Array3D((channels, *size), "float32")
        for name, channels in CHANNELS.items()
    }
    features["noise"] = library.Array3D((1, *size), "float32")
    noise = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(rooms["image"])), shards)):
        own = {name: array[part] for name, array in rooms.items()}
        rows = [room | {"noise": noise.random((1, *size), np.float32)} for room in samples(own)]
        columns = {name: [row[name] for row in rows] for name in features}
        data = library.Dataset.from_dict(columns, features=library.Features(features))
        name = f"{split}-{number:05d}-of-{shards:05d}.parquet"
        data.to_parquet(str(folder / "data" / name))


def _save(path: Path, array: Array, dtype: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    last = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    np.save(path, last.astype(dtype))
