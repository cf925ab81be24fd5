"""Builders of furniture. Each returns a body on the floor with its back towards -z."""

from __future__ import annotations

import numpy as np

from benchmarks.scenes.materials import Material, fabric, plain, random_colour, screen, vary, wood
from benchmarks.scenes.parts import Body, chance
from benchmarks.scenes.props import scatter, table_lamp

_SCREEN_ASPECT = 0.56


def bed(rng: np.random.Generator) -> Body:
    """A single or double bed with headboard, blanket and pillows."""
    body = Body("bed")
    width, depth, height = rng.uniform(1.0, 1.9), rng.uniform(1.9, 2.1), rng.uniform(0.4, 0.58)
    frame, sheet = wood(rng), plain(rng, (0.86, 0.86, 0.84))
    blanket = fabric(rng, (0.05, 0.6), (0.4, 0.95))
    body.box((0.0, 0.12, 0.0), (width, 0.24, depth), frame)
    body.box((0.0, (height + 0.2) / 2, 0.0), (width - 0.04, height - 0.2, depth - 0.04), sheet)
    cover = rng.uniform(0.6, 0.8) * depth
    body.box((0.0, height / 2 + 0.12, (depth - cover) / 2), (width, height - 0.2, cover), blanket)
    board = height * rng.uniform(1.6, 2.3)
    body.box((0.0, board / 2, -depth / 2 - 0.04), (width + 0.08, board, 0.08), frame)
    for offset in (-0.25, 0.25) if width > 1.35 else (0.0,):
        centre = (offset * width, height + 0.06, -depth / 2 + 0.3)
        body.box(centre, (min(0.38 * width, 0.65), 0.13, 0.38), plain(rng, (0.88, 0.88, 0.86)))
    return body.centred()


def sofa(rng: np.random.Generator, width: tuple[float, float] = (1.4, 2.4)) -> Body:
    """A sofa with armrests, seat cushions and perhaps loose cushions."""
    body = Body("sofa")
    full, depth, seat = rng.uniform(*width), rng.uniform(0.8, 1.0), rng.uniform(0.38, 0.46)
    cover = fabric(rng, (0.05, 0.7), (0.2, 0.85))
    back, arm = rng.uniform(0.75, 0.95), rng.uniform(0.14, 0.2)
    inside = full - 2 * arm
    body.box((0.0, 0.15, 0.0), (full, 0.3, depth), cover)
    body.box((0.0, back / 2, -depth / 2 + 0.11), (full, back, 0.22), cover)
    for side in (-1, 1):
        centre = (side * (full - arm) / 2, seat * 0.7, 0.0)
        body.box(centre, (arm, seat * 1.4, depth), cover)
    seats = max(1, round(inside / 0.65))
    for number in range(seats):
        x = ((number + 0.5) / seats - 0.5) * inside
        cushion = Material(vary(rng, cover.colour, 0.015), cover.pattern, cover.strength)
        size = (inside / seats - 0.02, seat - 0.3, depth - 0.2)
        body.box((x, (seat + 0.3) / 2, 0.1), size, cushion)
        if chance(rng, 0.35):
            body.box((x, seat + 0.17, -depth / 2 + 0.29), (0.38, 0.34, 0.13), fabric(rng))
    return body.centred()


def chair(rng: np.random.Generator) -> Body:
    """A chair with four legs and a straight or slatted back."""
    body = Body("chair")
    width, seat = rng.uniform(0.4, 0.52), rng.uniform(0.43, 0.5)
    material = wood(rng) if chance(rng, 0.55) else fabric(rng)
    back = rng.uniform(0.38, 0.58)
    body.box((0.0, seat, 0.0), (width, 0.06, width), material)
    body.add_legs((width, seat, width), material, 0.045)
    behind = -width / 2 + 0.025
    if chance(rng, 0.5):
        body.box((0.0, seat + back / 2, behind), (width, back, 0.05), material)
    else:
        for side in (-1, 1):
            x = side * (width - 0.05) / 2
            body.box((x, seat + back / 2, behind), (0.05, back, 0.05), material)
        for level in (0.55, 0.9):
            body.box((0.0, seat + back * level, behind), (width, 0.12, 0.04), material)
    return body.centred()


def table(
    rng: np.random.Generator,
    width: tuple[float, float] = (1.0, 1.8),
    height: tuple[float, float] = (0.7, 0.78),
) -> Body:
    """A table on four legs with small things on it."""
    body = Body("table")
    full, depth, top = rng.uniform(*width), rng.uniform(0.6, 0.95), rng.uniform(*height)
    material = wood(rng) if chance(rng, 0.75) else plain(rng, random_colour(rng, (0.0, 0.3)))
    body.box((0.0, top - 0.025, 0.0), (full, 0.05, depth), material)
    body.add_legs((full - 0.06, top - 0.05, depth - 0.06), material, rng.uniform(0.05, 0.09))
    scatter(body, rng, top, full / 2, depth / 2, most=4)
    return body.centred()


def coffee_table(rng: np.random.Generator) -> Body:
    """A low table for the front of a sofa."""
    return table(rng, (0.8, 1.2), (0.38, 0.48))


