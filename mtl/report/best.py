"""The epoch that was best by the gain over single tasks, as LibMTL reports it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mtl.metrics import delta_p
from mtl.metrics.delta import Directions, Scores


def best_epoch(
    rows: Iterable[Mapping[str, float]], baseline: Scores, higher_is_better: Directions
) -> dict[str, Any] | None:
    """The epoch with the largest `delta_p` on the validation data.

    Where these are the test data, the choice has seen them: the value is larger than that of a
    fixed epoch even if all epochs are equally good.

    Args:
        rows: The history, whose validations have `val/<metric>/<task>`.
        baseline: Task -> metric -> single-task value.
        higher_is_better: Task -> metric -> direction, for every value that counts.

    Returns:
        `epoch` (counted from 0, as in the history), `delta_p` in percent, and the `metrics`, task
        -> metric -> value. `None` if no epoch was validated with finite values.
    """
    found: list[dict[str, Any]] = []
    for row in rows:
        scores = {
            task: {key: row.get(f"val/{key}/{task}", math.nan) for key in keys}
            for task, keys in higher_is_better.items()
        }
        if all(math.isfinite(value) for own in scores.values() for value in own.values()):
            gain = delta_p(scores, baseline, higher_is_better)
            found.append({"epoch": int(row["epoch"]), "delta_p": gain, "metrics": scores})
    return max(found, key=lambda epoch: epoch["delta_p"], default=None)
