"""Puts bodies into a room so that none cuts another or a wall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.scenes.parts import Body

_TRIES = 10
_WALL_GAP = 0.03
_FREE_GAP = 0.12
_BODY_GAP = 0.04
_NEAR_WALL = 0.3
_CORNER_GAP = 0.12
_DECAL_GAP = 0.15
WALLS = 4


@dataclass(frozen=True, slots=True)
class Footprint:
    """Rectangle on the floor, turned by `yaw`; lengths in metres."""

    x: float
    z: float
    half_x: float
    half_z: float
    yaw: float

    def axes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Directions (x, z) of the rectangle's sides."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        return (cosine, -sine), (sine, cosine)

    def reach(self, axis_x: float, axis_z: float) -> float:
        """Half of the rectangle's shadow on a unit axis."""
        side, front = self.axes()
        return self.half_x * abs(axis_x * side[0] + axis_z * side[1]) + self.half_z * abs(
            axis_x * front[0] + axis_z * front[1]
        )

    def overlaps(self, other: Footprint, gap: float = 0.0) -> bool:
        """Whether the rectangles are closer than `gap` along every side's direction."""
        dx, dz = other.x - self.x, other.z - self.z
        for axis_x, axis_z in (*self.axes(), *other.axes()):
            distance = abs(dx * axis_x + dz * axis_z)
            if distance >= self.reach(axis_x, axis_z) + other.reach(axis_x, axis_z) + gap:
                return False
        return True

    def distance(self, x: float, z: float) -> float:
        """Distance of a point from the rectangle; 0 inside."""
        side, front = self.axes()
        dx, dz = x - self.x, z - self.z
        out_x = abs(dx * side[0] + dz * side[1]) - self.half_x
        out_z = abs(dx * front[0] + dz * front[1]) - self.half_z
        return math.hypot(max(out_x, 0.0), max(out_z, 0.0))


def footprint(body: Body) -> Footprint:
    """The floor rectangle that the body covers where it stands."""
    low, high = body.bounds()
    half_x, half_z = max(-low[0], high[0]), max(-low[2], high[2])
    return Footprint(body.position[0], body.position[2], half_x, half_z, body.yaw)


