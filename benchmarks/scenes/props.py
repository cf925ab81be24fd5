"""Small and decorative things: what lies on tables and floors, plants, lamps and rugs."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.scenes.materials import (
    Material,
    Pattern,
    fabric,
    patterned,
    plain,
    random_colour,
    wood,
)
from benchmarks.scenes.parts import Body, chance

_TRIES = 6


def scatter(
    body: Body,
    rng: np.random.Generator,
    height: float,
    half_width: float,
    half_depth: float,
    most: int = 3,
) -> None:
    """Puts one to `most` small things on a surface of `body` so that none touches another.

    Args:
        body: Receives the parts.
        rng: Source of randomness.
        height: Height of the surface above the floor, in metres.
        half_width: Half of the surface's extent along x, in metres.
        half_depth: Half of the surface's extent along z, in metres.
        most: Largest number of things.
    """
    taken: list[tuple[float, float, float]] = []
    builders = (_ball, _vase, _carton, _book_pile, _book_pile)
    for _ in range(int(rng.integers(1, most + 1))):
        radius = 0.16
        free_x, free_z = half_width - radius, half_depth - radius
        if free_x <= 0 or free_z <= 0:
            return
        build = builders[int(rng.integers(len(builders)))]
        for _ in range(_TRIES):
            x, z = rng.uniform(-free_x, free_x), rng.uniform(-free_z, free_z)
            if all(math.hypot(x - tx, z - tz) > radius + tr for tx, tz, tr in taken):
                build(body, rng, x, height, z)
                taken.append((x, z, radius))
                break


def _ball(body: Body, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    radius = rng.uniform(0.06, 0.13)
    material = plain(rng, random_colour(rng))
    body.sphere((x, y + radius, z), radius, material, "objects")


def _vase(body: Body, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    radius, neck = rng.uniform(0.06, 0.1), rng.uniform(0.08, 0.16)
    material = plain(rng, random_colour(rng))
    body.sphere((x, y + radius, z), radius, material, "objects")
    body.box((x, y + 1.8 * radius + neck / 2, z), (radius, neck, radius), material, "objects")


def _carton(body: Body, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    width, height = rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.3)
    material = plain(rng, random_colour(rng))
    body.box((x, y + height / 2, z), (width, height, width), material, "objects")


def _book_pile(body: Body, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    for _ in range(int(rng.integers(2, 6))):
        thickness = rng.uniform(0.025, 0.055)
        size = (rng.uniform(0.2, 0.28), thickness, rng.uniform(0.15, 0.22))
        body.box((x, y + thickness / 2, z), size, plain(rng, random_colour(rng)), "books")
        y += thickness


def clutter(rng: np.random.Generator) -> Body:
    """A ball, a carton or a book pile on the floor."""
    body = Body("objects")
    kind = rng.uniform()
    if kind < 0.35:
        radius = rng.uniform(0.12, 0.28)
        body.sphere((0.0, radius, 0.0), radius, fabric(rng))
    elif kind < 0.8:
        width, height, depth = rng.uniform(0.2, 0.5, 3).tolist()
        body.box((0.0, height / 2, 0.0), (width, height, depth), fabric(rng))
    else:
        _book_pile(body, rng, 0.0, 0.0, 0.0)
    return body.centred()


def plant(rng: np.random.Generator) -> Body:
    """A potted plant of 0.7 to 1.4 m."""
    body = Body("objects")
    pot_height, pot_width = rng.uniform(0.2, 0.35), rng.uniform(0.22, 0.34)
    pot = plain(rng, random_colour(rng, (0.1, 0.6)))
    leaves = patterned(rng, (0.16, 0.36, 0.12), (Pattern.NOISE,), (0.3, 0.6), (15.0, 30.0))
    stem = plain(rng, (0.28, 0.2, 0.1))
    crown, reach = rng.uniform(0.45, 0.9), rng.uniform(0.16, 0.26)
    body.box((0.0, pot_height / 2, 0.0), (pot_width, pot_height, pot_width), pot)
    body.box((0.0, pot_height + crown / 2, 0.0), (0.04, crown, 0.04), stem)
    for _ in range(4):
        x, z = rng.uniform(-0.12, 0.12, 2).tolist()
        y = pot_height + crown * rng.uniform(0.6, 1.1)
        body.sphere((x, y, z), reach * rng.uniform(0.6, 1.0), leaves)
    return body.centred()


def floor_lamp(rng: np.random.Generator) -> Body:
    """A standing lamp with a box-shaped shade."""
    body = Body("objects")
    height, shade = rng.uniform(1.3, 1.7), rng.uniform(0.28, 0.42)
    metal = plain(rng, (0.25, 0.25, 0.27))
    body.box((0.0, 0.015, 0.0), (0.28, 0.03, 0.28), metal)
    body.box((0.0, height / 2, 0.0), (0.035, height, 0.035), metal)
    glow = Material(random_colour(rng, (0.05, 0.35), (0.85, 1.0)), glows=chance(rng, 0.5))
    body.box((0.0, height, 0.0), (shade, shade * 0.8, shade), glow)
    return body


def ceiling_lamp(rng: np.random.Generator, room_height: float) -> Body:
    """A lamp that hangs from the ceiling on a cord; it doesn't block its own light."""
    body = Body("objects", casts_shadow=False)
    drop, radius = rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.17)
    cord = plain(rng, (0.15, 0.15, 0.15), 0.02)
    body.box((0.0, room_height - drop / 2, 0.0), (0.025, drop, 0.025), cord)
    glow = Material((0.97, 0.94, rng.uniform(0.75, 0.95)), glows=True)
    body.sphere((0.0, room_height - drop - radius, 0.0), radius, glow)
    return body


def rug(rng: np.random.Generator, half_width: float, half_depth: float) -> Body:
    """A rug: part of the floor to annotators, as in NYUv2."""
    body = Body("floor", casts_shadow=False)
    material = patterned(rng, random_colour(rng), strength=(0.1, 0.4), scale=(2.0, 9.0))
    body.box((0.0, 0.006, 0.0), (2 * half_width, 0.012, 2 * half_depth), material)
    return body


def table_lamp(body: Body, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    """Adds a lamp to the surface of `body` at (x, y, z)."""
    height, shade = rng.uniform(0.2, 0.3), rng.uniform(0.16, 0.24)
    body.box((x, y + height / 2, z), (0.05, height, 0.05), wood(rng), "objects")
    glow = Material(random_colour(rng, (0.05, 0.35), (0.85, 1.0)), glows=chance(rng, 0.5))
    body.box((x, y + height + shade / 2, z), (shade, shade, shade), glow, "objects")
