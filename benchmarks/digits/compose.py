"""Splits of single digits, and two-digit composites (the MultiMNIST recipe) made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.digits.sources import Digits
from mtl.errors import ConfigError, DataError


class DigitSplit(NamedTuple):
    """Disjoint parts of a set of digits, each without a test part of its own."""

    train: Digits
    val: Digits
    test: Digits


def split(
    digits: Digits, sizes: Sequence[float | int | None] = (None, 0.1, 0.2), seed: int = 0
) -> DigitSplit:
    """Split single digits, class by class, before any of them are paired.

    The order of drawing is test, val, train: another train size changes neither val nor test.
    Digits with a test part of their own keep it whole as test: then ``sizes[2]`` is not used, and
    the first two divide the main part.

    Args:
        digits: The digits, with or without a test part.
        sizes: Train, val and test size. All whole numbers: digits per class. Any float: fractions
            of each class, 0..1, in sum at most 1. None, once: all that the others leave.
        seed: Seed of the drawing, from 0.

    Returns:
        The parts, each sorted as in ``digits``. A part of size 0 is empty.

    Raises:
        ConfigError: The sizes are not of this form, or ask for more digits than a class has.
    """
    asked = _asked_sizes(sizes)
    if digits.test is not None:
        asked = (*asked[:2], 0)
    rng = np.random.default_rng(seed)
    drawn: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for label in np.unique(digits.labels):
        members = rng.permutation(np.flatnonzero(digits.labels == label))
        counts = _class_counts(asked, len(members), int(label))
        ends = np.cumsum(counts[::-1])
        for part, start, end in zip(drawn, (0, *ends[:-1]), ends, strict=True):
            part.append(members[start:end])
    test, val, train = (digits.take(_sorted_union(part)) for part in drawn)
    return DigitSplit(train, val, test if digits.test is None else digits.test)


def compose_pairs(
    digits: Digits,
    count: int,
    seed: int,
    canvas: int = 36,
    shift: int = 6,
    size: int | None = 28,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Overlay pairs of digits: one at the top left, one shifted right and down.

    The defaults are MultiMNIST (Sener and Koltun, 2018): two 28x28 digits on a 36x36 canvas at
    (0, 0) and (6, 6), the brighter pixel wins, nearest resize to 28x28. MultiDigits is
    ``canvas=12, shift=4, size=None`` with 8x8 digits.

    Over the composites each digit of the main part is used equally often on the left and on the
    right, to within one; its partners are random, and a digit never meets itself (unless it is
    the only one).

    Args:
        digits: The digits to pair; a test part is not used. Split first (`split`), or test digits
            appear in train composites.
        count: Number of composites, from 1.
        seed: Seed of the pairing, from 0.
        canvas: Side of the square canvas in pixels, at least digit side + shift.
        shift: Row and column of the right digit's upper left corner in pixels.
        size: Side S of the returned pictures in pixels; None keeps the canvas.

    Returns:
        Images uint8 [count, S, S], intensities 0..255, and labels int64 [count, 2]: left, right.

    Raises:
        ConfigError: ``count``, ``shift`` or ``size`` is out of range, or the canvas too small.
        DataError: There are no digits.
    """
    side = max(digits.images.shape[1:])
    if count < 1 or shift < 0 or (size is not None and size < 1):
        raise ConfigError(
            "compose_pairs: expected count >= 1, shift >= 0 and size >= 1 or None, "
            f"got count={count}, shift={shift}, size={size}."
        )
    if canvas < side + shift:
        raise ConfigError(
            f"canvas: expected at least {side + shift} pixels (digit {side} + shift {shift}), "
            f"got {canvas}. Enlarge canvas or reduce shift."
        )
    if not len(digits):
        raise DataError("compose_pairs: expected at least one digit, got none. Enlarge the split.")
    left, right = _pair_up(len(digits), count, np.random.default_rng(seed))
    # Resizing commutes with the maximum, so each digit is placed and resized only once.
    images = _place(digits.images, 0, canvas, size)[left]
    np.maximum(images, _place(digits.images, shift, canvas, size)[right], out=images)
    return images, np.stack([digits.labels[left], digits.labels[right]], axis=1)


def _asked_sizes(sizes: Sequence[float | int | None]) -> tuple[float | int | None, ...]:
    """Check the form of ``sizes`` and return it with either fractions or whole numbers only."""
    given = [size for size in sizes if size is not None]
    fractions = any(isinstance(size, float) for size in given)
    if (
        len(sizes) != 3
        or len(given) < 2
        or any(isinstance(size, bool) or not isinstance(size, int | float) for size in given)
        or not all(size >= 0 for size in given)
        or (fractions and sum(given) > 1 + 1e-9)
    ):
        raise ConfigError(
            "sizes: expected (train, val, test) as digits per class (whole numbers >= 0) or as "
            "fractions (floats >= 0 with a sum of at most 1), with None at most once for the "
            f"rest, got {tuple(sizes)}. Example: (None, 0.1, 0.2)."
        )
    return tuple(None if size is None else float(size) if fractions else size for size in sizes)


def _class_counts(asked: tuple[float | int | None, ...], members: int, label: int) -> list[int]:
    """Return how many of a class's ``members`` go to train, val and test."""
    if any(isinstance(size, float) for size in asked):
        rest = max(0.0, 1.0 - sum(size for size in asked if size is not None))
        shares = [rest if size is None else size for size in asked]
        ends = np.rint(members * np.cumsum(shares[::-1])).astype(int)
        return np.diff(ends, prepend=0)[::-1].tolist()
    left = members - sum(int(size) for size in asked if size is not None)
    if left < 0:
        raise ConfigError(
            f"sizes: expected at most {members} digits in all of class {label}, got {asked} "
            "(train, val, test). Reduce the sizes or give fractions."
        )
    return [left if size is None else int(size) for size in asked]


def _sorted_union(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


def _pair_up(
    members: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the digits on the left and on the right, each int64 [count].

    In every round the digits stand in a random circle and, called up in another random order, are
    paired with the next in the circle. Calling them up in circle order would make each composite
    share a digit with the one before.
    """
    order = np.tile(np.arange(members), (-(-count // members), 1))
    left, circle = rng.permuted(order, axis=1), rng.permuted(order, axis=1)
    following = np.empty_like(order)
    np.put_along_axis(following, circle, np.roll(circle, -1, axis=1), axis=1)
    right = np.take_along_axis(following, left, axis=1)
    return left.ravel()[:count], right.ravel()[:count]


def _place(
    images: NDArray[np.uint8], corner: int, canvas: int, size: int | None
) -> NDArray[np.uint8]:
    """Put pictures [n, H, W] at (corner, corner) of empty canvases and resize these (nearest)."""
    count, height, width = images.shape
    placed = np.zeros((count, canvas, canvas), np.uint8)
    placed[:, corner : corner + height, corner : corner + width] = images
    if size is None or size == canvas:
        return placed
    pick = ((np.arange(size) + 0.5) * (canvas / size)).astype(np.int64)
    return placed.take(pick, axis=1).take(pick, axis=2)
