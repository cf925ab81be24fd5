"""Intervals, tests and hypervolumes, with as little of our own as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence level of the intervals."""
_RESAMPLES = 9999
_EXACT_UP_TO = 2**16
"""Sign patterns that are all tried: up to 16 seeds."""

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

    All 2^n patterns of signs up to n = 16 seeds, 65,536 random ones beyond
    (`scipy.stats.permutation_test`). The smallest possible value is 2 / 2^n.
    """
    if not np.any(differences):
        return 1.0
    return float(
        stats.permutation_test(
            (np.asarray(differences, float),),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=_EXACT_UP_TO,
            rng=np.random.default_rng(0),
        ).pvalue
    )


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
