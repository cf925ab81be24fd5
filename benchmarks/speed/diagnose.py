"""What `callbacks=diagnose` costs at its default interval."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import Ratio, interleave, timed
from benchmarks.speed.workloads import Workload
from mtl import Balancer
from mtl.callbacks.diagnose import STEPS_A_TASK


def tables(rounds: int) -> Iterator[Table]:
    """One row a data set: a step without the optimizer's, alone and recorded, in turn."""
    rows = []
    for name in ("scenes", "multimnist", "multidigits"):
        cost = Workload(name, 1).gradients()
        with tempfile.TemporaryDirectory() as folder:
            times = interleave(
                {
                    "plain": timed(cost.balanced(Balancer())),
                    "recorded": timed(cost.diagnosed(Path(folder))),
                },
                rounds=rounds,
            )
        ratio, every = times.ratio("recorded", "plain"), STEPS_A_TASK * cost.num_tasks
        share = Ratio(*(100 * (r - 1) / every for r in ratio))
        rows.append(
            [name, str(every), f"{times.milliseconds('plain'):.1f}", spread(ratio), spread(share)]
        )
    columns = ["data set", "n", "CPU ms a step", "a recorded step / a step", "% of training time"]
    yield Table("diagnose", "`callbacks=diagnose` every n steps, with `ew`", columns, rows)
