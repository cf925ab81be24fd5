"""Compares denoisers of all timesteps by interval, with specialists and with each other.

python scripts/negative_transfer.py multirun/2026-01-01_12-00-00 --out gap.png --against ew

For each interval that specialists were trained on (without any: for fifths of the timesteps) the
loss of every run there, mean and standard deviation over seeds; the gap `log(loss of the
specialist) - log(loss of the run)`, below 0 is negative transfer; with --against, also the change
`log(loss of the run) - log(loss of that one)` of each seed, below 0 is better. With --samples, also
the gap in the Frechet distance: that of samples where the specialist denoises in its interval and
the run elsewhere, minus that of the run's own samples.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.diffusion.base import DiffusionBenchmark
from benchmarks.diffusion.checkpoints import rebuild
from benchmarks.diffusion.draw import draw_gaps
from mtl.callbacks.samples import draw_samples
from mtl.diffusion import Denoiser, Switched
from mtl.errors import DataError, MTLError
from mtl.report import Results

_NUISANCE = re.compile(
    r"[+~]*(dataset=|(seed|tasks|sweep|experiment|trainer|callbacks|logger|baseline|resume)\b"
    r"|.*\.affinity=|.*=null$)"
)
_FIFTHS = 5

Table_ = dict[str, list[list[float]]]  # name of a run -> one list of numbers an interval


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it is.
        results: What it achieved.
    """

    folder: Path
    results: Results

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Those that it was started with, but for data set, seed, tasks and what is drawn.

        Of names with dots or slashes the last part is kept.
        """
        path = self.folder / ".hydra" / "overrides.yaml"
        given = yaml.safe_load(path.read_text()) if path.is_file() else []
        own = [option for option in given if not _NUISANCE.match(option)]
        return tuple(re.sub(r"^[+\w./@]*[./](?=\w+=)", "", option) for option in own)

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.results.metrics)

    def loss(self, tasks: Sequence[str]) -> float:
        """Mean test loss over some of its tasks."""
        return statistics.fmean(self.results.metrics[task]["loss"] for task in tasks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs of one data set")
    parser.add_argument("--out", type=Path, help="picture of the gaps, for example a PNG")
    parser.add_argument("--against", help="name of the runs that others are compared with")
    parser.add_argument("--samples", type=int, default=0, help="samples for the gap in quality")
    parser.add_argument("--markdown", action="store_true", help="print tables for documents")
    options = parser.parse_args(arguments)
    try:
        shared, specialists = sort_runs(find_runs(options.folders))
        intervals = list(specialists[min(specialists)]) if specialists else fifths(shared[0].tasks)
        losses, gaps = compare(shared, specialists, intervals)
        show("test loss", losses, intervals, options.markdown)
        if gaps:
            show("log gap (below 0: negative transfer)", gaps, intervals, options.markdown)
        if options.against:
            changes = compare_with(options.against, shared, intervals)
            title = f"log change against {options.against} (below 0: better)"
            show(title, changes, intervals, options.markdown)
        if options.samples:
            own, swapped = quality_gaps(shared, specialists, intervals, options.samples)
            show("Frechet distance", own, [("all",)], options.markdown)
            if specialists:
                show("gap in the Frechet distance", swapped, intervals, options.markdown)
        if options.out and gaps:
            draw_gaps(gaps, [span(i) for i in intervals], options.out)
            print(f"{options.out}: {len(gaps)} kinds of runs")
    except MTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def name_runs(runs: Sequence[Run]) -> dict[Path, str]:
    """Folder of each run -> the options that tell it from others, or its balancer."""
    common = set.intersection(*(set(run.options) for run in runs))
    names = {}
    for run in runs:
        own = [o.removeprefix("balancer=") for o in run.options if o not in common]
        names[run.folder] = " ".join(own) or run.results.balancer
    return names


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All finished runs below some folders, in the order of these."""
    paths = [path for folder in folders for path in sorted(folder.rglob("metrics.json"))]
    return [Run(path.parent, Results.read(path)) for path in paths]


def sort_runs(runs: Sequence[Run]) -> tuple[list[Run], dict[int, dict[tuple[str, ...], Run]]]:
    """Runs on all tasks, and the specialists: seed -> their tasks -> run."""
    whole = max((run.tasks for run in runs), key=len, default=())
    shared = [run for run in runs if run.tasks == whole]
    specialists: dict[int, dict[tuple[str, ...], Run]] = defaultdict(dict)
    for run in runs:
        if run.tasks != whole:
            specialists[run.results.seed][run.tasks] = run
    missing = sorted({run.results.seed for run in shared} - specialists.keys())
    mixed = len({run.results.dataset for run in runs}) > 1
    denoisers = whole and all(re.fullmatch(r"t\d+_\d+", task) for task in whole)
    if not denoisers or mixed or (specialists and missing):
        raise DataError(
            "Expected runs of one diffusion data set: some on all tasks and specialists on parts "
            f"for each of their seeds, or no specialists. Got {len(shared)} on all, of "
            f"{sorted({run.results.dataset for run in runs})}; no specialists for seeds {missing}. "
            "Make them by sweep=negative_transfer."
        )
    order = {task: i for i, task in enumerate(whole)}
    by_place = {
        seed: dict(sorted(own.items(), key=lambda pair: order[pair[0][0]]))
        for seed, own in specialists.items()
    }
    return shared, by_place


