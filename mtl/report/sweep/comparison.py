"""Runs that may be compared, method by method: same data, protocol and tasks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from mtl.metrics import relative_gain
from mtl.report.sweep.methods import SINGLE
from mtl.report.sweep.runs import Failure, Note, Run


class Metric(NamedTuple):
    """One number of one task."""

    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.task}/{self.name}"


Values = dict[Metric, float]


@dataclass
class Method:
    """All runs of one method.

    Attributes:
        label: Its name.
        values: Seed -> metric -> value on the test data.
        runs: Seed -> runs that the values come from: one, or for `single task` one a task.
        failed: Runs without values.
        deltas: `delta_m` or `delta_p` -> seed -> per cent, where there are single-task values.
        gains: Seed -> `delta_p` with the reference's mean in place of the single-task values.
        rank: Mean over metrics of the rank of its mean; 1 is best.
        time: Median seconds a step, relative to the reference.
        memory: Largest peak memory of a run, in bytes.
    """

    label: str
    values: dict[int, Values] = field(default_factory=lambda: defaultdict(dict))
    runs: dict[int, list[Run]] = field(default_factory=lambda: defaultdict(list))
    failed: list[Failure] = field(default_factory=list)
    deltas: dict[str, dict[int, float]] = field(default_factory=dict)
    gains: dict[int, float] = field(default_factory=dict)
    rank: float | None = None
    time: float | None = None
    memory: int | None = None

    @property
    def single(self) -> bool:
        """Whether this is the row of the single-task runs."""
        return self.label == SINGLE

    def column(self, metric: Metric) -> list[float]:
        """Values of a metric over the seeds that have it."""
        return [values[metric] for values in self.values.values() if metric in values]

    @property
    def means(self) -> Values:
        """Mean over seeds of every metric."""
        metrics = dict.fromkeys(m for values in self.values.values() for m in values)
        return {metric: fmean(self.column(metric)) for metric in metrics}


@dataclass
class Comparison:
    """Methods on one data set, with one protocol and the same tasks.

    Attributes:
        dataset: Name of the data set's configuration.
        protocol: Digest of what the runs have in common.
        tasks: Names of the tasks.
        options: Options of these runs, without those of the method.
        directions: Metric -> whether higher is better; `None` where that is unknown.
        methods: Single task first, then in the order of the runs.
        reference: The method that the others are compared with, if it was run.
        baseline: Single-task values: means of own runs, or published.
        source: Where they came from.
        notes: What was left out.
    """

    dataset: str
    protocol: str
    tasks: tuple[str, ...]
    options: dict[str, str]
    directions: dict[Metric, bool | None]
    methods: list[Method]
    reference: Method | None = None
    baseline: Values = field(default_factory=dict)
    source: str | None = None
    notes: list[Note] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Data set and what sets its protocol apart."""
        options = " ".join(f"{k}={v}" for k, v in self.options.items() if k != "dataset")
        return f"{self.dataset}, {len(self.tasks)} tasks" + (f" ({options})" if options else "")

    @property
    def directed(self) -> dict[Metric, bool]:
        """The metrics that say which of two values is better."""
        return {m: higher for m, higher in self.directions.items() if higher is not None}

    @property
    def contenders(self) -> list[Method]:
        """Methods with values, without the single-task runs."""
        return [method for method in self.methods if method.values and not method.single]

    @property
    def seeds(self) -> list[int]:
        """All seeds that some method was run with."""
        return sorted({s for method in self.methods for s in method.values})

    def gain(self, values: Values, metric: Metric) -> float | None:
        """Per cent by which a value is better than the baseline, or else the reference's mean."""
        base = self.baseline or (self.reference.means if self.reference else {})
        if metric not in values or not base.get(metric) or self.directions.get(metric) is None:
            return None
        return relative_gain(values[metric], base[metric], bool(self.directions[metric]))
