"""Single-task values that a run is compared with: one's own runs, or published ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mtl.errors import DataError
from mtl.report.results import FILE, Results

Values = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Baseline:
    """Single-task values of one protocol.

    Attributes:
        values: Task -> metric -> value.
        source: Where they came from, for people.
    """

    values: Values
    source: str


def find_baseline(
    results: Results, where: str | None, *, searched: Sequence[Path], published: Path | None = None
) -> Baseline | None:
    """Single-task values with the protocol of a run.

    Args:
        results: The run that is to be compared.
        where: `auto`: one's own single-task runs in the folders `searched`, else `published`;
            `None`: no comparison; otherwise a `metrics.json`, or a folder of runs.
        searched: Folders with runs.
        published: YAML file with a list of entries `protocol`, `source`, `values`.

    Returns:
        The baseline, or `None` if there is no run of the same protocol for some task.

    Raises:
        DataError: A place that was named holds no single-task run of that protocol.
    """
    alone = results.single and where == "auto"  # it is a baseline itself
    if where is None or alone:
        return None
    folders = list(searched) if where == "auto" else [Path(where)]
    own = _own_runs(results, folders)
    if own is None and where != "auto":
        raise DataError(
            f"No single-task runs of protocol {results.protocol} for all of "
            f"{list(results.metrics)} in {where}. Make them with the same options and "
            "tasks=[TASK] for each task, or leave `baseline` at auto."
        )
    if own is None and published is not None:
        return published_values(published, results.protocol, results.metrics)
    return own


def _own_runs(results: Results, folders: Sequence[Path]) -> Baseline | None:
    found: dict[str, list[dict[str, float]]] = {task: [] for task in results.metrics}
    for path in _files(folders):
        try:
            run = Results.read(path)
        except DataError:
            continue  # another program's file, or a run that was killed while writing
        if run.protocol == results.protocol and run.single:
            for task in run.metrics.keys() & found.keys():
                found[task].append(run.metrics[task])
    if not all(found.values()):
        return None
    values = {
        task: {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
        for task, runs in found.items()
    }
    counts = sorted({len(runs) for runs in found.values()})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return Baseline(values, f"mean of {number} own single-task run(s) a task")


def _files(folders: Sequence[Path]) -> list[Path]:
    paths = []
    for folder in folders:
        paths += [folder] if folder.is_file() else sorted(folder.rglob(FILE))
    return paths


def published_values(path: Path, protocol: str, tasks: Iterable[str]) -> Baseline | None:
    """Single-task values that stand in a file.

    Args:
        path: YAML file with a list of entries `protocol`, `source`, `values`; may be missing.
        protocol: The digest that an entry must have.
        tasks: The tasks that it must have.
    """
    if not path.is_file():
        return None
    for entry in yaml.safe_load(path.read_text()):
        values: Values = entry["values"]
        if entry["protocol"] == protocol and set(tasks) <= set(values):
            return Baseline({task: values[task] for task in tasks}, entry["source"])
    return None
