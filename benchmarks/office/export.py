"""Writes rooms in the form of Office-31 and Office-Home: the same classes seen in other ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.dense.source import Array
from benchmarks.office.files import SPLITS, divide, read_classes
from benchmarks.scenes.spec import CLASSES

BACKGROUND: Final = ("ceiling", "floor", "wall")

# A domain is a way to change colours: as they are, dark and warm, pale and cold, inverted.
_DOMAINS: Final[tuple[Callable[[Array], Array], ...]] = (
    lambda image: image,
    lambda image: image * np.array([0.6, 0.45, 0.3]),
    lambda image: 100 + image * np.array([0.4, 0.5, 0.6]),
    lambda image: 255 - image,
)


def write_office(
    rooms: Mapping[str, Array], root: Path, domains: Mapping[str, str], *, images: bool
) -> None:
    """Writes each room once, into one domain, under the object that fills most of it.

    Args:
        rooms: Stored arrays from `benchmarks.scenes.load`.
        root: Folder of the data set.
        domains: Task name -> folder, at most four.
        images: Whether `images/` lies between domain and classes, as in Office-31.
    """
    folders = [root / name / "images" if images else root / name for name in domains.values()]
    furniture = [number for number, name in enumerate(CLASSES) if name not in BACKGROUND]
    for index, (image, labels) in enumerate(
        zip(rooms["image"], rooms["segmentation"], strict=True)
    ):
        counts = [np.count_nonzero(labels == number) for number in furniture]
        kind = CLASSES[furniture[int(np.argmax(counts))]]
        domain = index % len(folders)
        pixels = _DOMAINS[domain](image.transpose(1, 2, 0)).astype(np.uint8)
        path = folders[domain] / kind / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)


def write_lists(root: Path, domains: Mapping[str, str], *, images: bool) -> None:
    """Writes LibMTL's lists for what `write_office` wrote, classes in reverse alphabetical order.

    Args:
        root: As in `write_office`.
        domains: As there.
        images: As there.
    """
    for name in domains.values():
        classes = read_classes(root / name / "images" if images else root / name)
        names = [kind for kind in CLASSES if kind not in BACKGROUND][::-1]
        parts = divide(classes, {kind: names.index(kind) for kind in classes})
        for split in SPLITS:
            lines = [
                f"{path.relative_to(root).as_posix()} {label}\n"
                for path, label in zip(parts[split].paths, parts[split].labels, strict=True)
            ]
            (root / f"{name}_{split}.txt").write_text("".join(lines))
