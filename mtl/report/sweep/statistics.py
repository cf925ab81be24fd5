"""Intervals, tests and hypervolumes, with as little of our own as possible."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence level of the intervals."""
_RESAMPLES = 9999
_EXACT_UP_TO = 16
"""Seeds up to which all patterns of signs are tried."""

Interval = tuple[float, float]


def interval(values: Sequence[float]) -> Interval | None:
    """Percentile bootstrap interval (95%) of the mean over seeds; `None` for fewer than two.

    `scipy.stats.bootstrap` with 9,999 resamples of a fixed generator. As in Agarwal et al., Deep
    Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021), runs are what
    is resampled, but here a run as a whole: its tasks share a network and are not independent.
    With few seeds such intervals are too narrow: with three they hardly exceed the extremes.
    """
    if len(values) < 2 or not np.all(np.isfinite(values)):
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired differences: how often random signs give as large a mean.

    All 2^n patterns of signs up to n = 16 seeds, so that the smallest possible value is 2 / 2^n;
    65,536 random ones beyond, among which the observed one counts. It is what
    `scipy.stats.permutation_test` computes with `permutation_type="samples"`, 20 times faster.
    """
    values = np.asarray(differences, float)
    means = np.abs(_signs(len(values)) @ values)
    return float(np.mean(means >= np.abs(values.sum()) * (1 - 1e-12)))


@cache
def _signs(count: int) -> np.ndarray:
    """Patterns of signs, `[patterns, count]`; the first is all 1."""
    if count <= _EXACT_UP_TO:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**_EXACT_UP_TO, count))
        bits[0] = 0
    return (1 - 2 * bits).astype(float)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number after Holm (1979), in the given order.

    The i-th smallest of m is multiplied by m - i + 1, and made no smaller than the one before.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def hypervolume(points: np.ndarray) -> float:
    """Area of the part of [0, 1]^2 that some point dominates; both coordinates: higher is better.

    Args:
        points: `[n, 2]`, scaled so that 0 is the worst and 1 the best value.
    """
    area, reached = 0.0, 0.0
    for x, y in sorted(np.clip(points, 0, 1).tolist(), reverse=True):
        area += x * max(0.0, y - reached)
        reached = max(reached, y)
    return area
