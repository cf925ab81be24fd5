"""Steps of all methods that TorchJD has as well, beside TorchJD's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.speed.methods import OURS, TORCHJD, run_of, torchjd_aggregators
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import interleave, timed

_FLOOR, _PLAIN = "one backward a task (floor)", "ew, bare backward"


def tables(rounds: int, networks: Sequence[str]) -> Iterator[Table]:
    """A table a network, in ratios to one backward pass a task."""
    for name in networks:
        description, make = NETWORKS[name]
        problem = make()
        methods = list(torchjd_aggregators(problem.num_tasks))
        contenders = {
            _PLAIN: timed(problem.plain_backward()),
            _FLOOR: timed(problem.task_backwards()),
            **{
                f"{method}, {how}": timed(run_of(problem, method, how))
                for method in methods
                for how in (*OURS, *TORCHJD)
            },
        }
        times = interleave(contenders, rounds=rounds, warmup=1)
        plain = spread(times.ratio(_PLAIN, _FLOOR))
        rows = [["bare backward pass of the sum", plain, "", "", ""]]
        for method in methods:
            ours, representation = (f"{method}, {level}" for level in OURS)
            theirs = times.fastest(f"{method}, {option}" for option in TORCHJD)
            rows.append(
                [
                    f"`{method}`",
                    spread(times.ratio(ours, _FLOOR)),
                    spread(times.ratio(theirs, _FLOOR)),
                    spread(times.ratio(ours, theirs)),
                    spread(times.ratio(representation, _PLAIN)),
                ]
            )
        yield Table(
            f"peers {name}",
            f"{name}: {description}; the floor takes {times.milliseconds(_FLOOR):.0f} ms",
            ["method", "ours / floor", "TorchJD / floor", "ours / TorchJD", "representation / ew"],
            rows,
        )
