"""All that is shown of one comparison."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from mtl.report.sweep.comparison import Comparison, Metric
from mtl.report.sweep.diagnosis import Diagnosis, diagnose, from_cosines
from mtl.report.sweep.series import Bands, bands
from mtl.report.sweep.statistics import Interval, hypervolume, interval
from mtl.report.sweep.tables import Table, tabulate
from mtl.report.sweep.verdict import Verdict, conclude, judge

_MOST_PAIRS = 1000


@dataclass
class Analysis:
    """A comparison with its table, verdicts, series and diagnoses.

    Attributes:
        comparison: The comparison.
        table: Its table.
        verdicts: One a method.
        series: Label -> scalar -> band.
        diagnoses: Label -> what the gradients do.
    """

    comparison: Comparison
    table: Table
    verdicts: list[Verdict]
    series: Bands
    diagnoses: dict[str, Diagnosis]

    @classmethod
    def of(cls, comparison: Comparison) -> Analysis:
        """Computes everything; adds notes to the comparison on files that cannot be read."""
        series = bands(comparison)
        diagnoses = diagnose(comparison)
        for label, own in series.items():
            if label not in diagnoses and from_cosines(own).sentence:
                diagnoses[label] = from_cosines(own)
        return cls(comparison, tabulate(comparison), judge(comparison), series, diagnoses)

    @property
    def conclusion(self) -> str:
        """The verdict in plain sentences."""
        reference = self.comparison.reference
        return conclude(self.verdicts, reference.label if reference else None)

    @cached_property
    def deltas(self) -> dict[str, dict[str, tuple[list[float], Interval | None]]]:
        """`delta_p`, `delta_m`, `gain` -> label -> values of the seeds, and their interval."""
        found: dict[str, dict[str, tuple[list[float], Interval | None]]] = defaultdict(dict)
        for method in self.comparison.methods:
            own = dict(method.deltas)
            if method.gains and not own:
                own["gain"] = method.gains
            for name, values in own.items():
                seeds = list(values.values())
                found[name][method.label] = seeds, interval(seeds)
        return found

    @property
    def base(self) -> str:
        """What gains of single metrics are relative to."""
        reference = self.comparison.reference
        beside = reference.label if reference else "nothing"
        return "the single tasks" if self.comparison.baseline else beside

    def pairs(self) -> list[tuple[Metric, Metric]]:
        """Pairs of metrics of different tasks; of many, only the first metric of each task."""
        directed = list(self.comparison.directed)
        found = [(a, b) for a, b in combinations(directed, 2) if a.task != b.task]
        if len(found) > _MOST_PAIRS:
            first = list({metric.task: metric for metric in reversed(directed)}.values())[::-1]
            found = list(combinations(first, 2))[:_MOST_PAIRS]
        return found

    def volumes(self, first: Metric, second: Metric) -> dict[str, float]:
        """Label -> hypervolume of its seeds in the box from the worst to the best value of all."""
        found = self.comparison
        signs = np.array([1 if found.directed[m] else -1 for m in (first, second)])
        points = {
            method.label: signs
            * np.array(
                [
                    [v[first], v[second]]
                    for v in method.values.values()
                    if {first, second} <= v.keys()
                ]
            )
            for method in found.contenders
        }
        points = {label: own for label, own in points.items() if own.size}
        if not points:
            return {}
        every = np.concatenate(list(points.values()))
        low, size = every.min(0), np.ptp(every, axis=0)
        if not size.all():
            return {}
        return {label: hypervolume((own - low) / size) for label, own in points.items()}
