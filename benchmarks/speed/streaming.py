"""What it costs not to keep the rows: `max_rows` beside all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.speed.gradients import Run
from benchmarks.speed.memory import in_own_processes, peak_bytes
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import interleave, timed
from mtl import Balancer
from mtl.aggregation import PCGradWeighting
from mtl.streaming import passes

_NUMBER = 4  # bytes of a float32
_LIMITS = {"all": None, "5": 5, "3": 3, "1": 1}

Case = tuple[str, int | None]


def tables(rounds: int, networks: Sequence[str]) -> Iterator[Table]:
    """A table a network: passes, time and memory of PCGrad."""
    for name in networks:
        description, make = NETWORKS[name]
        problem = make()
        count = problem.num_tasks
        runs = {kept: timed(_run((name, limit))) for kept, limit in _LIMITS.items()}
        times = interleave(runs, rounds=rounds, warmup=1)
        peaks = in_own_processes(_peak, [(name, limit) for limit in _LIMITS.values()])
        least = in_own_processes(_peak_of_ew, [name])[name]
        rows = []
        for kept, limit in _LIMITS.items():
            extra = (peaks[name, limit] - least) / _NUMBER / problem.num_shared
            again = str(passes(count, limit or count))
            rows.append([kept, again, spread(times.ratio(kept, "all")), f"{extra:.2f}"])
        title = f"{name}: {description}, P = {problem.num_shared:,}"
        heads = ["rows kept", "backward passes", "time", "memory beyond `ew` (P numbers)"]
        yield Table(f"streaming {name}", title, heads, rows)


def _run(case: Case) -> Run:
    network, limit = case
    return NETWORKS[network][1]().balanced(Balancer(PCGradWeighting(), max_rows=limit))


def _peak(case: Case) -> int:
    return peak_bytes(_run(case))


def _peak_of_ew(network: str) -> int:
    return peak_bytes(NETWORKS[network][1]().balanced(Balancer()))