def desk(rng: np.random.Generator) -> Body:
    """A desk with a monitor and perhaps a drawer block."""
    body = Body("table")
    width, depth, top = rng.uniform(1.1, 1.7), rng.uniform(0.6, 0.8), rng.uniform(0.7, 0.76)
    material = wood(rng)
    body.box((0.0, top - 0.02, 0.0), (width, 0.04, depth), material)
    body.add_legs((width, top - 0.04, depth), material, 0.06)
    if chance(rng, 0.6):
        drawers = (width / 2 - 0.22, (top - 0.05) / 2, 0.0)
        body.box(drawers, (0.38, top - 0.05, depth * 0.9), material)
    black, screen_width = screen(rng), rng.uniform(0.45, 0.65)
    screen_height = screen_width * _SCREEN_ASPECT
    x, z = rng.uniform(-0.15, 0.15) * width, -depth / 2 + 0.18
    body.box((x, top + 0.06, z), (0.16, 0.12, 0.12), black, "tv")
    centre = (x, top + 0.1 + screen_height / 2, z + 0.03)
    body.box(centre, (screen_width, screen_height, 0.04), black, "tv")
    if chance(rng, 0.5):
        table_lamp(body, rng, -width / 2 + 0.15, top, z)
    return body.centred()


def cabinet(rng: np.random.Generator) -> Body:
    """A sideboard or wardrobe with doors; things stand on a low one."""
    body = Body("furniture")
    width, depth = rng.uniform(0.6, 1.4), rng.uniform(0.35, 0.6)
    height = rng.uniform(0.7, 1.2) if chance(rng, 0.5) else rng.uniform(1.6, 2.1)
    material, metal = wood(rng), plain(rng, (0.5, 0.5, 0.52))
    body.box((0.0, height / 2, 0.0), (width, height, depth), material)
    doors = int(rng.integers(1, 4))
    for number in range(doors):
        x = ((number + 0.5) / doors - 0.5) * width
        colour = vary(rng, material.colour, 0.02)
        front = Material(colour, material.pattern, material.strength, material.scale)
        size = (width / doors * 0.92, height * 0.93, 0.03)
        body.box((x, height / 2, depth / 2), size, front)
        handle = (x + width / doors * 0.36, height * 0.55, depth / 2 + 0.025)
        body.box(handle, (0.025, 0.14, 0.03), metal)
    if height < 1.3:
        scatter(body, rng, height, width / 2, depth / 2)
    return body.centred()


def nightstand(rng: np.random.Generator) -> Body:
    """A small chest for the side of a bed, with a lamp or another thing on it."""
    body = Body("furniture")
    width, height, depth = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.6), rng.uniform(0.35, 0.45)
    material = wood(rng)
    body.box((0.0, height / 2, 0.0), (width, height, depth), material)
    for level in (0.3, 0.72):
        size = (width * 0.88, height * 0.34, 0.025)
        body.box((0.0, height * level, depth / 2), size, material)
    if chance(rng, 0.6):
        table_lamp(body, rng, 0.0, height, 0.0)
    else:
        scatter(body, rng, height, width / 2, depth / 2, most=1)
    return body.centred()


def shelf(rng: np.random.Generator) -> Body:
    """An open shelf with rows of books and a few other things."""
    body = Body("furniture")
    width, depth, height = rng.uniform(0.7, 1.3), rng.uniform(0.26, 0.35), rng.uniform(1.2, 2.1)
    material = wood(rng)
    body.box((0.0, height / 2, -depth / 2), (width, height, 0.03), material)
    for side in (-1, 1):
        body.box((side * width / 2, height / 2, 0.0), (0.04, height, depth), material)
    boards = int(rng.integers(3, 6))
    spacing = (height - 0.08) / boards
    for number in range(boards + 1):
        level = 0.05 + number * spacing
        body.box((0.0, level, 0.0), (width, 0.04, depth), material)
        if number < boards and chance(rng, 0.85):
            _fill_board(body, rng, level + 0.02, (width, spacing, depth))
    return body.centred()


def _fill_board(
    body: Body, rng: np.random.Generator, level: float, size: tuple[float, float, float]
) -> None:
    """Stands blocks of books on a shelf board; `size` is the board's width, headroom and depth."""
    width, headroom, depth = size
    left = -width / 2 + 0.04
    while left < width / 2 - 0.14:
        block, height = rng.uniform(0.05, 0.14), rng.uniform(0.5, 0.82) * headroom
        if chance(rng, 0.85):
            centre = (left + block / 2, level + height / 2, 0.0)
            colour = plain(rng, random_colour(rng))
            body.box(centre, (block * 0.95, height, depth * 0.7), colour, "books")
        left += block


def tv_stand(rng: np.random.Generator) -> Body:
    """A television on a low sideboard."""
    body = Body("furniture")
    width, height, depth = rng.uniform(1.1, 1.7), rng.uniform(0.4, 0.55), rng.uniform(0.38, 0.48)
    screen_width, black = rng.uniform(0.8, 1.1), screen(rng)
    material = wood(rng)
    body.box((0.0, height / 2, 0.0), (width, height, depth), material)
    for side in (-1, 1):
        size = (width * 0.45, height * 0.8, 0.025)
        body.box((side * width / 4, height / 2, depth / 2), size, material)
    body.box((0.0, height + 0.04, -0.05), (0.3, 0.08, 0.18), black, "tv")
    screen_height = screen_width * _SCREEN_ASPECT
    centre = (0.0, height + 0.07 + screen_height / 2, -0.05)
    body.box(centre, (screen_width, screen_height, 0.05), black, "tv")
    return body.centred()
