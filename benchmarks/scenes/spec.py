"""What the labels of a room mean: data version, classes and their display colours."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

VERSION: Final[int] = 1
"""Part of every seed and cache name; raise it whenever a picture or a label changes."""

CLASSES: Final[tuple[str, ...]] = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
"""The 13 NYUv2 classes in NYUv2's order: the position is the segmentation label."""

UNLABELLED: Final[int] = -1
"""Segmentation label of pixels that no annotator named."""

LABEL: Final[dict[str, int]] = {name: label for label, name in enumerate(CLASSES)}

PALETTE: Final[NDArray[np.uint8]] = np.array(
    [
        [255, 180, 60],
        [150, 75, 0],
        [235, 235, 235],
        [230, 60, 60],
        [120, 170, 90],
        [130, 90, 200],
        [255, 105, 180],
        [250, 240, 80],
        [60, 120, 230],
        [0, 190, 190],
        [70, 70, 70],
        [180, 180, 160],
        [150, 215, 255],
    ],
    dtype=np.uint8,
)
"""Display colour (red, green, blue) of each class; unlabelled pixels are shown black."""
