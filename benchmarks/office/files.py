"""The folders of Office-31 and Office-Home, and their splits."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from benchmarks.files import listing
from mtl.errors import DataError

SPLITS: Final = ("train", "val", "test")
SUFFIXES: Final = (".jpg", ".jpeg", ".png")

_PARTS: Final = (0.6, 0.2)  # of train and val; the rest is test
_SPLIT_SEED: Final = 0


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes.

    Attributes:
        paths: The files.
        labels: A class number for each.
    """

    paths: list[Path]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> Labelled:
        """Some of them, in the order of `indices`."""
        return Labelled([self.paths[i] for i in indices], [self.labels[i] for i in indices])


def read_lists(
    root: Path, folder: Path, domain: str, num_classes: int
) -> dict[str, Labelled] | None:
    """Splits of a domain from `<domain>_{train,val,test}.txt`; `None` if there is no such file.

    A line is a path below `root`, a space, and a class number: LibMTL's form, whose classes are not
    in alphabetical order.

    Args:
        root: What the paths are relative to.
        folder: Where the lists lie.
        domain: As spelt in their names.
        num_classes: Numbers are smaller than this.

    Raises:
        DataError: A list is missing, a line is not of this form, or a picture does not exist.
    """
    lists = {split: folder / f"{domain}_{split}.txt" for split in SPLITS}
    lacking = [path.name for path in lists.values() if not path.is_file()]
    if len(lacking) == len(SPLITS):
        return None
    if lacking:
        raise DataError(
            f"{folder}: expected lists for {', '.join(SPLITS)}, or none of them; missing: "
            f"{', '.join(lacking)}. Without any, a split is made."
        )
    return {split: _read_list(root, path, num_classes) for split, path in lists.items()}


def read_classes(folder: Path) -> dict[str, list[Path]]:
    """Pictures of a domain by class, one folder a class, in alphabetical order.

    Raises:
        DataError: There is no picture, or a class has none.
    """
    classes = {
        path.name: sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }
    empty = [name for name, paths in classes.items() if not paths]
    if empty or not classes:
        raise DataError(
            f"{folder}: expected a folder of {', '.join(SUFFIXES)} files for each class, got "
            f"{listing(folder)}{'; empty: ' + ', '.join(empty) if empty else ''}."
        )
    return classes


def divide(
    classes: Mapping[str, Sequence[Path]], numbers: Mapping[str, int]
) -> dict[str, Labelled]:
    """Splits the pictures of a domain 60/20/20 within each class, the same way in every run.

    Args:
        classes: Pictures by class.
        numbers: Class number by class.
    """
    parts: dict[str, Labelled] = {split: Labelled([], []) for split in SPLITS}
    for name, paths in classes.items():
        # A class keeps its split whatever other classes and domains are there.
        rng = np.random.default_rng([_SPLIT_SEED, zlib.crc32(name.encode())])
        order = rng.permutation(len(paths))
        cuts = np.rint(np.cumsum(_PARTS) * len(paths)).astype(int)
        for split, chosen in zip(SPLITS, np.split(order, cuts), strict=True):
            parts[split].paths.extend(paths[i] for i in sorted(chosen))
            parts[split].labels.extend([numbers[name]] * len(chosen))
    return parts


def read_picture(path: Path, size: Sequence[int]) -> np.ndarray:
    """A picture in colours, uint8 [3, height, width].

    Args:
        path: The file.
        size: Height and width.

    Raises:
        DataError: The file is no picture, or damaged.
    """
    height, width = size
    try:
        with Image.open(path) as picture:
            resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected a picture, got {error}. Get it again.") from error
    return np.asarray(resized).transpose(2, 0, 1)


def _read_list(root: Path, path: Path, num_classes: int) -> Labelled:
    found = Labelled([], [])
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        place = f"{path}, line {number}"
        if not (name and label.isascii() and label.isdigit() and int(label) < num_classes):
            raise DataError(
                f"{place}: expected a path, a space and a class 0 to {num_classes - 1}, got "
                f"{line!r}."
            )
        picture = _existing(root, name)
        if picture is None:
            raise DataError(f"{place}: expected a picture {root / name}, got none there.")
        found.paths.append(picture)
        found.labels.append(int(label))
    if not found.paths:
        raise DataError(f"{path}: expected a line a picture, got an empty file.")
    return found


def _existing(root: Path, name: str) -> Path | None:
    """The lists say `Real_World`, the official archive `Real World`."""
    first, _, rest = name.partition("/")
    spellings = (first, first.replace("_", " "))
    return next((p for s in spellings if (p := root / s / rest).is_file()), None)
