"""Rigid bodies of boxes and spheres: what stands in a room or hangs on its walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.scenes.materials import Material
from benchmarks.scenes.spec import LABEL

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """One box or sphere in its body's frame, in metres.

    Attributes:
        centre: Middle of the part.
        half: Half of the size along each axis; a sphere repeats its radius.
        material: Surface of the part.
        label: Index into `spec.CLASSES`.
        is_sphere: Whether the part is a sphere and not a box.
    """

    centre: Vector
    half: Vector
    material: Material
    label: int
    is_sphere: bool = False


class Body:
    """Parts that move together.

    In its own frame a body stands on y = 0 with its back towards -z. `position` (metres, of the
    frame's origin) and `yaw` (radians about the upward y axis) put it into the room.

    Attributes:
        parts: Boxes and spheres that the body consists of.
        casts_shadow: Whether light is blocked by it; thin things on walls and floors don't.
    """

    def __init__(self, class_name: str, *, casts_shadow: bool = True) -> None:
        self.class_name = class_name
        self.casts_shadow = casts_shadow
        self.parts: list[Part] = []
        self.position: Vector = (0.0, 0.0, 0.0)
        self.yaw = 0.0

    def box(
        self, centre: Vector, size: Vector, material: Material, class_name: str | None = None
    ) -> None:
        """Adds a box of the given full size; it has the body's class unless one is named."""
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self.parts.append(Part(centre, half, material, LABEL[class_name or self.class_name]))

    def sphere(
        self, centre: Vector, radius: float, material: Material, class_name: str | None = None
    ) -> None:
        """Adds a sphere; it has the body's class unless one is named."""
        label = LABEL[class_name or self.class_name]
        half = (radius, radius, radius)
        self.parts.append(Part(centre, half, material, label, is_sphere=True))

    def bounds(self) -> tuple[Vector, Vector]:
        """Lower and upper corner of the box around all parts, in the body's frame."""
        lows = [[c - h for c, h in zip(p.centre, p.half, strict=True)] for p in self.parts]
        highs = [[c + h for c, h in zip(p.centre, p.half, strict=True)] for p in self.parts]
        low_x, low_y, low_z = (min(values) for values in zip(*lows, strict=True))
        high_x, high_y, high_z = (max(values) for values in zip(*highs, strict=True))
        return (low_x, low_y, low_z), (high_x, high_y, high_z)

    def centred(self) -> Body:
        """Shifts the parts so that the footprint is centred on the origin; returns the body."""
        low, high = self.bounds()
        shift_x, shift_z = (low[0] + high[0]) / 2, (low[2] + high[2]) / 2
        self.parts = [
            Part(
                (part.centre[0] - shift_x, part.centre[1], part.centre[2] - shift_z),
                part.half,
                part.material,
                part.label,
                part.is_sphere,
            )
            for part in self.parts
        ]
        return self

    def add_legs(self, size: Vector, material: Material, thickness: float) -> None:
        """Adds four square legs below the corners of a top of `size` (width, height, depth)."""
        width, height, depth = size
        for side_x in (-1, 1):
            for side_z in (-1, 1):
                corner_x = side_x * (width - thickness) / 2
                corner_z = side_z * (depth - thickness) / 2
                centre = (corner_x, height / 2, corner_z)
                self.box(centre, (thickness, height, thickness), material)


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.uniform() < probability)
