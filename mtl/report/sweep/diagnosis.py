"""What the tasks' gradients do to each other, in words."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from mtl.errors import DataError
from mtl.report.sweep.comparison import Comparison, Method
from mtl.report.sweep.runs import Note
from mtl.report.sweep.series import Band

FILE = "diagnosis.csv"
ALL = "all"
_DOMINANT = 2.0
_RARE = 0.05

Pair = tuple[str, str]


@dataclass
class Diagnosis:
    """What was recorded of the gradients of one method.

    Attributes:
        norms: Task -> mean norm of its gradient over the shared parameters.
        conflicts: Layer -> pair of tasks -> share of recorded steps with a negative cosine.
    """

    norms: dict[str, float] = field(default_factory=dict)
    conflicts: dict[str, dict[Pair, float]] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Who dominates, who conflicts, how often and where."""
        return ", ".join(part for part in (self._dominance(), self._conflict()) if part)

    def _dominance(self) -> str:
        if len(self.norms) < 2:
            return ""
        largest = max(self.norms, key=lambda task: self.norms[task])
        others = median(norm for task, norm in self.norms.items() if task != largest)
        if others == 0:
            return f"{largest} alone has a gradient"
        ratio = self.norms[largest] / others
        if ratio < _DOMINANT:
            return f"no task dominates (largest norm {ratio:.1f}x, {largest})"
        return f"{largest} dominates (norm {ratio:.2g}x)"

    def _conflict(self) -> str:
        whole = self.conflicts.get(ALL, {})
        if not whole:
            return ""
        pair = max(whole, key=lambda pair: whole[pair])
        names = f"{pair[0]} and {pair[1]}"
        if whole[pair] < _RARE:
            return f"the tasks hardly conflict (at most {whole[pair]:.0%} of steps, {names})"
        text = f"{names} conflict in {whole[pair]:.0%} of steps"
        layers = {k: own[pair] for k, own in self.conflicts.items() if k != ALL and pair in own}
        if not layers:
            return text
        worst = max(layers, key=lambda layer: layers[layer])
        return f"{text}, mostly in {worst} ({layers[worst]:.0%})"


def diagnose(comparison: Comparison) -> dict[str, Diagnosis]:
    """Reads `diagnosis.csv` of every run: label -> what was recorded over all its seeds.

    The norm of a task counts for the layer `all`, in the mean over steps and seeds; it dominates
    if it is at least twice the median of the others'. A pair conflicts in a step if its cosine is
    negative. `mostly in` names the layer where the pair with the most conflicts has most.
    """
    found = {}
    for method in comparison.contenders:
        rows = list(_rows(method, comparison))
        if rows:
            found[method.label] = _summarize(rows)
    return found


def from_cosines(series: dict[str, Band]) -> Diagnosis:
    """The same from the cosines of `history.csv`, which know neither norms nor layers."""
    shares = {}
    for name, band in series.items():
        first, mark, second = name.removeprefix("cosine/").partition("~")
        if name.startswith("cosine/") and mark:
            shares[first, second] = band.negative
    return Diagnosis(conflicts={ALL: shares} if shares else {})


def _rows(method: Method, comparison: Comparison) -> Iterable[dict[str, str]]:
    for run in (run for runs in method.runs.values() for run in runs):
        path = run.folder / FILE
        if not path.is_file():
            continue
        try:
            yield from _read(path)
        except DataError as error:
            comparison.notes.append(Note("diagnosis", f"{error} It is not in the diagnosis."))


def _read(path: Path) -> list[dict[str, str]]:
    wanted = ("layer", "task_a", "task_b", "cosine", "norm_a")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        for row in rows:
            float(row["cosine"] or "nan"), float(row["norm_a"] or "nan")
            if None in (row[name] for name in wanted):
                raise ValueError("a line is cut")
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} should have the columns {wanted}: {error}.") from error
    return rows


def _summarize(rows: Sequence[dict[str, str]]) -> Diagnosis:
    norms: dict[str, list[float]] = defaultdict(list)
    conflicts: dict[str, dict[Pair, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        first, second, layer = row["task_a"], row["task_b"], row["layer"]
        if first == second and layer == ALL and row["norm_a"]:
            norms[first].append(float(row["norm_a"]))
        elif first != second and row["cosine"]:
            conflicts[layer][first, second].append(float(row["cosine"]) < 0)
    return Diagnosis(
        {task: fmean(values) for task, values in norms.items()},
        {layer: {p: fmean(v) for p, v in own.items()} for layer, own in conflicts.items()},
    )
