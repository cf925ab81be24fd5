"""Peak memory of a step, in numbers a shared parameter beyond equal weighting."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.gradients import Run
from benchmarks.speed.methods import (
    OURS,
    TORCHJD,
    combiners_of_rows,
    run_of,
    torchjd_aggregators,
)
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.tables import Table
from mtl.errors import MTLError

_NUMBER = 4  # bytes of a float32
_STEPS = 2  # the first allocates what a method remembers, the second shows the peak beside it

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Case = tuple[str, str, str]
"""Network, method, and how; see `run_of`."""


def tables(rounds: int, networks: Sequence[str]) -> Iterator[Table]:  # noqa: ARG001 - it is exact
    """A table a network."""
    for name in networks:
        description, make = NETWORKS[name]
        problem = make()
        peers = torchjd_aggregators(problem.num_tasks)
        methods = combiners_of_rows(problem.num_tasks)
        hows = (*OURS, *TORCHJD)
        cases = [(name, m, how) for m in methods for how in hows if how in OURS or m in peers]
        extra = beyond_equal_weighting(cases)
        rows = [
            [f"`{method}`", *(_cell(extra.get((name, method, how))) for how in hows)]
            for method in methods
        ]
        yield Table(
            f"memory {name}",
            f"{name}: {description}, P = {problem.num_shared:,}; T + 2 = {problem.num_tasks + 2}",
            ["method", "parameter level", "representation level", *TORCHJD],
            rows,
        )


def beyond_equal_weighting(cases: Iterable[Case]) -> dict[Case, float | None]:
    """Peak of each case less that of `ew`, divided by P; each in a process of its own.

    `None` where the method does not fit the network.
    """
    cases = list(cases)
    plain = {network: (network, "ew", OURS[0]) for network, *_ in cases}
    peaks = in_own_processes(_measure, [*plain.values(), *cases], "torchjd.aggregation")
    shared = {network: NETWORKS[network][1]().num_shared for network in plain}
    result: dict[Case, float | None] = {}
    for case in cases:
        peak, reference = peaks[case], peaks[plain[case[0]]]
        if peak is None or reference is None:
            result[case] = None
        else:
            result[case] = (peak - reference) / _NUMBER / shared[case[0]]
    return result


def in_own_processes(measure: Callable[[K], V], cases: Iterable[K], *preload: str) -> dict[K, V]:
    """What `measure` gives for each case, in a process of its own with one thread.

    Args:
        measure: A function of a module.
        cases: What it is given.
        preload: Modules to import once for all processes, besides its own.
    """
    cases = list(cases)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([measure.__module__, *preload])
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=_quiet, max_tasks_per_child=1
    ) as pool:
        return dict(zip(cases, pool.map(measure, cases), strict=True))


def _quiet() -> None:
    """The profiler fills the standard error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)


def _measure(case: Case) -> int | None:
    network, method, how = case
    try:
        return peak_bytes(run_of(NETWORKS[network][1](), method, how))
    except MTLError:
        return None


def peak_bytes(run: Run) -> int:
    """The most that PyTorch's allocator has handed out at a time during two steps.

    Counted from before the first step, when the model exists already, by the profiler's record of
    every allocation. So it holds what a method keeps between steps, and is the same in every run;
    what solvers allocate outside PyTorch, some kilobytes, is not in it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(_STEPS):
            run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return max(e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]")


def _cell(extra: float | None) -> str:
    return "" if extra is None else f"{extra:.2f}"
