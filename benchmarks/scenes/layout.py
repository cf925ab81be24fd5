"""Draws a furnished room: its size, theme, furniture, decoration, light and viewpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.scenes import decals, furniture, props
from benchmarks.scenes.camera import Camera, look_at
from benchmarks.scenes.materials import Material, Pattern, patterned, plain, random_colour, wood
from benchmarks.scenes.parts import Body, Vector, chance
from benchmarks.scenes.placement import WALLS, Placer, footprint

_CAMERA_TRIES = 40
_BODY_CLEARANCE = 0.35
_WALL_CLEARANCE = 0.35
_TARGET_DISTANCE = (1.5, 3.6)


@dataclass(frozen=True, slots=True)
class Light:
    """A point light and the light that comes from everywhere.

    Attributes:
        position: World position in metres.
        power: Brightness of the point light at no distance.
        ambient: Brightness of the indirect light.
        colour: Tint of the point light, about 1 in each channel.
    """

    position: Vector
    power: float
    ambient: float
    colour: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Room:
    """Everything a picture is rendered from.

    Attributes:
        size: Width, height and depth in metres; the room fills 0..size, y upward.
        shell: Materials of x = 0, x = width, floor, ceiling, z = 0 and z = depth.
        bodies: Furniture and decoration.
        camera: Viewpoint.
        light: Lights.
        gain: Exposure factor.
        noise: Standard deviation of the picture noise.
    """

    size: Vector
    shell: tuple[Material, ...]
    bodies: tuple[Body, ...]
    camera: Camera
    light: Light
    gain: float
    noise: float


def build_room(rng: np.random.Generator) -> Room:
    """Draws one room of a random theme: bedroom, living room, dining room or office."""
    width, depth = rng.uniform(3.2, 5.2), rng.uniform(3.2, 5.6)
    height = rng.uniform(2.4, 3.0)
    placer = Placer(width, height, depth)
    themes: tuple[Callable[[Placer, np.random.Generator], None], ...] = (
        _furnish_bedroom,
        _furnish_living_room,
        _furnish_dining_room,
        _furnish_office,
    )
    themes[int(rng.integers(len(themes)))](placer, rng)
    _add_extras(placer, rng)
    _decorate_walls(placer, rng)
    lamp = (rng.uniform(0.3, 0.7) * width, height - 0.6, rng.uniform(0.3, 0.7) * depth)
    if chance(rng, 0.4):
        placer.suspend(props.ceiling_lamp(rng, height), lamp[0], lamp[2])
    warmth = rng.uniform(-0.06, 0.12)
    light = Light(lamp, rng.uniform(0.7, 1.1), rng.uniform(0.28, 0.45), (1 + warmth, 1, 1 - warmth))
    return Room(
        size=(width, height, depth),
        shell=_shell(rng),
        bodies=tuple(placer.bodies),
        camera=_find_camera(placer, rng),
        light=light,
        gain=rng.uniform(0.8, 1.15),
        noise=rng.uniform(0.005, 0.02),
    )


def _shell(rng: np.random.Generator) -> tuple[Material, ...]:
    """Materials of x = 0, x = width, floor, ceiling, z = 0 and z = depth."""
    tone = random_colour(rng, (0.0, 0.35), (0.5, 0.95))
    papers = (Pattern.PLAIN, Pattern.PLAIN, Pattern.STRIPES, Pattern.NOISE)
    west, east, north, south = (
        patterned(rng, tone, papers, (0.02, 0.12), (3.0, 12.0)) for _ in range(WALLS)
    )
    if chance(rng, 0.5):
        floor = wood(rng)
    else:
        tiles = (Pattern.CHECKER, Pattern.NOISE)
        tile_colour = random_colour(rng, (0.05, 0.5), (0.2, 0.8))
        floor = patterned(rng, tile_colour, tiles, (0.05, 0.25), (1.5, 5.0))
    return west, east, floor, plain(rng, (0.9, 0.9, 0.88), 0.04), north, south


def _furnish_bedroom(placer: Placer, rng: np.random.Generator) -> None:
    bed = furniture.bed(rng)
    if placer.against_wall(bed, rng):
        place = footprint(bed)
        for side in (-1, 1):
            if chance(rng, 0.7):
                stand = furniture.nightstand(rng)
                own = footprint(stand)
                right = side * (place.half_x + own.half_x + 0.06)
                placer.beside(stand, bed, right, own.half_z - place.half_z, 0.0)
        if chance(rng, 0.4):
            placer.lay(props.rug(rng, place.half_x + 0.5, place.half_z * 0.8), bed)
    placer.against_wall(furniture.cabinet(rng), rng)
    if chance(rng, 0.5):
        _add_desk(placer, rng)
    if chance(rng, 0.5):
        placer.against_wall(furniture.shelf(rng), rng)


def _furnish_living_room(placer: Placer, rng: np.random.Generator) -> None:
    side = int(rng.integers(WALLS))
    sofa = furniture.sofa(rng)
    if placer.against_wall(sofa, rng, side):
        low_table = furniture.coffee_table(rng)
        own = footprint(low_table)
        front = footprint(sofa).half_z + own.half_z + rng.uniform(0.3, 0.5)
        placed = placer.beside(low_table, sofa, rng.uniform(-0.2, 0.2), front, 0.0)
        if placed and chance(rng, 0.5):
            placer.lay(props.rug(rng, own.half_x + 0.4, own.half_z + 0.35), low_table)
    placer.against_wall(furniture.tv_stand(rng), rng, side + 2)
    seat = (0.9, 1.0) if chance(rng, 0.5) else (1.4, 2.0)
    placer.against_wall(furniture.sofa(rng, seat), rng, side + 1 + 2 * int(rng.integers(2)))
    placer.against_wall(furniture.shelf(rng), rng)
    if chance(rng, 0.5):
        placer.against_wall(furniture.cabinet(rng), rng)


def _furnish_dining_room(placer: Placer, rng: np.random.Generator) -> None:
    table = furniture.table(rng)
    turn = int(rng.integers(2)) * math.pi / 2 + rng.normal(0.0, 0.1)
    if placer.anywhere(table, rng, turn):
        _add_chairs(placer, rng, table)
    placer.against_wall(furniture.cabinet(rng), rng)
    placer.against_wall(furniture.shelf(rng) if chance(rng, 0.5) else furniture.cabinet(rng), rng)


def _furnish_office(placer: Placer, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 3))):
        _add_desk(placer, rng)
    for _ in range(2):
        placer.against_wall(furniture.shelf(rng), rng)
    if chance(rng, 0.5):
        placer.against_wall(furniture.cabinet(rng), rng)
    if chance(rng, 0.3):
        placer.against_wall(furniture.sofa(rng), rng)


def _add_chairs(placer: Placer, rng: np.random.Generator, table: Body) -> None:
    """Sets equal chairs, two to a long side of the table and one to an end, some left out."""
    place = footprint(table)
    seats = [(x * place.half_x, z, 0.0) for x in (-0.5, 0.5) for z in (-1.0, 1.0)]
    seats += [(0.0, 0.0, x) for x in (-1.0, 1.0)]
    model = int(rng.integers(2**32))
    for right, long_side, end in seats:
        if chance(rng, 0.65):
            chair = furniture.chair(np.random.default_rng(model))
            gap = footprint(chair).half_z + rng.uniform(0.06, 0.25)
            turn = math.pi / 2 * (1 + long_side) if long_side else -math.pi / 2 * end
            offset_x = right if long_side else end * (place.half_x + gap)
            offset_z = long_side * (place.half_z + gap)
            placer.beside(chair, table, offset_x, offset_z, turn + rng.normal(0.0, 0.12))


def _add_desk(placer: Placer, rng: np.random.Generator) -> None:
    desk = furniture.desk(rng)
    if placer.against_wall(desk, rng):
        chair = furniture.chair(rng)
        front = footprint(desk).half_z + footprint(chair).half_z + rng.uniform(0.08, 0.3)
        right = rng.uniform(-0.2, 0.2)
        placer.beside(chair, desk, right, front, math.pi + rng.normal(0.0, 0.3))


def _add_extras(placer: Placer, rng: np.random.Generator) -> None:
    """Adds what any room may have: plants, lamps, chairs and things on the floor."""
    if chance(rng, 0.5):
        placer.against_wall(props.plant(rng), rng)
    if chance(rng, 0.3):
        placer.against_wall(props.floor_lamp(rng), rng)
    if chance(rng, 0.35):
        placer.anywhere(furniture.chair(rng), rng)
    for _ in range(int(rng.integers(1, 5))):
        placer.anywhere(props.clutter(rng), rng)


def _decorate_walls(placer: Placer, rng: np.random.Generator) -> None:
    """Hangs windows, pictures, a television and a door where the walls are free."""
    if chance(rng, 0.6):
        placer.hang(decals.door(rng), rng, int(rng.integers(WALLS)))
    for side in range(WALLS):
        if chance(rng, 0.5):
            placer.hang(decals.window(rng), rng, side)
        for _ in range(int(rng.integers(0, 3))):
            placer.hang(decals.picture(rng), rng, side)
    if chance(rng, 0.35):
        placer.hang(decals.wall_tv(rng), rng, int(rng.integers(WALLS)))


def _find_camera(placer: Placer, rng: np.random.Generator) -> Camera:
    """Looks for a free standpoint from which some furniture is at a distance.

    If none of the tries is free, the one farthest from the furniture is taken.
    """
    best, best_clearance = None, -1.0
    for _ in range(_CAMERA_TRIES):
        x = rng.uniform(_WALL_CLEARANCE, placer.width - _WALL_CLEARANCE)
        z = rng.uniform(_WALL_CLEARANCE, placer.depth - _WALL_CLEARANCE)
        clearance = min((p.distance(x, z) for p in placer.footprints), default=math.inf)
        target_x, target_z = _find_target(placer, rng)
        distance = math.hypot(target_x - x, target_z - z)
        in_range = _TARGET_DISTANCE[0] <= distance <= _TARGET_DISTANCE[1]
        if in_range and clearance > best_clearance:
            best, best_clearance = (x, z, target_x, target_z), clearance
        if in_range and clearance >= _BODY_CLEARANCE:
            break
    x, z, target_x, target_z = best or (0.4, 0.4, placer.width / 2, placer.depth / 2)
    position = (x, rng.uniform(1.15, 1.65), z)
    target = (target_x, rng.uniform(0.5, 1.35), target_z)
    return look_at(position, target, rng.normal(0.0, 0.02), math.radians(rng.uniform(55.0, 70.0)))


def _find_target(placer: Placer, rng: np.random.Generator) -> tuple[float, float]:
    """A point near a piece of furniture, or in the middle part of the room."""
    if placer.furniture and chance(rng, 0.85):
        body = placer.furniture[int(rng.integers(len(placer.furniture)))]
        return body.position[0] + rng.normal(0.0, 0.3), body.position[2] + rng.normal(0.0, 0.3)
    return rng.uniform(0.25, 0.75) * placer.width, rng.uniform(0.25, 0.75) * placer.depth
