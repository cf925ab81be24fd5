"""Surface materials: a base colour, a procedural pattern over it, and how strong the pattern is."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Colour = tuple[float, float, float]

_DARKEST, _BRIGHTEST = 0.03, 0.97
_WOOD_TONES: tuple[Colour, ...] = (
    (0.45, 0.29, 0.16),
    (0.62, 0.44, 0.26),
    (0.30, 0.19, 0.11),
    (0.75, 0.62, 0.45),
    (0.85, 0.82, 0.78),
)


class Pattern(IntEnum):
    """Procedural patterns; `shading.pattern_values` evaluates them."""

    PLAIN = 0
    STRIPES = 1
    CHECKER = 2
    NOISE = 3


@dataclass(frozen=True, slots=True)
class Material:
    """How a surface reflects light.

    Attributes:
        colour: Reflectance of red, green and blue, each in 0..1.
        pattern: Which pattern modulates the colour.
        strength: Modulation: reflectance = colour · (1 + strength · pattern), pattern in -1..1.
        scale: Pattern frequency in 1/metre.
        glows: Shown at its own colour whatever the light: window panes and lamps.
    """

    colour: Colour
    pattern: Pattern = Pattern.PLAIN
    strength: float = 0.0
    scale: float = 1.0
    glows: bool = False


def random_colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.2, 0.8),
    value: tuple[float, float] = (0.25, 0.9),
) -> Colour:
    """Draws a colour of any hue with HSV saturation and value in the given ranges (0..1)."""
    hue = rng.uniform()
    return colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))


def vary(rng: np.random.Generator, colour: Sequence[float], spread: float) -> Colour:
    """Draws a colour near `colour`: a common and a per-channel Gaussian shift of about `spread`."""
    shift = rng.normal(0.0, spread / 2)
    red, green, blue = (
        min(max(base + shift + change, _DARKEST), _BRIGHTEST)
        for base, change in zip(colour, rng.normal(0.0, spread, 3).tolist(), strict=True)
    )
    return red, green, blue


def plain(rng: np.random.Generator, colour: Sequence[float], spread: float = 0.05) -> Material:
    """A pattern-free material near `colour`."""
    return Material(vary(rng, colour, spread))


def patterned(
    rng: np.random.Generator,
    colour: Sequence[float],
    patterns: Sequence[Pattern] = tuple(Pattern),
    strength: tuple[float, float] = (0.05, 0.35),
    scale: tuple[float, float] = (3.0, 14.0),
) -> Material:
    """A material near `colour` with one of `patterns`; strength and scale come from the ranges."""
    pattern = patterns[int(rng.integers(len(patterns)))]
    return Material(vary(rng, colour, 0.05), pattern, rng.uniform(*strength), rng.uniform(*scale))


def fabric(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.1, 0.7),
    value: tuple[float, float] = (0.25, 0.9),
) -> Material:
    """Cloth of any colour and pattern."""
    return patterned(rng, random_colour(rng, saturation, value))


def wood(rng: np.random.Generator) -> Material:
    """Wood from dark to whitewashed, with its grain."""
    tone = _WOOD_TONES[int(rng.integers(len(_WOOD_TONES)))]
    return patterned(rng, tone, (Pattern.STRIPES,), (0.03, 0.15), (6.0, 20.0))


def screen(rng: np.random.Generator) -> Material:
    """The black glass of a television that is switched off."""
    return plain(rng, (0.05, 0.05, 0.06), 0.02)
