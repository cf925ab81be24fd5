"""Finds what every pixel of a picture sees: one ray a pixel against the room, boxes and spheres.

All pictures are arrays of planes: [H, W] or [channels, H, W]. Each part of a body is tested only
within the rectangle of pixels that it projects to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.camera import Camera, FloatArray, off_axis
from benchmarks.scenes.layout import Room
from benchmarks.scenes.parts import Body
from benchmarks.scenes.spec import LABEL

IntArray = NDArray[np.int64]

SHELL_FACES = 6
"""Instances and materials below this number are the room's own faces."""

_SHELL_LABELS = np.array(
    [LABEL[name] for name in ("wall", "wall", "floor", "ceiling", "wall", "wall")]
)
_NEAREST = 0.05
_CORNERS = np.array(
    [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32
)
_TEXTURE_AXES = ((2, 1), (0, 2), (0, 1))


@dataclass(frozen=True, slots=True)
class Hits:
    """What each pixel's ray meets first.

    Attributes:
        rays: World directions with unit z-depth, [3, H, W].
        depth: z-depth in metres, [H, W].
        normal: World normal, towards the viewer's side, [3, H, W].
        label: Index into `spec.CLASSES`, [H, W].
        instance: Face of the room (below `SHELL_FACES`) or body, [H, W].
        material: Index into the room's materials (`shading.MaterialTable`), [H, W].
        texture: Surface coordinates in metres, [2, H, W].
    """

    rays: FloatArray
    depth: FloatArray
    normal: FloatArray
    label: IntArray
    instance: IntArray
    material: IntArray
    texture: FloatArray


@dataclass(frozen=True, slots=True)
class BodyArrays:
    """A body's parts as arrays: centres and half sizes [parts, 3] in its own frame."""

    centre: FloatArray
    half: FloatArray
    rotation: FloatArray
    position: FloatArray

    @classmethod
    def of(cls, body: Body) -> BodyArrays:
        """Collects the parts of `body`."""
        return cls(
            np.array([part.centre for part in body.parts], dtype=np.float32),
            np.array([part.half for part in body.parts], dtype=np.float32),
            turn_about_y(body.yaw),
            np.array(body.position, dtype=np.float32),
        )

    def to_local(self, point: FloatArray) -> FloatArray:
        """World points [..., 3] in the body's frame."""
        local: FloatArray = np.matmul(point - self.position, self.rotation)
        return local


def turn_about_y(yaw: float) -> FloatArray:
    """Matrix [3, 3] from a frame turned by `yaw` about the upward axis to the world."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], dtype=np.float32)


def cast(room: Room, height: int, width: int) -> Hits:
    """Casts one ray through the middle of every pixel.

    Args:
        room: The scene.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Returns:
        The first hit of every ray; inside a closed room every ray has one.
    """
    hits = _cast_shell(room, room.camera.rays(height, width))
    first_material = SHELL_FACES
    for number, body in enumerate(room.bodies):
        arrays = BodyArrays.of(body)
        windows = _screen_windows(arrays, room.camera, height, width)
        if (windows[:, 0] < windows[:, 1]).any():
            _cast_body(hits, room.camera, body, arrays, windows, SHELL_FACES + number)
            visible = hits.material < 0
            hits.material[visible] += first_material + len(body.parts)
        first_material += len(body.parts)
    return hits


def _cast_shell(room: Room, rays: FloatArray) -> Hits:
    """Hits on the room's faces, seen from inside."""
    origin = room.camera.position[:, None, None]
    size = np.array(room.size, dtype=np.float32)[:, None, None]
    leave = (np.where(rays > 0, size, np.float32(0)) - origin) / rays
    axis = leave.argmin(axis=0)
    depth = leave.min(axis=0)
    on_axis = np.arange(3)[:, None, None] == axis
    face = 2 * axis + (np.take_along_axis(rays, axis[None], axis=0)[0] > 0)
    point = origin + depth * rays
    return Hits(
        rays=rays,
        depth=depth,
        normal=np.where(on_axis, -np.sign(rays), np.float32(0)),
        label=_SHELL_LABELS[face],
        instance=face.copy(),
        material=face,
        texture=_texture_coordinates(point, axis),
    )


def _texture_coordinates(point: FloatArray, axis: IntArray) -> FloatArray:
    """Surface coordinates [2, ...] of points [3, ...] on planes at right angles to `axis`."""
    first = np.where(axis == 0, point[2], point[0])
    second = np.where(axis == 1, point[2], point[1])
    return np.stack([first, second])


def _screen_windows(arrays: BodyArrays, camera: Camera, height: int, width: int) -> IntArray:
    """Pixel rectangle of every part: first row, end row, first column, end column, [parts, 4].

    Invisible parts get an empty rectangle, parts across the image plane the whole picture.
    """
    corners = arrays.centre[:, None] + _CORNERS * arrays.half[:, None]
    offset = camera.rotation @ (arrays.position - camera.position)
    seen = corners @ (camera.rotation @ arrays.rotation).T + offset
    depth = -seen[..., 2]
    focal = camera.focal(width) / np.maximum(depth, _NEAREST)
    column, row = width / 2 + seen[..., 0] * focal, height / 2 - seen[..., 1] * focal
    windows = np.stack(
        [row.min(1) - 1, row.max(1) + 2, column.min(1) - 1, column.max(1) + 2], axis=1
    )
    windows[(depth < _NEAREST).any(1)] = (0, height, 0, width)
    windows = np.clip(windows, 0, (height, height, width, width)).astype(np.int64)
    empty = (depth < _NEAREST).all(1) | (windows[:, 2] >= windows[:, 3])
    windows[empty] = 0
    return windows


def _cast_body(
    hits: Hits,
    camera: Camera,
    body: Body,
    arrays: BodyArrays,
    windows: IntArray,
    instance: int,
) -> None:
    """Updates `hits` where a part of the body is nearer.

    Materials are written as part − number of parts, so that they are negative until the caller
    adds the body's offset.
    """
    local = off_axis(np.tensordot(arrays.rotation.T, hits.rays, axes=1))
    inverse = np.reciprocal(local)
    origins = arrays.to_local(camera.position) - arrays.centre
    for index in np.flatnonzero(windows[:, 0] < windows[:, 1]).tolist():
        row, end_row, column, end_column = windows[index].tolist()
        window = np.s_[row:end_row, column:end_column]
        part = body.parts[index]
        search = _hit_sphere if part.is_sphere else _hit_box
        across = local if part.is_sphere else inverse
        entry = search(across[:, *window], origins[index], arrays.half[index])
        hit = (entry > _NEAREST) & (entry < hits.depth[window])
        if not hit.any():
            continue
        depth, direction = entry[hit], local[:, *window][:, hit]
        point = origins[index][:, None] + depth * direction
        describe = _sphere_surface if part.is_sphere else _box_surface
        normal, texture = describe(point, direction, arrays.half[index])
        hits.depth[window][hit] = depth
        hits.normal[:, *window][:, hit] = arrays.rotation @ normal
        hits.texture[:, *window][:, hit] = texture
        hits.label[window][hit] = part.label
        hits.instance[window][hit] = instance
        hits.material[window][hit] = index - len(body.parts)


def _hit_box(inverse: FloatArray, origin: FloatArray, half: FloatArray) -> FloatArray:
    """Ray parameter at which rays enter a box around 0, [H, W]; infinite if they miss it."""
    middle = -origin[:, None, None] * inverse
    reach = half[:, None, None] * np.abs(inverse)
    enter, leave = (middle - reach).max(axis=0), (middle + reach).min(axis=0)
    return np.where(enter < leave, enter, np.float32(np.inf))


def _box_surface(
    point: FloatArray, direction: FloatArray, half: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Outward normals [3, N] and surface coordinates [2, N] of points on a box."""
    axis = (np.abs(point) / half[:, None]).argmax(axis=0)
    on_axis = np.arange(3)[:, None] == axis
    normal = np.where(on_axis, -np.sign(direction), np.float32(0))
    return normal, _texture_coordinates(point, axis)


def _hit_sphere(direction: FloatArray, origin: FloatArray, half: FloatArray) -> FloatArray:
    """Ray parameter at which rays enter a sphere around 0, [H, W]; infinite if they miss it."""
    squared = (direction * direction).sum(axis=0)
    along = (origin[:, None, None] * direction).sum(axis=0)
    discriminant = along * along - squared * (origin @ origin - half[0] * half[0])
    root = np.sqrt(np.maximum(discriminant, 0))
    return np.where(discriminant > 0, (-along - root) / squared, np.float32(np.inf))


def _sphere_surface(
    point: FloatArray, _direction: FloatArray, half: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Outward normals [3, N] and surface coordinates [2, N] of points on a sphere."""
    normal = point / np.linalg.norm(point, axis=0)
    around = np.arctan2(normal[0], normal[2]) * half[0]
    return normal, np.stack([around, point[1]])
