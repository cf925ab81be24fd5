"""Are outlier tasks found, and what do they cost the others? Boosting on the paper's generator.

python -m benchmarks.boosting.detection run --kinds function,noise --seeds 0,1,2,3,4 --out det.csv
python -m benchmarks.boosting.detection table det.csv --plot detection.png
python -m benchmarks.boosting.detection alarms --seeds 50

Ten tasks of 300 training and 1,000 test rows, noise 0.1, of which 0 to 4 are outliers.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.tabular import OUTLIER_KINDS, ManyTasks, make_tasks
from mtl.boosting import RMTGBRegressor

_TREES: dict[str, Any] = {"max_depth": 6, "subsample": 0.7}
SETTINGS: dict[str, dict[str, Any]] = {
    "R-MTGB": {"n_gated": 200, "n_task": 50, **_TREES},
    "MTGB (no gate)": {"n_shared": 200, "n_gated": 0, "n_task": 50, **_TREES},
    "single task": {"n_gated": 0, "n_task": 200, "max_depth_task": 4, "subsample": 0.7},
}
METHODS = [*SETTINGS, "R-MTGB, paper's settings", "LightGBM + task", "oracle"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints a table, or counts false alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--kinds", default=",".join(OUTLIER_KINDS))
    run.add_argument("--outliers", default="0,1,2,3,4")
    run.add_argument("--seeds", default="0,1,2,3,4")
    run.add_argument(
        "--out", type=Path, default=Path("detection.csv"), help="what lacks is appended"
    )
    table = commands.add_parser("table")
    table.add_argument("files", type=Path, nargs="+")
    table.add_argument("--plot", type=Path)
    alarms = commands.add_parser("alarms")
    alarms.add_argument("--seeds", type=int, default=50)
    options = parser.parse_args(arguments)
    if options.command == "alarms":
        print(false_alarms(options.seeds))
    elif options.command == "table":
        runs = pd.concat([pd.read_csv(file) for file in options.files])
        print(summary(runs))
        if options.plot:
            draw(runs, options.plot)
    else:
        for seed in map(int, options.seeds.split(",")):
            for count in map(int, options.outliers.split(",")):
                kinds = options.kinds.split(",")
                for kind in kinds if count else kinds[:1]:
                    measure(seed, count, kind, options.out)
    return 0


def measure(seed: int, outliers: int, kind: str, out: Path) -> None:
    """Appends a row a method, unless they are there."""
    if out.exists():
        runs = pd.read_csv(out)
        same = (runs["seed"] == seed) & (runs["outliers"] == outliers)
        if (same & ((runs["kind"] == kind) | (outliers == 0))).sum() >= len(METHODS):
            return
    train, test = make_tasks(seed, outliers=outliers, kind=kind, noise=0.1)
    for method in METHODS:
        predicted, score, exact = _fit(method, train, test, seed)
        outside = test.outlier[test.task]
        squares = (predicted - test.y) ** 2
        row = {
            "kind": kind,
            "outliers": outliers,
            "method": method,
            "seed": seed,
            "related": np.sqrt(squares[~outside].mean()),
            "outlier": np.sqrt(squares[outside].mean()) if outliers else np.nan,
            "auc": np.nan if score is None or not outliers else roc_auc_score(test.outlier, score),
            "exact": exact,
        }
        new = not out.exists()
        with out.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _fit(
    method: str, train: ManyTasks, test: ManyTasks, seed: int
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Predictions, outlier scores, and whether exactly the outliers were named."""
    if method == "LightGBM + task":
        import lightgbm

        model = lightgbm.LGBMRegressor(n_estimators=400, n_jobs=1, verbose=-1, random_state=seed)
        place = train.x.shape[1]
        model.fit(np.column_stack([train.x, train.task]), train.y, categorical_feature=[place])
        return np.asarray(model.predict(np.column_stack([test.x, test.task]))), None, np.nan
    if method == "oracle":
        good = ~train.outlier[train.task]
        model = RMTGBRegressor(**SETTINGS["R-MTGB"], random_state=seed, unknown_task="shared")
        model.fit(train.x[good], train.y[good], train.task[good])
        known = ~test.outlier[test.task]
        predicted = np.full(len(test.y), np.nan)
        predicted[known] = model.predict(test.x[known], test.task[known])
        return predicted, None, np.nan
    if method in SETTINGS:
        model = RMTGBRegressor(**SETTINGS[method], random_state=seed)
    else:
        model = RMTGBRegressor.paper(random_state=seed)
    model.fit(train.x, train.y, train.task)
    exact = set(model.outlier_tasks_) == set(np.flatnonzero(train.outlier))
    gated = model.n_gated > 0
    score = model.outlier_score_ if gated else None
    return model.predict(test.x, test.task), score, float(exact) if gated else np.nan


