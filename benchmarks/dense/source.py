"""Where samples come from: arrays of one form, whatever the files look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import listing, numbered
from mtl.errors import DataError

Array = NDArray[Any]

CHANNELS: dict[str, int | None] = {"image": 3, "segmentation": None, "depth": 1, "normal": 3}
"""Channels of each array of a sample; None: class ids without a channel axis."""

_LARGEST = 1.01  # of pixels and components that are 1 but for rounding


class Source(ABC):
    """The samples of one split.

    A sample has float32 `image` [3, H, W] in 0..1, int64 `segmentation` [H, W] (-1: unlabelled),
    float32 `depth` [1, H, W] (0: invalid) and, where the data set has them, float32 `normal`
    [3, H, W] (zero: invalid).

    Args:
        num_classes: Classes 0 to `num_classes` - 1.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def load(self, index: int) -> Mapping[str, Array]:
        """The arrays of a sample, channels first, in any type."""

    @abstractmethod
    def place(self, index: int, name: str) -> str:
        """Where an array lies, for messages."""

    def read(self, index: int) -> dict[str, Array]:
        """A sample, checked.

        Args:
            index: 0 to n - 1.

        Raises:
            DataError: A file is damaged, of another shape, or has values out of range; the
                message names it.
        """
        loaded = self.load(index)
        size = loaded["image"].shape[-2:]
        sample = {}
        for name, array in loaded.items():
            channels = CHANNELS[name]
            shape = (*size,) if channels is None else (channels, *size)
            place = self.place(index, name)
            if array.shape != shape or not array.size:
                raise DataError(
                    f"{place}: expected {name} of height and width {list(size)}, as its image has, "
                    f"and {channels or 'no'} channel(s), got {list(array.shape)} (channels first)."
                )
            _CHECKS[name](array, place, self.num_classes)
            kind = np.int64 if name == "segmentation" else np.float32
            sample[name] = np.ascontiguousarray(array, dtype=kind)
        return sample


class NpyFolders(Source):
    """Folders of numbered `.npy` files, as MTAN and LibMTL have them.

    Args:
        folder: One split.
        subfolders: Name of an array -> its folder below `folder`. Files `0.npy`, `1.npy` ... hold
            [H, W, channels], class ids [H, W], in any numeric type.
        num_classes: See `Source`.

    Raises:
        DataError: A folder is missing, a number is left out, or the folders have different counts.
    """

    def __init__(self, folder: Path, subfolders: Mapping[str, str], num_classes: int) -> None:
        super().__init__(num_classes)
        for name in subfolders.values():
            if not (folder / name).is_dir():
                raise DataError(
                    f"{folder}: expected folders {', '.join(subfolders.values())}, got "
                    f"{listing(folder)}; missing: {name}. Get the data set again."
                )
        self.files = {name: numbered(folder / sub, ".npy") for name, sub in subfolders.items()}
        counts = {subfolders[name]: len(files) for name, files in self.files.items()}
        if len(set(counts.values())) > 1:
            raise DataError(
                f"{folder}: expected the same number of files in each folder, got "
                f"{', '.join(f'{count} in {name}/' for name, count in counts.items())}. Get the "
                "missing files again."
            )

    def __len__(self) -> int:
        return len(self.files["image"])

    def place(self, index: int, name: str) -> str:
        """The path of the file."""
        return str(self.files[name][index])

    def load(self, index: int) -> dict[str, Array]:
        """Reads one file an array."""
        return {name: _channels_first(_load(files[index])) for name, files in self.files.items()}


def _load(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: expected a .npy file, got {error}. Get it again.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected one array of numbers, got {array!r:.80}.")
    return array


def _channels_first(array: Array) -> Array:
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array


def _refuse(place: str, expected: str, array: Array, remedy: str) -> DataError:
    finite = np.isfinite(array)
    values = array[finite]
    span = f"{values.min():g} to {values.max():g}" if values.size else "no number"
    rest = "" if finite.all() else f" and {np.count_nonzero(~finite)} NaN or infinite"
    return DataError(f"{place}: expected {expected}, got {span}{rest}. {remedy}")


def _check_image(array: Array, place: str, num_classes: int) -> None:
    del num_classes
    if not (array.min() >= 0 and array.max() <= _LARGEST):
        remedy = "Divide images of 0 to 255 by 255 when you write them."
        raise _refuse(place, "an image with values 0 to 1", array, remedy)


def _check_classes(array: Array, place: str, num_classes: int) -> None:
    low, high = array.min(), array.max()
    whole = array.dtype.kind != "f" or bool((array == np.rint(array)).all())
    if not (whole and low >= -1 and high < num_classes):
        remedy = "Are these labels of another number of classes? Mark unlabelled pixels -1."
        expected = f"whole class ids -1 (unlabelled) to {num_classes - 1}"
        raise _refuse(place, expected, array, remedy)


def _check_depth(array: Array, place: str, num_classes: int) -> None:
    del num_classes
    if not (array.min() >= 0 and array.max() < np.inf):
        raise _refuse(place, "finite depths of 0 or more", array, "Mark invalid pixels 0.")


def _check_normal(array: Array, place: str, num_classes: int) -> None:
    del num_classes
    if not np.abs(array).max() <= _LARGEST:
        remedy = "Mark invalid pixels (0, 0, 0)."
        raise _refuse(place, "unit vectors, components -1 to 1", array, remedy)


_CHECKS: dict[str, Callable[[Array, str, int], None]] = {
    "image": _check_image,
    "segmentation": _check_classes,
    "depth": _check_depth,
    "normal": _check_normal,
}


def spread(count: int, limit: int | None) -> Sequence[int]:
    """Numbers of `limit` samples out of `count`, evenly spread; all where there is no limit."""
    if limit is None or limit >= count:
        return range(count)
    return [round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)]
