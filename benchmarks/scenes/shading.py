"""Colours of what the rays hit: procedural patterns, a point light with shadows, ambient light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.camera import FloatArray, off_axis
from benchmarks.scenes.layout import Room
from benchmarks.scenes.materials import Material, Pattern
from benchmarks.scenes.raycast import BodyArrays, Hits, IntArray

_ALBEDO_RANGE = (0.02, 1.0)
_FALLOFF = 0.12
_SHADE = 0.15
_BRIGHTNESS = 1.5
_GLOW_BRIGHTNESS = 1.05
_GAMMA = 1.6
_SHADOW_BLOCK = 2
_SHADOW_BIAS = 0.01
_SMALLEST_BLOCKER = 0.12


@dataclass(frozen=True, slots=True)
class MaterialTable:
    """The materials of a room as arrays: its faces first, then every part of every body."""

    colour: FloatArray
    pattern: IntArray
    strength: FloatArray
    scale: FloatArray
    glows: NDArray[np.bool_]

    @classmethod
    def of(cls, room: Room) -> MaterialTable:
        """Collects materials in the order of `raycast.Hits.material`."""
        materials: list[Material] = list(room.shell)
        for body in room.bodies:
            materials.extend(part.material for part in body.parts)
        return cls(
            np.array([material.colour for material in materials], dtype=np.float32),
            np.array([material.pattern for material in materials], dtype=np.int64),
            np.array([material.strength for material in materials], dtype=np.float32),
            np.array([material.scale for material in materials], dtype=np.float32),
            np.array([material.glows for material in materials], dtype=np.bool_),
        )


def albedo_of(hits: Hits, table: MaterialTable) -> FloatArray:
    """Reflectance without light, [3, H, W] in 0.02..1."""
    colour = np.moveaxis(table.colour[hits.material], -1, 0)
    values = pattern_values(
        table.pattern[hits.material],
        hits.texture * table.scale[hits.material],
        hits.material,
    )
    return np.clip(colour * (1 + table.strength[hits.material] * values), *_ALBEDO_RANGE)


def pattern_values(pattern: IntArray, position: FloatArray, seed: IntArray) -> FloatArray:
    """Evaluates procedural patterns.

    Args:
        pattern: Which `Pattern`, [H, W].
        position: Surface coordinates in pattern units, [2, H, W].
        seed: Makes noise of different surfaces differ, [H, W].

    Returns:
        Values in -1..1, [H, W]; 0 where the pattern is plain.
    """
    values = np.zeros(pattern.shape, dtype=np.float32)
    first, second = position
    chosen = pattern == Pattern.STRIPES
    values[chosen] = np.sin(3.1 * first[chosen] + 1.5 * np.sin(0.4 * second[chosen]))
    chosen = pattern == Pattern.CHECKER
    parity = (np.floor(first[chosen] / 2) + np.floor(second[chosen] / 2)) % 2
    values[chosen] = 2 * parity - 1
    chosen = pattern == Pattern.NOISE
    if chosen.any():
        values[chosen] = _value_noise(first[chosen], second[chosen], seed[chosen])
    return values


def _value_noise(first: FloatArray, second: FloatArray, seed: IntArray) -> FloatArray:
    """Smooth noise in -1..1: random values on the integer grid, interpolated between."""
    column, row = np.floor(first).astype(np.int64), np.floor(second).astype(np.int64)
    right, down = first - column, second - row
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    upper = _hash(column, row, seed) * (1 - right) + _hash(column + 1, row, seed) * right
    lower = _hash(column, row + 1, seed) * (1 - right) + _hash(column + 1, row + 1, seed) * right
    noise: FloatArray = (2 * (upper * (1 - down) + lower * down) - 1).astype(np.float32)
    return noise


def _hash(column: IntArray, row: IntArray, seed: IntArray) -> FloatArray:
    """A pseudo-random number in 0..1 for each grid point."""
    mixed = (column * 374761393 + row * 668265263 + seed * 974711) & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0x7FFFFFFF
    return np.divide((mixed ^ (mixed >> 16)) & 0xFFFF, 0xFFFF, dtype=np.float32)


def shade(room: Room, hits: Hits, table: MaterialTable, albedo: FloatArray) -> FloatArray:
    """The picture without noise, [3, H, W] in 0..1.

    radiance = albedo · (ambient · (0.75 + 0.25 n_y) + power · max(0, n·l) / (1 + 0.12 d²) · shadow)
    with the unit direction l and the distance d (metres) to the light; glowing materials show
    their own colour. Exposure and a gamma curve follow.

    Args:
        room: The scene.
        hits: What the pixels see.
        table: The room's materials.
        albedo: Reflectance, [3, H, W].

    Returns:
        The picture.
    """
    point = room.camera.position[:, None, None] + hits.depth * hits.rays
    to_light = np.array(room.light.position, dtype=np.float32)[:, None, None] - point
    squared = (to_light * to_light).sum(axis=0)
    facing = np.maximum((to_light * hits.normal).sum(axis=0), 0) / np.sqrt(squared)
    direct = facing / (1 + _FALLOFF * squared)
    direct *= _SHADE + (1 - _SHADE) * _visibility(room, point, hits.normal)
    ambient = room.light.ambient * (0.75 + 0.25 * hits.normal[1])
    tint = np.array(room.light.colour, dtype=np.float32)[:, None, None]
    radiance = albedo * (ambient + room.light.power * direct * tint) * _BRIGHTNESS
    radiance = np.where(table.glows[hits.material], albedo * _GLOW_BRIGHTNESS, radiance)
    exposed = np.clip(radiance * room.gain, 0, 1) ** np.float32(1 / _GAMMA)
    return exposed.astype(np.float32)


def _visibility(room: Room, point: FloatArray, normal: FloatArray) -> FloatArray:
    """How much of the point light each pixel sees, [H, W] in 0..1, with softened borders.

    One shadow ray is cast for each block of 2 × 2 pixels.
    """
    step = _SHADOW_BLOCK
    start = (point + _SHADOW_BIAS * normal)[:, ::step, ::step]
    rows, columns = start.shape[1:]
    origin = start.reshape(3, -1)
    ray = np.array(room.light.position, dtype=np.float32)[:, None] - origin
    lit = np.ones(rows * columns, dtype=np.bool_)
    for body in room.bodies:
        if body.casts_shadow:
            _block_light(lit, origin, ray, BodyArrays.of(body))
    padded = np.pad(lit.reshape(rows, columns).astype(np.float32), 1, mode="edge")
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    soft = np.divide(neighbours + 2 * padded[1:-1, 1:-1], 6, dtype=np.float32)
    return soft.repeat(step, axis=0).repeat(step, axis=1)


def _block_light(
    lit: NDArray[np.bool_], origin: FloatArray, ray: FloatArray, arrays: BodyArrays
) -> None:
    """Clears `lit` where a part of the body lies between the point and the light."""
    large = arrays.half.max(axis=1) > _SMALLEST_BLOCKER
    if not large.any():
        return
    centre, half = arrays.centre[large], arrays.half[large]
    low, high = (centre - half).min(axis=0), (centre + half).max(axis=0)
    start = arrays.rotation.T @ (origin - arrays.position[:, None])
    inverse = np.reciprocal(off_axis(arrays.rotation.T @ ray))
    middle, reach = (low + high)[None] / 2, (high - low)[None] / 2
    near = np.flatnonzero(lit & _segment_meets(start, inverse, middle, reach))
    if near.size:
        blocked = _segment_meets(start[:, near], inverse[:, near], centre, half)
        lit[near[blocked]] = False


def _segment_meets(
    start: FloatArray, inverse: FloatArray, centre: FloatArray, half: FloatArray
) -> NDArray[np.bool_]:
    """Whether segments from `start` [3, N] along 1 / `inverse` meet any box [boxes, 3], [N]."""
    offset = (centre[:, :, None] - start) * inverse
    reach = half[:, :, None] * np.abs(inverse)
    enter, leave = (offset - reach).max(axis=1), (offset + reach).min(axis=1)
    meets: NDArray[np.bool_] = ((enter < leave) & (leave > 0) & (enter < 1)).any(axis=0)
    return meets
