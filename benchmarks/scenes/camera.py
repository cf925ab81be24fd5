"""Pinhole camera. Camera frame: x right, y up, z towards the viewer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_PARALLEL = 1e-6


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the picture is taken from.

    Attributes:
        position: World position in metres, [3].
        rotation: Rows are the camera's right, up and backward axes in the world, [3, 3]:
            camera vector = rotation · world vector.
        half_width: tan of half the horizontal field of view.
    """

    position: FloatArray
    rotation: FloatArray
    half_width: float

    def focal(self, width: int) -> float:
        """Focal length in pixels of a picture `width` pixels wide (pixels are square)."""
        return 0.5 * width / self.half_width

    def rays(self, height: int, width: int) -> FloatArray:
        """World direction of every pixel's ray, [3, H, W], scaled to unit z-depth.

        A point at camera position + t · direction therefore has z-depth t.
        """
        focal = self.focal(width)
        right = (np.arange(width) + 0.5 - width / 2) / focal
        up = (height / 2 - 0.5 - np.arange(height)) / focal
        local = np.stack(
            [
                np.broadcast_to(right[None, :], (height, width)),
                np.broadcast_to(up[:, None], (height, width)),
                np.full((height, width), -1.0),
            ]
        ).astype(np.float32)
        return off_axis(np.tensordot(self.rotation.T, local, axes=1))

    def to_camera(self, vectors: FloatArray) -> FloatArray:
        """Turns world vectors [3, ...] into the camera frame."""
        return np.tensordot(self.rotation, vectors, axes=1)


def off_axis(directions: FloatArray) -> FloatArray:
    """Replaces vanishing components, so that slabs can be divided by them. Works in place."""
    directions[np.abs(directions) < _PARALLEL] = _PARALLEL
    return directions


def look_at(
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    roll: float,
    field_of_view: float,
) -> Camera:
    """A camera at `position` that looks at `target`.

    Args:
        position: World position in metres.
        target: World point in the picture's middle; not straight above or below the position.
        roll: Turn about the line of sight in radians.
        field_of_view: Horizontal field of view in radians.

    Returns:
        The camera.
    """
    forward = np.asarray(target) - np.asarray(position)
    forward /= np.linalg.norm(forward)
    level = np.cross(forward, (0.0, 1.0, 0.0))
    level /= np.linalg.norm(level)
    upright = np.cross(level, forward)
    cosine, sine = math.cos(roll), math.sin(roll)
    right, up = cosine * level + sine * upright, cosine * upright - sine * level
    rotation = np.stack([right, up, -forward]).astype(np.float32)
    return Camera(np.asarray(position, np.float32), rotation, math.tan(field_of_view / 2))
