"""Spoils tasks on purpose, so that the search for outliers has a ground truth on any data."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Corruption = Literal["permute", "negate", "noise"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


def corrupt(
    y: NDArray[np.float64],
    task: NDArray,
    *,
    fraction: float,
    kind: Corruption,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray]:
    """Spoils the targets of some tasks, chosen at random; meant for training targets.

    Args:
        y: Targets [n].
        task: Task label of each row [n].
        fraction: Share of the tasks that are spoilt, rounded to whole tasks.
        kind: `permute` shuffles the targets within the task, `negate` reflects them about the mean
            of all, `noise` replaces them by normal noise of the task's mean and three times its
            standard deviation.
        seed: Every draw is a function of it.

    Returns:
        A changed copy of `y`, and the sorted labels of the spoilt tasks.

    Raises:
        ValueError: `fraction` is not a share, or another `kind`.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: expected a share from 0 to 1.")
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind={kind!r}: expected one of {CORRUPTIONS}.")
    random = np.random.default_rng(seed)
    labels = np.unique(task)
    spoilt = np.sort(random.choice(labels, round(fraction * len(labels)), replace=False))
    return spoil(y, task, spoilt, kind=kind, random=random), spoilt


def spoil(
    y: NDArray[np.float64],
    task: NDArray,
    spoilt: NDArray,
    *,
    kind: Corruption,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Spoils the targets of the tasks that are named; see `corrupt`.

    Args:
        y: Targets [n].
        task: Task label of each row [n].
        spoilt: Labels of the tasks.
        kind: See `corrupt`.
        random: Gives the draws.

    Returns:
        A changed copy of `y`.
    """
    y = np.array(y, dtype=float)
    center = y.mean()
    for label in spoilt:
        rows = np.flatnonzero(task == label)
        own = y[rows]
        if kind == "permute":
            y[rows] = random.permutation(own)
        elif kind == "negate":
            y[rows] = 2 * center - own
        else:
            y[rows] = random.normal(own.mean(), 3 * own.std(), len(own))
    return y