def compare(
    shared: Sequence[Run],
    specialists: dict[int, dict[tuple[str, ...], Run]],
    intervals: Sequence[tuple[str, ...]],
) -> tuple[Table_, Table_]:
    """Losses and log gaps, by the name of runs, one list of seeds an interval."""
    losses: Table_ = {}
    gaps: Table_ = {}
    if specialists:
        own = specialists.values()
        losses["specialists"] = [[runs[tasks].loss(tasks) for runs in own] for tasks in intervals]
    for name, runs in by_name(shared).items():
        losses[name] = [[run.loss(tasks) for run in runs.values()] for tasks in intervals]
        if specialists:
            gaps[name] = [
                [
                    math.log(specialists[seed][tasks].loss(tasks)) - math.log(run.loss(tasks))
                    for seed, run in runs.items()
                ]
                for tasks in intervals
            ]
    return losses, gaps


def compare_with(
    reference: str, shared: Sequence[Run], intervals: Sequence[tuple[str, ...]]
) -> Table_:
    """Log changes of the loss against the runs of one name, seed by seed.

    Raises:
        DataError: No run has that name, or not for all seeds.
    """
    runs = by_name(shared)
    seeds = {run.results.seed for run in shared}
    if reference not in runs or seeds - runs[reference].keys():
        raise DataError(
            f"`--against` should name runs of the seeds {sorted(seeds)}. Got {reference!r}; there "
            f"are { {name: sorted(own) for name, own in runs.items()} }."
        )
    return {
        name: [
            [
                math.log(run.loss(tasks)) - math.log(runs[reference][seed].loss(tasks))
                for seed, run in own.items()
            ]
            for tasks in intervals
        ]
        for name, own in runs.items()
        if name != reference
    }


def by_name(shared: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Name of a kind of run -> seed -> the run."""
    names = name_runs(shared)
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in shared:
        found[names[run.folder]][run.results.seed] = run
    return found


def fifths(tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """Ordered tasks in five parts of equal size."""
    bounds = [round(i * len(tasks) / _FIFTHS) for i in range(_FIFTHS + 1)]
    return [tuple(tasks[start:end]) for start, end in pairwise(bounds) if start < end]


@torch.no_grad()
def quality_gaps(
    shared: Sequence[Run],
    specialists: dict[int, dict[tuple[str, ...], Run]],
    intervals: Sequence[tuple[str, ...]],
    count: int,
) -> tuple[Table_, Table_]:
    """Frechet distances of runs, and what a specialist in each interval changes."""
    own: Table_ = {}
    gaps: Table_ = {}
    data: DiffusionBenchmark | None = None
    names = name_runs(shared)
    for run in shared:
        name = names[run.folder]
        fresh, denoiser = rebuild(run.checkpoint)
        data = data or fresh
        alone = data.quality(draw_samples(denoiser, data, count))["frechet"]
        own.setdefault(name, [[]])[0].append(alone)
        gaps.setdefault(name, [[] for _ in intervals])
        for i, tasks in enumerate(intervals if specialists else ()):
            _, other = rebuild(specialists[run.results.seed][tasks].checkpoint)
            mixed = swap(denoiser, other, span(tasks))
            swapped = data.quality(draw_samples(mixed, data, count))["frechet"]
            gaps[name][i].append(swapped - alone)
    return own, gaps


def swap(shared: Denoiser, specialist: Denoiser, interval: tuple[int, int]) -> Switched:
    """The shared denoiser, but for the interval, `[start, end]`, of the specialist."""
    start, end = interval[0], interval[1] + 1
    timesteps = shared.diffusion.timesteps
    parts = [(0, start, shared), (start, end, specialist), (end, timesteps, shared)]
    used = [(a, b, denoiser) for a, b, denoiser in parts if a < b]
    return Switched([denoiser for *_, denoiser in used], [*(a for a, *_ in used), timesteps])


def span(tasks: tuple[str, ...]) -> tuple[int, int]:
    """First and last timestep of tasks with names like `t0_49`."""
    return int(tasks[0][1:].split("_")[0]), int(tasks[-1].split("_")[1])


def show(title: str, values: Table_, intervals: Sequence[tuple[str, ...]], markdown: bool) -> None:
    """Prints mean and standard deviation over seeds, a row a kind of run."""
    heads = ["all" if i == ("all",) else "{}-{}".format(*span(i)) for i in intervals]
    rows = [[name, *map(spread, own)] for name, own in values.items()]
    if markdown:
        print(f"\n| {title} | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        return
    table = Table("run", *heads, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, to two digits of this but no more than three of the mean."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3g}"
    deviation = statistics.stdev(values)
    places = max(0, min(_places(deviation, 2), _places(mean, 3)))
    return f"{mean:.{places}f} ± {deviation:.{places}f}"


def _places(value: float, digits: int) -> int:
    """Decimal places that show so many digits of a value."""
    return digits - 1 - math.floor(math.log10(abs(value) or 1))


if __name__ == "__main__":
    sys.exit(main())