def false_alarms(seeds: int) -> str:
    """How often a task is named an outlier where there is none."""
    lines = []
    for own in (0.1, 0.3):
        named = []
        for seed in range(seeds):
            train, _ = make_tasks(1000 + seed, outliers=0, noise=0.1, own=own, test=1)
            model = RMTGBRegressor(n_gated=200, n_task=0, **_TREES, random_state=seed)
            named.append(len(model.fit(train.x, train.y, train.task).outlier_tasks_))
        runs, tasks = np.mean(np.array(named) > 0), np.sum(named) / (10 * seeds)
        lines.append(
            f"own share {own}: {100 * runs:.0f}% of {seeds} runs name a task, "
            f"{100 * tasks:.1f}% of the tasks"
        )
    return "\n".join(lines)


def summary(runs: pd.DataFrame) -> str:
    """Errors and detection over the share of outliers: means ± standard deviations over seeds."""
    titles = {
        "related": "RMSE of the related tasks",
        "outlier": "RMSE of the outlier tasks",
        "auc": "Detection: area under the curve and exact sets; at 0%, runs that accuse nobody",
    }
    parts = []
    for column, title in titles.items():
        rows = []
        for kind in _kinds(runs):
            for method in METHODS:
                cells = _cells(_of_kind(runs, kind), method, column)
                if any(cells):
                    rows.append(f"| {kind}, {method} | {' | '.join(cells)} |")
        shares = sorted(set(runs["outliers"]))
        head = " | ".join(f"{10 * count}%" for count in shares)
        lines = [f"| {title}, by share | {head} |", "|---" * (1 + len(shares)) + "|", *rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _kinds(runs: pd.DataFrame) -> list[str]:
    seen = set(runs["kind"][runs["outliers"] > 0])
    return [kind for kind in OUTLIER_KINDS if kind in seen]


def _of_kind(runs: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Runs with outliers of this kind, and those without outliers."""
    own = runs[(runs["kind"] == kind) | (runs["outliers"] == 0)]
    return own.drop_duplicates(["outliers", "method", "seed"])


def _cells(runs: pd.DataFrame, method: str, column: str) -> list[str]:
    own, cells = runs[runs["method"] == method], []
    for count in sorted(set(runs["outliers"])):
        part = own[own["outliers"] == count]
        values, exact = part[column].dropna(), part["exact"].dropna()
        text = f"{values.mean():.2f}" if len(values) else ""
        if column != "auc" and len(values) > 1:
            text = f"{values.mean():.3f} ± {values.std():.3f}"
        if column == "auc" and len(exact):
            text += f"{', ' * bool(text)}{int(exact.sum())} of {len(exact)}"
        cells.append(text)
    return cells


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Error of the related tasks over the share of outliers, a panel a kind."""
    import matplotlib.pyplot as plt

    kinds = _kinds(runs)
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(3 * len(kinds), 3), sharey=True, layout="constrained"
    )
    for ax, kind in zip(np.atleast_1d(axes), kinds, strict=True):
        part = _of_kind(runs, kind)
        for method in METHODS:
            errors = part[part["method"] == method].groupby("outliers")["related"]
            mean, spread = errors.mean(), errors.std()
            style = "--" if method == "oracle" else "-"
            ax.errorbar(10 * mean.index, mean, spread, label=method, linestyle=style, capsize=2)
        ax.set(title=kind, xlabel="outlier tasks (%)")
    np.atleast_1d(axes)[0].set(ylabel="RMSE of related tasks", ylim=(0, None))
    figure.legend(
        *np.atleast_1d(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    raise SystemExit(main())
