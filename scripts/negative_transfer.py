"""Compares denoisers of all timesteps with specialists: a table a data set, and a picture.

python scripts/negative_transfer.py multirun/2026-01-01_12-00-00 --out gap.png

For each interval that specialists were trained on: the loss of every other run there, and the gap
`log(loss of the specialist) - log(loss of the run)`; below 0 is negative transfer. With --samples,
also the gap in the Frechet distance: that of samples where the specialist denoises in its interval
and the run elsewhere, minus that of the run's own samples.
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

_NUISANCE = re.compile(r"[+~]*(dataset=|(seed|tasks|sweep|trainer|callbacks|logger)\b)")

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
        """Those that it was started with, but for data set, seed, tasks and what is drawn."""
        path = self.folder / ".hydra" / "overrides.yaml"
        given = yaml.safe_load(path.read_text()) if path.is_file() else []
        return tuple(option for option in given if not _NUISANCE.match(option))

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
    parser.add_argument("--samples", type=int, default=0, help="samples for the gap in quality")
    parser.add_argument("--markdown", action="store_true", help="print tables for documents")
    options = parser.parse_args(arguments)
    try:
        shared, specialists = sort_runs(find_runs(options.folders))
        intervals = list(specialists[min(specialists)])
        losses, gaps = compare(shared, specialists, intervals)
        show("test loss", losses, intervals, options.markdown)
        show("log gap (below 0: negative transfer)", gaps, intervals, options.markdown)
        if options.samples:
            own, swapped = quality_gaps(shared, specialists, intervals, options.samples)
            show("Frechet distance", own, [("all",)], options.markdown)
            show("gap in the Frechet distance", swapped, intervals, options.markdown)
        if options.out:
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
    """All finished runs below some folders."""
    paths = sorted(path for folder in folders for path in folder.rglob("metrics.json"))
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
    if not shared or missing or len({run.results.dataset for run in runs}) > 1:
        raise DataError(
            "Expected runs of one data set: some on all tasks and, for each of their seeds, "
            f"specialists on parts. Got {len(shared)} on all, of "
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
    losses: Table_ = {"specialists": [[] for _ in intervals]}
    gaps: Table_ = {}
    names = name_runs(shared)
    for own in specialists.values():
        for i, tasks in enumerate(intervals):
            losses["specialists"][i].append(own[tasks].loss(tasks))
    for run in shared:
        own = specialists[run.results.seed]
        for table in (losses, gaps):
            table.setdefault(names[run.folder], [[] for _ in intervals])
        for i, tasks in enumerate(intervals):
            loss = run.loss(tasks)
            losses[names[run.folder]][i].append(loss)
            gaps[names[run.folder]][i].append(math.log(own[tasks].loss(tasks)) - math.log(loss))
    return losses, gaps


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
        for i, tasks in enumerate(intervals):
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
    """Mean and standard deviation."""
    mean = f"{statistics.fmean(values):.3g}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2g}"


if __name__ == "__main__":
    sys.exit(main())
