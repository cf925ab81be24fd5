"""Speed of the paper's settings beside scikit-learn's gradient boosting, and of the tree engines.

python -m benchmarks.boosting.speed paper --data-dir DIR
python -m benchmarks.boosting.speed engines

The official code of R-MTGB was measured beside scikit-learn's `GradientBoostingRegressor` (100
trees of depth 3 on all rows): OFFICIAL holds its fit time as a multiple of scikit-learn's, and its
own predict time relative to its own fit time. The same yardstick, timed here in the same
interleaved rounds, tells how many times faster this code is on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor

from benchmarks.boosting.quality import split
from benchmarks.speed.timing import interleave, timed
from benchmarks.tabular import Table, load, make_tasks
from mtl.boosting import RMTGBRegressor
from mtl.boosting.binning import Binner, Codes
from mtl.boosting.growing import grow
from mtl.boosting.stumps import LeastSquaresStumps
from mtl.boosting.trees import Growth

OFFICIAL = {
    "outliers-2": (3.8, 0.136 / 1.62),
    "abalone": (3.1, 0.034 / 1.36),
    "computer": (66.0, 1.003 / 7.94),
    "school": (17.0, 1.014 / 15.3),
}
"""Data -> official fit / scikit-learn fit, official predict / official fit; 100/100/100 iterations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("paper", "engines"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.what == "engines":
        engines()
        return 0
    print("| data | fit, ms | predict, ms | scikit-learn fit, ms | fit faster | predict faster |")
    print("|---|---|---|---|---|---|")
    names = [name for name in OFFICIAL if options.data_dir or name == "outliers-2"]
    for name in names:
        print(paper(name, options.data_dir, options.rounds), flush=True)
    return 0


def paper(name: str, data_dir: Path | None, rounds: int) -> str:
    """A row of the table."""
    if name == "outliers-2":
        train, test = make_tasks(0)
        fitting, testing = (train.x, train.y, train.task), (test.x, test.task)
    else:
        table: Table = load(name, data_dir)
        rows, others = split(table, np.arange(len(table.y)), 0.2, 0)
        x = table.x.to_numpy(dtype=float)
        fitting = (x[rows], table.y[rows], table.task[rows])
        testing = (x[others], table.task[others])
    model = RMTGBRegressor.paper(n_shared=100, n_gated=100, n_task=100, random_state=0)
    yardstick = GradientBoostingRegressor(n_estimators=100, max_depth=3)
    model.fit(*fitting)
    times = interleave(
        {
            "fit": timed(lambda: model.fit(*fitting)),
            "predict": timed(lambda: model.predict(*testing)),
            "yardstick": timed(lambda: yardstick.fit(*fitting[:2])),
        },
        rounds=rounds,
        warmup=1,
    )
    fit_ratio, predict_share = OFFICIAL[name]
    fit = fit_ratio / times.ratio("fit", "yardstick").middle
    predict = fit_ratio * predict_share / times.ratio("predict", "yardstick").middle
    cells = [f"{times.milliseconds(key):.1f}" for key in ("fit", "predict", "yardstick")]
    return f"| {name} | {' | '.join(cells)} | {fit:.0f}x | {predict:.0f}x |"


def engines() -> None:
    """CPU milliseconds a tree of several ways to grow one."""
    import lightgbm

    random = np.random.default_rng(0)
    print("| rows x features, tasks | engine | one stump | 16 leaves | all task stumps |")
    print("|---|---|---|---|---|")
    for rows, features, tasks in ((3000, 5, 10), (12_000, 27, 139), (100_000, 50, 500)):
        x, y = random.normal(size=(rows, features)), random.normal(size=rows)
        if features == 27:
            x[:, 2:] = x[:, 2:] > 1
        task = np.sort(random.integers(0, tasks, rows))
        codes = Binner(255, np.zeros(features, bool)).fit(x, 0).transform(x)
        coarse = codes.merged(32)[0]
        data = lightgbm.Dataset(x, y, params={"verbose": -1, "num_threads": 1})
        label = f"{rows:,} x {features}, {tasks}"
        contenders = {
            "this code": (_own(codes, y, None, 1), _own(coarse, y, task, tasks)),
            "LightGBM": (_light(lightgbm, data, y), _light_tasks(lightgbm, x, y, task)),
        }
        if rows < 100_000:
            exact = (_exact(x, y), _exact_tasks(x, y, task))
            contenders["DecisionTreeRegressor"] = exact
        for name, (one, many) in contenders.items():
            print(f"| {label} | {name} | {one(1):.2f} | {one(4):.2f} | {many(1):.2f} |", flush=True)


def _median(run: Callable[[], object], repeats: int = 7) -> float:
    run()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(1000 * (time.process_time() - started))
    return statistics.median(times)


def _own(codes: Codes, y: np.ndarray, task: np.ndarray | None, tasks: int) -> Callable:
    def run(depth: int) -> float:
        growth, grad = Growth(depth, 5, 0.0, 0.1), y[None, None]
        if LeastSquaresStumps.suit(codes, growth, tasks):
            first = np.zeros(1, int) if task is None else np.searchsorted(task, np.arange(tasks))
            stumps = LeastSquaresStumps(codes, growth, first)
            return _median(lambda: stumps.grow(grad))
        return _median(lambda: grow(codes, grad, None, growth, root=task, roots=tasks))

    return run


def _light(lightgbm: Any, data: Any, y: np.ndarray) -> Callable:
    def run(depth: int) -> float:
        options = {"num_leaves": 2**depth, "objective": "none", "verbose": -1, "num_threads": 1}
        booster = lightgbm.Booster(options, data)
        ones = np.ones(len(y))
        return _median(lambda: booster.update(fobj=lambda raw, _: (raw - y, ones)))

    return run


def _light_tasks(lightgbm: Any, x: np.ndarray, y: np.ndarray, task: np.ndarray) -> Callable:
    options = {"num_leaves": 2, "objective": "none", "verbose": -1, "num_threads": 1}
    boosters = []
    for t in np.unique(task):
        own = y[task == t]
        data = lightgbm.Dataset(x[task == t], own, params={**options, "min_data_in_bin": 1})
        boosters.append((lightgbm.Booster(options, data), own))

    def step() -> None:
        for booster, own in boosters:
            booster.update(fobj=lambda raw, _, own=own: (raw - own, np.ones(len(own))))

    return lambda _: _median(step, 3)


def _exact(x: np.ndarray, y: np.ndarray) -> Callable:
    return lambda depth: _median(
        lambda: DecisionTreeRegressor(max_leaf_nodes=2**depth).fit(x, y), 3
    )


def _exact_tasks(x: np.ndarray, y: np.ndarray, task: np.ndarray) -> Callable:
    parts = [(x[task == t], y[task == t]) for t in np.unique(task)]

    def step() -> None:
        for own_x, own_y in parts:
            DecisionTreeRegressor(max_leaf_nodes=2).fit(own_x, own_y)

    return lambda _: _median(step, 3)


if __name__ == "__main__":
    raise SystemExit(main())