class Placer:
    """Collects the bodies of one room of `width` × `height` × `depth` metres.

    Attributes:
        bodies: Everything placed so far.
        footprints: Floor rectangles that are taken; rugs and things on walls take none.
    """

    def __init__(self, width: float, height: float, depth: float) -> None:
        self.width, self.height, self.depth = width, height, depth
        self.bodies: list[Body] = []
        self.furniture: list[Body] = []
        self.footprints: list[Footprint] = []
        self._wall_items: dict[int, list[tuple[float, float, float, float]]] = {}

    def wall_length(self, side: int) -> float:
        """Length in metres of wall `side`: 0 and 2 run along x, 1 and 3 along z."""
        return self.width if side % 2 == 0 else self.depth

    def wall_pose(self, side: int, along: float, away: float) -> tuple[float, float, float]:
        """Position and yaw for a body with its back to wall `side`.

        Args:
            side: Wall 0 (z = 0), 1 (x = 0), 2 (z = depth) or 3 (x = width).
            along: Offset from the wall's middle in metres, to the body's own +x.
            away: Distance of the body's origin from the wall in metres.

        Returns:
            x, z and yaw.
        """
        yaw = side * math.pi / 2
        cosine, sine = round(math.cos(yaw)), round(math.sin(yaw))
        out = away - self.wall_length(side + 1) / 2
        x = self.width / 2 + along * cosine + out * sine
        z = self.depth / 2 - along * sine + out * cosine
        return x, z, yaw

    def fits(self, place: Footprint, wall_gap: float) -> bool:
        """Whether `place` lies inside the walls, by `wall_gap`, and off every other footprint."""
        return self._inside(place, wall_gap) and not any(
            place.overlaps(other, _BODY_GAP) for other in self.footprints
        )

    def _inside(self, place: Footprint, wall_gap: float) -> bool:
        reach_x, reach_z = place.reach(1.0, 0.0) + wall_gap, place.reach(0.0, 1.0) + wall_gap
        return (
            reach_x <= place.x <= self.width - reach_x
            and reach_z <= place.z <= self.depth - reach_z
        )

    def put(self, body: Body, x: float, z: float, yaw: float, wall_gap: float = _WALL_GAP) -> bool:
        """Places the body if it fits there."""
        body.position, body.yaw = (x, 0.0, z), yaw
        place = footprint(body)
        if not self.fits(place, wall_gap - 1e-9):
            return False
        self.bodies.append(body)
        self.furniture.append(body)
        self.footprints.append(place)
        return True

    def against_wall(self, body: Body, rng: np.random.Generator, side: int | None = None) -> bool:
        """Tries places with the body's back to a wall: the one named, or any."""
        low, high = body.bounds()
        for _ in range(_TRIES):
            wall = int(rng.integers(WALLS)) if side is None else side % WALLS
            free = self.wall_length(wall) / 2 - high[0] - _CORNER_GAP
            if free >= 0:
                pose = self.wall_pose(wall, rng.uniform(-free, free), _WALL_GAP - low[2])
                if self.put(body, *pose):
                    return True
        return False

    def anywhere(self, body: Body, rng: np.random.Generator, turn: float | None = None) -> bool:
        """Tries places away from the walls; `turn` is the yaw, or any."""
        for _ in range(_TRIES):
            yaw = rng.uniform(-math.pi, math.pi) if turn is None else turn
            x, z = rng.uniform(0.0, self.width), rng.uniform(0.0, self.depth)
            if self.put(body, x, z, yaw, _FREE_GAP):
                return True
        return False

    def beside(self, body: Body, anchor: Body, right: float, front: float, turn: float) -> bool:
        """Places the body at an offset in the anchor's frame, turned by `turn` against it."""
        cosine, sine = math.cos(anchor.yaw), math.sin(anchor.yaw)
        x = anchor.position[0] + cosine * right + sine * front
        z = anchor.position[2] - sine * right + cosine * front
        return self.put(body, x, z, anchor.yaw + turn)

    def lay(self, body: Body, anchor: Body) -> bool:
        """Lays a rug below the anchor if it fits between the walls; it takes no floor space."""
        body.position, body.yaw = anchor.position, anchor.yaw
        if not self._inside(footprint(body), _WALL_GAP):
            return False
        self.bodies.append(body)
        return True

    def suspend(self, body: Body, x: float, z: float) -> bool:
        """Hangs a lamp from the ceiling unless furniture below is as high as the lamp hangs."""
        body.position = (x, 0.0, z)
        place, bottom = footprint(body), body.bounds()[0][1]
        for other, taken in zip(self.furniture, self.footprints, strict=True):
            if place.overlaps(taken) and other.bounds()[1][1] > bottom - _BODY_GAP:
                return False
        self.bodies.append(body)
        return True

    def hang(self, body: Body, rng: np.random.Generator, side: int) -> bool:
        """Tries places on a wall that neither furniture nor another thing on the wall covers."""
        low, high = body.bounds()
        free = self.wall_length(side) / 2 - high[0] - _CORNER_GAP
        if free < 0 or high[1] > self.height - _CORNER_GAP:
            return False
        taken = [*self._wall_items.get(side, []), *self._furniture_at(side)]
        for _ in range(_TRIES):
            along = rng.uniform(-free, free)
            left, right = along + low[0] - _DECAL_GAP, along + high[0] + _DECAL_GAP
            bottom, top = low[1] - _DECAL_GAP / 2, high[1] + _DECAL_GAP / 2
            if all(right < t[0] or t[1] < left or top < t[2] or t[3] < bottom for t in taken):
                x, z, body.yaw = self.wall_pose(side, along, 0.0)
                body.position = (x, 0.0, z)
                self.bodies.append(body)
                item = (along + low[0], along + high[0], low[1], high[1])
                self._wall_items.setdefault(side, []).append(item)
                return True
        return False

    def _furniture_at(self, side: int) -> list[tuple[float, float, float, float]]:
        """Left, right, bottom and top on wall `side` of the furniture that stands close to it."""
        middle_x, middle_z, yaw = self.wall_pose(side, 0.0, 0.0)
        cosine, sine = math.cos(yaw), math.sin(yaw)
        covered = []
        for body, place in zip(self.furniture, self.footprints, strict=True):
            dx, dz = place.x - middle_x, place.z - middle_z
            along, away = cosine * dx - sine * dz, sine * dx + cosine * dz
            if away - place.reach(sine, cosine) < _NEAR_WALL:
                reach = place.reach(cosine, -sine)
                covered.append((along - reach, along + reach, 0.0, body.bounds()[1][1]))
        return covered
