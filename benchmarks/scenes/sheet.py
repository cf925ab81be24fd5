"""Contact sheets: pictures and their labels side by side, in colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.scenes.codec import decode
from benchmarks.scenes.spec import CLASSES, PALETTE
from mtl.errors import ConfigError

Picture = NDArray[np.uint8]

_FARTHEST = 6.0
_DEPTH_COLOURS = np.array(
    [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], dtype=np.float64
)
_HEADING = 14
_LEGEND_CELL = 80
_BACKGROUND, _INK = (255, 255, 255), (20, 20, 20)


def colourise_image(image: NDArray[np.floating]) -> Picture:
    """A picture [3, H, W] or [1, H, W] in 0..1 as colours [H, W, 3]."""
    channels = np.broadcast_to(image, (3, *image.shape[-2:]))
    return np.rint(np.clip(channels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def colourise_segmentation(labels: NDArray[np.integer]) -> Picture:
    """Labels [H, W] in the colours of `PALETTE`, [H, W, 3]; unlabelled (negative) is black."""
    labelled = labels >= 0
    return np.where(labelled[..., None], PALETTE[np.where(labelled, labels, 0)], np.uint8(0))


def colourise_depth(depth: NDArray[np.floating], farthest: float = _FARTHEST) -> Picture:
    """Depth [1, H, W] or [H, W] in metres as colours [H, W, 3].

    Near is yellow, `farthest` metres and more are dark violet, invalid (0 or less) is black.
    """
    plane = depth.reshape(depth.shape[-2:]).astype(np.float64)
    position = np.clip(plane / farthest, 0, 1) * (len(_DEPTH_COLOURS) - 1)
    stops = np.arange(len(_DEPTH_COLOURS))
    channels = [np.interp(position, stops, _DEPTH_COLOURS[:, channel]) for channel in range(3)]
    colours = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return np.where((plane > 0)[..., None], colours, np.uint8(0))


def colourise_normal(normal: NDArray[np.floating]) -> Picture:
    """Normals [3, H, W] as colours (n + 1) / 2, [H, W, 3]; invalid (all 0) is black."""
    valid = (normal != 0).any(axis=0)
    return np.where(valid[..., None], colourise_image(normal / 2 + 0.5), np.uint8(0))


_COLOURISERS: dict[str, Callable[[NDArray[Any]], Picture]] = {
    "image": colourise_image,
    "segmentation": colourise_segmentation,
    "depth": colourise_depth,
    "normal": colourise_normal,
    "edge": colourise_image,
    "albedo": colourise_image,
}


def contact_sheet(data: Mapping[str, NDArray[Any]], rows: int, zoom: int = 2) -> Image.Image:
    """Lays out the first pictures of a data set: one row each, one column for each array.

    Args:
        data: Stored arrays from `load`, or some of them.
        rows: Number of pictures.
        zoom: Enlargement factor.

    Returns:
        An image with a heading above each column and the class colours below.

    Raises:
        ConfigError: (a ValueError) `rows` or `zoom` is out of its range.
    """
    names = [name for name in _COLOURISERS if name in data]
    count = len(data[names[0]]) if names else 0
    if not 1 <= rows <= count:
        raise ConfigError(f"rows: expected 1 to {count}, got {rows}; load more pictures")
    if zoom < 1:
        raise ConfigError(f"zoom: expected 1 or more, got {zoom}; use a larger factor")
    samples = [decode(data, row) for row in range(rows)]
    strips = [
        np.concatenate([_COLOURISERS[name](sample[name]) for name in names], axis=1)
        for sample in samples
    ]
    pictures = Image.fromarray(np.concatenate(strips, axis=0))
    pictures = pictures.resize(
        (pictures.width * zoom, pictures.height * zoom), Image.Resampling.NEAREST
    )
    legend = _legend(pictures.width)
    height = _HEADING + pictures.height + legend.height
    sheet = Image.new("RGB", (pictures.width, height), _BACKGROUND)
    sheet.paste(pictures, (0, _HEADING))
    sheet.paste(legend, (0, _HEADING + pictures.height))
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        pen.text((column * pictures.width // len(names) + 2, 1), name, fill=_INK)
    return sheet


def _legend(width: int) -> Image.Image:
    """The class colours with their names, wrapped to `width` pixels."""
    columns = max(1, width // _LEGEND_CELL)
    lines = -(-len(CLASSES) // columns)
    legend = Image.new("RGB", (width, lines * _HEADING + 2), _BACKGROUND)
    pen = ImageDraw.Draw(legend)
    for number, name in enumerate(CLASSES):
        left, top = number % columns * _LEGEND_CELL, number // columns * _HEADING + 2
        pen.rectangle((left + 2, top + 1, left + 11, top + 10), fill=tuple(PALETTE[number]))
        pen.text((left + 15, top), name, fill=_INK)
    return legend
