"""One labelled picture of one room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.failures import config_error
from benchmarks.scenes.layout import Room, build_room
from benchmarks.scenes.raycast import SHELL_FACES, Hits, cast
from benchmarks.scenes.shading import MaterialTable, albedo_of, shade
from benchmarks.scenes.spec import LABEL, UNLABELLED, VERSION

Mask = NDArray[np.bool_]
Sample = dict[str, NDArray[np.generic]]

SIZE_STEP = 32
_ROOM_TRIES = 8
_LEAST_FURNISHED = 0.22
_LEAST_CLASSES = 6
_LEAST_MEDIAN_DEPTH = 1.2
_CREASE_COSINE = 0.8
_DEPTH_JUMP = 0.08
_GRAZING_COSINE = 0.12
_LOST_ON_WINDOWS = 0.5
_LOST_ON_SCREENS = 0.2
_LOST_ANYWHERE = 0.003
_TOO_SMALL_TO_LABEL = 0.0015
_UNLABELLED_AT_EDGES = 0.25


def draw(
    seed: int, index: int, height: int = 64, width: int = 64, *, sensor: bool = True
) -> Sample:
    """Draws one furnished room: a pure function of `VERSION`, seed, index and size.

    Rooms whose view is nearly empty, or blocked by something close, are drawn again from the same
    random stream.

    Args:
        seed: Data set; 0 or more.
        index: Picture of the data set; 0 or more.
        height: Picture height in pixels, a positive multiple of 32.
        width: Picture width in pixels, a positive multiple of 32.
        sensor: Whether to leave out what a depth camera and annotators miss: depth and normals at
            grazing angles, on windows and screens and at scattered pixels, labels of tiny things
            and of some pixels at edges.

    Returns:
        `image` float32 [3, H, W] in 0..1; `segmentation` int64 [H, W] with indices into `CLASSES`,
        -1 = unlabelled; `depth` float32 [1, H, W], z-depth in metres, 0 = invalid; `normal`
        float32 [3, H, W], unit vectors in the camera frame (x right, y up, z towards the viewer),
        0 = invalid; `edge` float32 [1, H, W], 1 at occlusions and creases; `albedo` float32
        [3, H, W] in 0..1, the reflectance without light.

    Raises:
        ConfigError: (a ValueError) A size is not a positive multiple of 32, or seed or index is
            negative.
    """
    check_request(height, width, seed=seed, index=index)
    rng = np.random.default_rng([VERSION, seed, index])
    for _ in range(_ROOM_TRIES):
        room = build_room(rng)
        hits = cast(room, height, width)
        if _is_worth_showing(hits):
            break
    return render(room, hits, rng, sensor=sensor)


def check_request(height: int, width: int, **natural: int) -> None:
    """Checks a picture size, and that further named numbers are not negative.

    Raises:
        ConfigError: (a ValueError) A value is out of its range.
    """
    for name, value in (("height", height), ("width", width)):
        if value < SIZE_STEP or value % SIZE_STEP:
            raise config_error(
                f"{name}: expected a positive multiple of {SIZE_STEP}, got {value}; "
                f"use for example {max(1, round(value / SIZE_STEP)) * SIZE_STEP}"
            )
    for name, value in natural.items():
        if value < 0:
            raise config_error(f"{name}: expected 0 or more, got {value}; use 0 or a larger number")


def render(room: Room, hits: Hits, rng: np.random.Generator, *, sensor: bool = True) -> Sample:
    """Turns ray hits into a picture with labels; keys and shapes as in `draw`."""
    table = MaterialTable.of(room)
    albedo = albedo_of(hits, table)
    image = shade(room, hits, table, albedo)
    image += np.float32(room.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    edge = find_edges(hits)
    depth, normal, segmentation = hits.depth, room.camera.to_camera(hits.normal), hits.label
    if sensor:
        hole = _sensor_holes(hits, rng)
        depth = np.where(hole, np.float32(0), depth)
        normal = np.where(hole, np.float32(0), normal)
        segmentation = np.where(_missed_by_annotators(hits, edge, rng), UNLABELLED, segmentation)
    return {
        "image": np.clip(image, 0, 1),
        "segmentation": segmentation,
        "depth": depth[None],
        "normal": normal,
        "edge": edge[None].astype(np.float32),
        "albedo": albedo,
    }


def _is_worth_showing(hits: Hits) -> bool:
    """Whether a view holds enough furniture and classes and is not blocked by something close."""
    structure = [LABEL[name] for name in ("wall", "floor", "ceiling")]
    furnished = 1 - np.isin(hits.label, structure).mean()
    classes = np.count_nonzero(np.bincount(hits.label.ravel()))
    return bool(
        furnished > _LEAST_FURNISHED
        and classes >= _LEAST_CLASSES
        and np.median(hits.depth) > _LEAST_MEDIAN_DEPTH
    )


def find_edges(hits: Hits) -> Mask:
    """Pixels next to another body or face, a crease or a jump in depth, [H, W]."""
    edge = np.zeros(hits.depth.shape, dtype=np.bool_)
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
    ):
        cosine = (hits.normal[:, *here] * hits.normal[:, *there]).sum(axis=0)
        jump = np.abs(hits.depth[here] - hits.depth[there])
        border = (
            (hits.instance[here] != hits.instance[there])
            | (cosine < _CREASE_COSINE)
            | (jump > _DEPTH_JUMP * hits.depth[here])
        )
        edge[here] |= border
        edge[there] |= border
    return edge


def _sensor_holes(hits: Hits, rng: np.random.Generator) -> Mask:
    """Pixels at which a depth camera would measure nothing, [H, W]."""
    length = np.sqrt((hits.rays * hits.rays).sum(axis=0))
    facing = -(hits.rays * hits.normal).sum(axis=0) / length
    lost = np.full(hits.depth.shape, _LOST_ANYWHERE)
    lost[hits.label == LABEL["window"]] = _LOST_ON_WINDOWS
    lost[hits.label == LABEL["tv"]] = _LOST_ON_SCREENS
    holes: Mask = (facing < _GRAZING_COSINE) | (rng.random(lost.shape) < lost)
    return holes


def _missed_by_annotators(hits: Hits, edge: Mask, rng: np.random.Generator) -> Mask:
    """Pixels without a segmentation label: tiny things, and some of the pixels at edges, [H, W]."""
    pixels = np.bincount(hits.instance.ravel())
    tiny = pixels < _TOO_SMALL_TO_LABEL * hits.depth.size
    tiny[:SHELL_FACES] = False
    skipped: Mask = edge & (rng.random(edge.shape) < _UNLABELLED_AT_EDGES)
    return skipped | tiny[hits.instance]
