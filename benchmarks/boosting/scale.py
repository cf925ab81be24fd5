"""Time and memory of a fit over three decades of rows.

python -m benchmarks.boosting.scale run --rows 10000 --out scale.csv      (and 100000, 1000000)
python -m benchmarks.boosting.scale plot scale.csv --out scale.png

50 features, 200 rows a task (5,000 tasks at a million rows), one thread. CPU time of `fit` and
`predict`; memory is the largest resident size of the process, data and imports included.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl.boosting import RMTGBRegressor

FEATURES, ROWS_A_TASK = 50, 200
SETTINGS: dict[str, Any] = {"n_gated": 20, "n_task": 20, "max_depth": 4}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures one size, or draws all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--rows", type=int, required=True)
    run.add_argument("--out", type=Path, default=Path("scale.csv"), help="a row is appended")
    plot = commands.add_parser("plot")
    plot.add_argument("file", type=Path)
    plot.add_argument("--out", type=Path, default=Path("scale.png"))
    options = parser.parse_args(arguments)
    if options.command == "plot":
        draw(pd.read_csv(options.file).sort_values("rows"), options.out)
        return 0
    row = measure(options.rows)
    print(row)
    new = not options.out.exists()
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    return 0


def measure(rows: int) -> dict[str, float]:
    """Fits and predicts once."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, FEATURES))
    task = random.integers(0, rows // ROWS_A_TASK, rows)
    y = np.where(task % 20, 1, -1) * x[:, 0] + x[:, 1] * x[:, 2] + random.standard_normal(rows)
    started = time.process_time()
    model = RMTGBRegressor(**SETTINGS, random_state=0).fit(x, y, task)
    fitted = time.process_time()
    model.predict(x, task)
    return {
        "rows": rows,
        "tasks": len(model.tasks_),
        "fit_seconds": round(fitted - started, 2),
        "predict_seconds": round(time.process_time() - fitted, 2),
        "memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "outliers_found": len(model.outlier_tasks_),
    }


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Seconds over rows, with a line of slope one."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    ax.loglog(runs["rows"], runs["fit_seconds"], "o-", label="fit")
    ax.loglog(runs["rows"], runs["predict_seconds"], "s-", label="predict")
    last = runs.iloc[-1]
    line = last["fit_seconds"] * runs["rows"] / last["rows"]
    ax.loglog(runs["rows"], line, ":", color="0.5", label="linear in rows")
    ax.set(xlabel="rows (50 features, 200 rows a task)", ylabel="CPU seconds, one thread")
    ax.legend()
    plt.savefig(path, dpi=80)


if __name__ == "__main__":
    raise SystemExit(main())
