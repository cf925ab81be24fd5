"""The two summaries of a multi-task result against single-task baselines.

The literature calls both of them delta, with opposite signs and different weights, so that neither
has this name here: `delta_m` is a drop over all metrics, `delta_p` a gain averaged task by task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, TypeAlias

from mtl.errors import ConfigError

__all__ = ["delta_m", "delta_p", "relative_gain"]

Scores: TypeAlias = Mapping[str, Mapping[str, float]]
Directions: TypeAlias = Mapping[str, Mapping[str, bool]]


def relative_gain(value: float, baseline: float, higher_is_better: bool) -> float:
    """Return by how many per cent a value is better than its baseline.

    100 (-1)^(lower is better) (value - baseline) / |baseline|. The absolute value keeps positive
    for better when the baseline is negative; for the positive baselines of the published tables it
    changes nothing.

    Args:
        value: The measured value. NaN gives NaN.
        baseline: The single-task value, finite and not 0.
        higher_is_better: Direction of the metric.

    Returns:
        Per cent; positive is better, whatever the metric's direction.

    Raises:
        ConfigError: The baseline is 0 or not finite.
    """
    if baseline == 0 or not math.isfinite(baseline):
        raise ConfigError(
            f"baseline: expected a finite number other than 0, got {baseline} (value {value}); "
            "a relative change needs one: correct the baseline or leave this metric out"
        )
    gain = 100.0 * (value - baseline) / abs(baseline)
    return gain if higher_is_better else -gain


def delta_m(values: Scores, baseline: Scores, higher_is_better: Directions) -> float:
    """Return the mean relative drop over all metrics of all tasks, in per cent; lower is better.

    100/K sum_k (-1)^(higher is better) (M_k - B_k) / B_k over the K metrics, whichever task they
    belong to: a task with five metrics weighs five times as much as one with a single metric. Used
    by CAGrad, Nash-MTL and FAMO.

    Args:
        values: Task -> metric -> measured value.
        baseline: Task -> metric -> single-task value, with the same tasks and metrics.
        higher_is_better: Task -> metric -> direction, with at least these tasks and metrics.

    Returns:
        Per cent; negative means better than the single-task models.

    Raises:
        ConfigError: Tasks or metrics are missing, or a baseline is 0 or not finite.
    """
    gains = _gains(values, baseline, higher_is_better)
    return -fmean(gain for task in gains.values() for gain in task.values())


def delta_p(values: Scores, baseline: Scores, higher_is_better: Directions) -> float:
    """Return the mean relative gain, per task first and then over tasks; higher is better.

    100/T sum_t 1/K_t sum_k (-1)^(lower is better) (M_tk - B_tk) / B_tk over the T tasks and the
    K_t metrics of task t: every task weighs the same. Used by LibMTL, DB-MTL and Rep-MTL.

    Args:
        values: Task -> metric -> measured value.
        baseline: Task -> metric -> single-task value, with the same tasks and metrics.
        higher_is_better: Task -> metric -> direction, with at least these tasks and metrics.

    Returns:
        Per cent; positive means better than the single-task models.

    Raises:
        ConfigError: Tasks or metrics are missing, or a baseline is 0 or not finite.
    """
    gains = _gains(values, baseline, higher_is_better)
    return fmean(fmean(task.values()) for task in gains.values())


def _gains(values: Scores, baseline: Scores, directions: Directions) -> dict[str, dict[str, float]]:
    """Return the relative gain of every metric of every task, after checking the arguments."""
    empty = [task for task in values if not values[task]]
    if not values or empty:
        raise ConfigError(
            "values: expected at least one task, each with at least one metric, got "
            f"{'no metric for ' + ', '.join(empty) if empty else 'no task'}; "
            "give the tasks' metrics, or leave out a task that has none"
        )
    _check_covers("baseline", baseline, "values", values)
    _check_covers("values", values, "baseline", baseline)
    _check_covers("higher_is_better", directions, "values", values)
    gains: dict[str, dict[str, float]] = {}
    for task, metrics in values.items():
        gains[task] = {}
        for metric, value in metrics.items():
            try:
                gain = relative_gain(value, baseline[task][metric], directions[task][metric])
            except ConfigError as error:
                raise ConfigError(f"{task}/{metric}: {error}") from None
            gains[task][metric] = gain
    return gains


def _check_covers(
    name: str,
    given: Mapping[str, Mapping[str, Any]],
    reference: str,
    wanted: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise ConfigError if `given` lacks a task or a metric that `wanted` has."""
    missing = [task for task in wanted if task not in given]
    missing += [
        f"{task}/{metric}"
        for task in wanted
        if task in given
        for metric in wanted[task]
        if metric not in given[task]
    ]
    if missing:
        held = [f"{task}/{metric}" for task in given for metric in given[task]]
        raise ConfigError(
            f"{name}: expected every task and metric of {reference}, got "
            f"{', '.join(held) or 'nothing'}; missing: {', '.join(missing)}; add them to {name} or "
            f"leave them out of {reference}"
        )
