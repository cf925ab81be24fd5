"""Contact sheets: pictures and their labels side by side, in colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.scenes.codec import decode
from benchmarks.scenes.failures import config_error, data_error
from benchmarks.scenes.spec import CLASSES, PALETTE

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


def colourise_segmentation(
    labels: NDArray[np.integer], palette: NDArray[np.uint8] = PALETTE
) -> Picture:
    """Labels [H, W] in the colours of `palette`, [H, W, 3]; unlabelled (negative) is black."""
    labelled = labels >= 0
    return np.where(labelled[..., None], palette[np.where(labelled, labels, 0)], np.uint8(0))


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
        zoom: Enlargement factor, 1 or more.

    Returns:
        An image with a heading above each column and the class colours below.

    Raises:
        ConfigError: (a ValueError) `rows` or `zoom` is out of its range.
    """
    names = [name for name in _COLOURISERS if name in data]
    count = len(data[names[0]]) if names else 0
    if not 1 <= rows <= count:
        raise config_error(f"rows: expected 1 to {count}, got {rows}; load more pictures")
    samples = decode({name: data[name] for name in names}, slice(rows))
    columns = {name: [_COLOURISERS[name](row) for row in samples[name]] for name in names}
    return _lay_out(columns, zoom)


def prediction_sheet(
    images: NDArray[np.floating],
    predictions: Mapping[str, NDArray[Any]],
    targets: Mapping[str, NDArray[Any]],
    zoom: int = 2,
    *,
    classes: Sequence[str] = CLASSES,
    palette: NDArray[np.uint8] = PALETTE,
    farthest: float = _FARTHEST,
) -> Image.Image:
    """Lays out pictures with the prediction of each task beside its label.

    Args:
        images: Pictures [N, 3, H, W] in 0..1.
        predictions: By task, from `segmentation` (class scores [N, C, H, W] or labels [N, H, W]),
            `depth` ([N, 1, H, W], metres), `normal` ([N, 3, H, W], of any length), `edge` and
            `albedo`.
        targets: Labels of the same tasks in the form of `decode`.
        zoom: Enlargement factor, 1 or more.
        classes: Names of the C classes.
        palette: Their colours, [C, 3].
        farthest: Depth that is shown dark violet, see `colourise_depth`.

    Returns:
        An image with one row a picture, a heading above each column and the class colours below.
        Predictions are shown as they are, also where the label is invalid (black).

    Raises:
        DataError: A task is not one of those above, or has no label.
        ConfigError: (a ValueError) `zoom` is out of its range.
    """
    columns = {"image": [colourise_image(image) for image in images]}
    colourisers = _COLOURISERS | {
        "segmentation": lambda labels: colourise_segmentation(labels, palette),
        "depth": lambda depth: colourise_depth(depth, farthest),
    }
    for name, values in predictions.items():
        if name not in _COLOURISERS or name not in targets:
            raise data_error(
                f"predictions: expected tasks from {', '.join(_COLOURISERS)} with targets, got "
                f"{name}; leave it out of the sheet"
            )
        shown = _to_label_form(name, values)
        columns[f"{name} (predicted)"] = [colourisers[name](row) for row in shown]
        columns[f"{name} (label)"] = [colourisers[name](row) for row in targets[name]]
    return _lay_out(columns, zoom, classes, palette)


def _to_label_form(name: str, predictions: NDArray[Any]) -> NDArray[Any]:
    """Class scores become classes, normals get unit length; other predictions stay."""
    if name == "segmentation" and predictions.ndim == 4:
        return predictions.argmax(axis=1)
    if name == "normal":
        length = np.linalg.norm(predictions, axis=1, keepdims=True)
        return np.divide(predictions, length, out=np.zeros_like(predictions), where=length > 0)
    return predictions


def _lay_out(
    columns: Mapping[str, Sequence[Picture]],
    zoom: int,
    classes: Sequence[str] = CLASSES,
    palette: NDArray[np.uint8] = PALETTE,
) -> Image.Image:
    """Puts columns of equally large pictures below their headings and the legend below them."""
    if zoom < 1:
        raise config_error(f"zoom: expected 1 or more, got {zoom}; use a larger factor")
    strips = [np.concatenate(column, axis=0) for column in columns.values()]
    pictures = Image.fromarray(np.concatenate(strips, axis=1))
    pictures = pictures.resize(
        (pictures.width * zoom, pictures.height * zoom), Image.Resampling.NEAREST
    )
    legend = _legend(pictures.width, classes, palette)
    height = _HEADING + pictures.height + legend.height
    sheet = Image.new("RGB", (pictures.width, height), _BACKGROUND)
    sheet.paste(pictures, (0, _HEADING))
    sheet.paste(legend, (0, _HEADING + pictures.height))
    pen = ImageDraw.Draw(sheet)
    for number, name in enumerate(columns):
        pen.text((number * pictures.width // len(columns) + 2, 1), name, fill=_INK)
    return sheet


def _legend(width: int, classes: Sequence[str], palette: NDArray[np.uint8]) -> Image.Image:
    """The class colours with their names, wrapped to `width` pixels."""
    columns = max(1, width // _LEGEND_CELL)
    lines = -(-len(classes) // columns)
    legend = Image.new("RGB", (width, lines * _HEADING + 2), _BACKGROUND)
    pen = ImageDraw.Draw(legend)
    for number, name in enumerate(classes):
        left, top = number % columns * _LEGEND_CELL, number // columns * _HEADING + 2
        pen.rectangle((left + 2, top + 1, left + 11, top + 10), fill=tuple(palette[number]))
        pen.text((left + 15, top), name, fill=_INK)
    return legend
