"""What was recorded during training, thinned, and averaged over seeds."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl.errors import DataError
from mtl.report.sweep.comparison import Comparison, Method
from mtl.report.sweep.runs import Note, Run

FILE = "history.csv"
_KEPT = ("val/", "train/loss/", "balancer/weight/", "cosine/")
_BINS = 200
_BUDGET = 120_000
"""Points of all series together; a page with them stays below 5 MB."""


class Points(NamedTuple):
    """A scalar of one run."""

    steps: np.ndarray
    values: np.ndarray
    negative: float
    """Share of the recorded values below 0."""


@dataclass(frozen=True)
class Band:
    """A scalar over training, of all seeds of a method.

    Attributes:
        steps: Optimizer steps, `[n]`.
        mean: Mean over seeds, `[n]`.
        deviation: Standard deviation over seeds, `[n]`; 0 with one seed.
        negative: Share of all recorded values below 0.
    """

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    negative: float


Bands = dict[str, dict[str, Band]]


def read_history(path: Path) -> dict[str, Points]:
    """Steps and values of every scalar that the report shows, each in at most 200 means.

    Raises:
        DataError: The file is not such a table.
    """
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
        steps = np.array([float(step) for step in columns.get("step", ())])
        return {
            name: _thin(steps, texts) for name, texts in columns.items() if name.startswith(_KEPT)
        }
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not the history of a run: {error}.") from error


def _thin(steps: np.ndarray, texts: tuple[str, ...]) -> Points:
    values = np.array([float(text) if text else np.nan for text in texts])
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    negative = float((values < 0).mean()) if len(values) else 0.0
    return Points(_means(steps, _BINS), _means(values, _BINS), negative)


def _means(values: np.ndarray, bins: int) -> np.ndarray:
    """Means of consecutive groups of points, at most `bins` of them."""
    if len(values) <= bins:
        return values
    starts = np.linspace(0, len(values), bins, endpoint=False).astype(int)
    return np.add.reduceat(values, starts) / np.diff([*starts, len(values)])


def bands(comparison: Comparison) -> Bands:
    """Series of every method: label -> scalar -> band.

    Runs of one protocol record at the same steps; where they do not, values are interpolated
    within each run and the band ends with the shortest.
    """
    found: Bands = {}
    for method in comparison.methods:
        own = _band_of(method, comparison)
        if own:
            found[method.label] = own
    total = sum(len(band.steps) for own in found.values() for band in own.values())
    count = sum(len(own) for own in found.values())
    if total > _BUDGET:
        limit = max(10, _BUDGET // count)
        found = {
            k: {name: _shorter(b, limit) for name, b in own.items()} for k, own in found.items()
        }
    return found


def _band_of(method: Method, comparison: Comparison) -> dict[str, Band]:
    collected: dict[str, list[Points]] = defaultdict(list)
    for run in (run for runs in method.runs.values() for run in runs):
        for name, points in _history(run, comparison).items():
            if len(points.steps):
                collected[name].append(points)
    return {name: _merge(runs) for name, runs in collected.items()}


def _history(run: Run, comparison: Comparison) -> Mapping[str, Points]:
    path = run.folder / FILE
    if not path.is_file():
        return {}
    try:
        return read_history(path)
    except DataError as error:
        comparison.notes.append(Note("curves", f"{error} The run is not in the curves."))
        return {}


def _merge(runs: list[Points]) -> Band:
    steps = runs[0].steps
    if all(np.array_equal(steps, run.steps) for run in runs):
        values = np.stack([run.values for run in runs])
    else:
        steps = max((run.steps for run in runs), key=len)
        steps = steps[steps <= min(run.steps[-1] for run in runs)]
        values = np.stack([np.interp(steps, run.steps, run.values) for run in runs])
    deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    negative = float(np.mean([run.negative for run in runs]))
    return Band(steps, values.mean(0), deviation, negative)


def _shorter(band: Band, limit: int) -> Band:
    steps, mean, deviation = (_means(x, limit) for x in (band.steps, band.mean, band.deviation))
    return Band(steps, mean, deviation, band.negative)
