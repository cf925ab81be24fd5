"""Builders of what hangs on walls. The wall is the plane z = 0 of each body; it faces +z."""

from __future__ import annotations

import numpy as np

from benchmarks.scenes.materials import (
    Material,
    Pattern,
    patterned,
    plain,
    random_colour,
    screen,
    vary,
    wood,
)
from benchmarks.scenes.parts import Body


def picture(rng: np.random.Generator) -> Body:
    """A framed picture at eye height."""
    body = Body("picture", casts_shadow=False)
    width, height = rng.uniform(0.35, 1.0), rng.uniform(0.35, 0.85)
    middle = rng.uniform(1.4, 1.65)
    canvas = patterned(
        rng,
        random_colour(rng, (0.2, 0.9)),
        (Pattern.CHECKER, Pattern.NOISE, Pattern.STRIPES),
        (0.2, 0.6),
        (4.0, 12.0),
    )
    body.box((0.0, middle, 0.0125), (width, height, 0.025), wood(rng))
    body.box((0.0, middle, 0.0175), (width * 0.86, height * 0.86, 0.035), canvas)
    return body


def window(rng: np.random.Generator) -> Body:
    """A glowing pane in a white frame with a sill; perhaps divided."""
    body = Body("window", casts_shadow=False)
    width, height, middle = rng.uniform(0.8, 1.7), rng.uniform(0.9, 1.3), rng.uniform(1.45, 1.6)
    sky = (0.72, 0.86, 0.97) if rng.uniform() < 0.75 else (0.3, 0.36, 0.5)
    pane = Material(vary(rng, sky, 0.04), glows=True)
    frame = plain(rng, (0.92, 0.92, 0.92), 0.03)
    body.box((0.0, middle, 0.01), (width, height, 0.02), pane)
    for side in (-1, 1):
        body.box((side * width / 2, middle, 0.025), (0.07, height + 0.07, 0.05), frame)
        body.box((0.0, middle + side * height / 2, 0.025), (width, 0.07, 0.05), frame)
    body.box((0.0, middle - height / 2 - 0.05, 0.05), (width + 0.14, 0.03, 0.1), frame)
    for number in range(1, int(rng.integers(1, 4))):
        offset = 0.0 if number == 1 else rng.choice((-0.25, 0.25)) * height
        size = (0.04, height, 0.04) if number == 1 else (width, 0.04, 0.04)
        body.box((0.0, middle + offset, 0.02), size, frame)
    return body


def wall_tv(rng: np.random.Generator) -> Body:
    """A flat television."""
    body = Body("tv", casts_shadow=False)
    width = rng.uniform(0.9, 1.3)
    middle = rng.uniform(1.2, 1.5)
    body.box((0.0, middle, 0.035), (width, width * 0.57, 0.07), screen(rng))
    return body


def door(rng: np.random.Generator) -> Body:
    """A closed door with its frame: part of the wall to annotators."""
    body = Body("wall", casts_shadow=False)
    width, height = rng.uniform(0.8, 0.95), rng.uniform(1.98, 2.1)
    frame = plain(rng, (0.88, 0.86, 0.82), 0.04)
    leaf = wood(rng) if rng.uniform() < 0.5 else plain(rng, random_colour(rng, (0.0, 0.25)))
    metal = plain(rng, (0.45, 0.44, 0.42), 0.03)
    body.box((0.0, (height + 0.07) / 2, 0.0125), (width + 0.14, height + 0.07, 0.025), frame)
    body.box((0.0, height / 2, 0.0175), (width, height, 0.035), leaf)
    body.box((0.4 * width, 1.0, 0.05), (0.12, 0.03, 0.07), metal)
    return body
