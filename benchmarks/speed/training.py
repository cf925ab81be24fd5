"""Whole training steps and their gradients on the built-in data sets."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

from benchmarks.speed.methods import preset
from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import Contender, interleave, timed
from benchmarks.speed.workloads import Workload

_METHODS = ("pcgrad", "mgda")


def tables(rounds: int) -> Iterator[Table]:
    """A table a data set; each row is a ratio to what it names."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    for name, steps in (("scenes", 20), ("multimnist", 60)):
        workload = Workload(name, steps)
        rows = _rows(
            {
                "the same in a bare loop": workload.bare_loop,
                "`ew`, as `train.py` trains": workload.lightning_loop,
            },
            rounds,
        )
        gradients = workload.gradients()
        tasks = gradients.num_tasks
        rows += _rows(
            {
                "one backward pass a task": timed(gradients.task_backwards()),
                **{
                    f"`{m}`, parameter level": timed(gradients.balanced(preset(m, tasks)))
                    for m in _METHODS
                },
            },
            2 * rounds,
        )
        rows += _rows(
            {
                "one backward pass of the sum": timed(gradients.plain_backward()),
                **{
                    f"`{m}`, representation level": timed(
                        gradients.balanced(preset(m, tasks, "representation"))
                    )
                    for m in _METHODS
                },
            },
            2 * rounds,
        )
        yield Table(f"training {name}", name, ["what", "CPU ms", "against", "ratio"], rows)


def _rows(contenders: dict[str, Contender], rounds: int) -> list[list[str]]:
    """The first contender is what the others are divided by."""
    times = interleave(contenders, rounds=rounds)
    reference, *others = contenders
    return [
        [name, f"{times.milliseconds(name):.1f}", reference, spread(times.ratio(name, reference))]
        for name in others
    ]
