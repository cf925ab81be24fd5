"""Error of boosting methods on many-task tables, all tuned by the same small search.

python -m benchmarks.boosting.quality run --data exam,outliers-2 --seeds 0,1,2 --out quality.csv
python -m benchmarks.boosting.quality table quality.csv

Eight candidates a method; the one with the least squared error on a quarter of each task's
training rows is fitted again on all of them. Splits, the same for all methods: a fifth of each
task's rows is for testing; for `outliers-K` the generator's own test rows.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.boosting.contenders import CONTENDERS, Rows
from benchmarks.tabular import TABLES, Table, load, make_tasks

SYNTHETIC = ("outliers-0", "outliers-2", "outliers-4")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs or prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--data", default=",".join([*TABLES, *SYNTHETIC]))
    run.add_argument("--methods", default=",".join(CONTENDERS))
    run.add_argument("--seeds", default="0,1,2")
    run.add_argument("--data-dir", type=Path, help="CSV files of school, computer and abalone")
    run.add_argument("--out", type=Path, default=Path("quality.csv"), help="rows are appended")
    table = commands.add_parser("table")
    table.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    if options.command == "table":
        runs = pd.concat([pd.read_csv(file) for file in options.files])
        print(summary(runs.drop_duplicates(["data", "method", "seed"], keep="last")))
        return 0
    for seed in map(int, options.seeds.split(",")):
        for name in options.data.split(","):
            data, train, test = read(name, seed, options.data_dir)
            for method in options.methods.split(","):
                _append(options.out, compare(data, train, test, method, seed))
    return 0


def read(name: str, seed: int, data_dir: Path | None) -> tuple[Table, Rows, Rows]:
    """A table with its training and test rows."""
    if name in SYNTHETIC:
        train, test = make_tasks(seed, outliers=int(name.removeprefix("outliers-")))
        x = pd.DataFrame(np.concatenate([train.x, test.x])).rename(columns=str)
        y, task = np.concatenate([train.y, test.y]), np.concatenate([train.task, test.task])
        rows = np.arange(len(y))
        return Table(name, x, y, task), rows[: len(train.y)], rows[len(train.y) :]
    table = load(name, data_dir)
    return table, *split(table, np.arange(len(table.y)), 0.2, seed)


def split(table: Table, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Takes the same share of each task's rows away, at random."""
    random = np.random.default_rng(seed)
    away = np.zeros(len(rows), dtype=bool)
    for task in np.unique(table.task[rows]):
        own = random.permutation(np.flatnonzero(table.task[rows] == task))
        away[own[: round(share * len(own))]] = True
    return rows[~away], rows[away]


def compare(
    table: Table, train: Rows, test: Rows, method: str, seed: int
) -> dict[str, str | float]:
    """Searches, fits and tests one method."""
    fit, candidates = CONTENDERS[method]
    inner, held_out = split(table, train, 0.25, seed + 1000)
    errors = [
        _rmse(table, held_out, fit(table, inner, options, seed)(held_out)) for options in candidates
    ]
    best = int(np.argmin(errors))
    started = time.process_time()
    predict = fit(table, train, candidates[best], seed)
    fitted = time.process_time()
    error = _rmse(table, test, predict(test))
    row: dict[str, str | float] = {
        "data": table.name,
        "method": method,
        "seed": seed,
        "rmse": round(error, 6),
        "candidate": best,
        "fit_seconds": round(fitted - started, 3),
        "predict_seconds": round(time.process_time() - fitted, 4),
    }
    print(row, flush=True)
    return row


def summary(runs: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds, a row a data set; the least mean is bold.

    The last column compares means and counts the seeds on which R-MTGB is the best of all.
    """
    order = [name for name in [*TABLES, *SYNTHETIC] if name in set(runs["data"])]
    methods = [name for name in CONTENDERS if name in set(runs["method"])]
    lines = [
        f"| data | {' | '.join(methods)} | R-MTGB to the best other |",
        "|---" * (len(methods) + 2) + "|",
    ]
    for name in order:
        own = runs[runs["data"] == name]
        errors = own.groupby("method")["rmse"]
        mean, spread = errors.mean(), errors.std()
        digits = 3 - int(np.floor(np.log10(mean.min())))
        cells = []
        for method in methods:
            if method not in mean:
                cells.append("")
                continue
            text = f"{mean[method]:.{digits}f}"
            if not np.isnan(spread[method]):
                text += f" ± {spread[method]:.{digits}f}"
            cells.append(f"**{text}**" if method == mean.idxmin() else text)
        others = mean.drop("R-MTGB").min()
        by_seed = own.pivot(index="seed", columns="method", values="rmse")
        best = (by_seed.idxmin(axis=1) == "R-MTGB").sum()
        distance = 100 * (mean["R-MTGB"] / others - 1)
        cells.append(f"{distance:+.1f}%, best on {best} of {len(by_seed)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rmse(table: Table, rows: Rows, predicted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((table.y[rows] - predicted) ** 2)))


def _append(path: Path, row: dict[str, str | float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    raise SystemExit(main())
