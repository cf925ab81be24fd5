"""Boosting methods with one interface and the same small search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.tabular import Table
from mtl.boosting import RMTGBRegressor

Options = dict[str, Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Predictor = Callable[[Rows], Floats]


def fit_rmtgb(table: Table, rows: Rows, options: Options, seed: int) -> Predictor:
    """R-MTGB."""
    model = RMTGBRegressor(**options, random_state=seed)
    model.fit(table.x.iloc[rows], table.y[rows], table.task[rows])
    return lambda new: model.predict(table.x.iloc[new], table.task[new])


def lightgbm_regressor(options: Options, seed: int) -> Any:
    """LightGBM on one thread."""
    return lightgbm.LGBMRegressor(**options, random_state=seed, n_jobs=1, verbose=-1)


def hist_regressor(options: Options, seed: int) -> Any:
    """scikit-learn's histogram booster; text columns and the task are categories."""
    return HistGradientBoostingRegressor(
        **options, categorical_features="from_dtype", random_state=seed
    )


def pooled(make: Callable[[Options, int], Any], *, with_task: bool) -> Callable[..., Predictor]:
    """One model on all rows, with the task as a category or without it."""

    def fit(table: Table, rows: Rows, options: Options, seed: int) -> Predictor:
        x = _categories(table, with_task=with_task)
        model = make(options, seed).fit(x.iloc[rows], table.y[rows])
        return lambda new: np.asarray(model.predict(x.iloc[new]))

    return fit


def per_task(make: Callable[[Options, int], Any]) -> Callable[..., Predictor]:
    """One model a task."""

    def fit(table: Table, rows: Rows, options: Options, seed: int) -> Predictor:
        x = _categories(table, with_task=False)
        models = {}
        for task in np.unique(table.task[rows]):
            own = rows[table.task[rows] == task]
            models[task] = make(options, seed).fit(x.iloc[own], table.y[own])

        def predict(new: Rows) -> Floats:
            out = np.empty(len(new))
            for task in np.unique(table.task[new]):
                own = table.task[new] == task
                out[own] = models[task].predict(x.iloc[new[own]])
            return out

        return predict

    return fit


def _categories(table: Table, *, with_task: bool) -> pd.DataFrame:
    x = table.x.copy()
    for column in x.columns:
        if x[column].dtype.kind not in "iuf":
            x[column] = x[column].astype("category")
    if with_task:
        x["task"] = pd.Categorical(table.task)
    return x


_SMALL: Options = {"max_depth_task": 1, "l2_task": 30.0}
RMTGB: list[Options] = [
    {"n_gated": 100, "n_task": 20, "max_depth": 3, **_SMALL},
    {"n_gated": 100, "n_task": 20, "max_depth": 6, **_SMALL},
    {"n_gated": 100, "n_task": 50, "max_depth": 4, "max_features": 0.5},
    {"n_gated": 300, "n_task": 100, "max_depth": 6},
    {"n_gated": 200, "n_task": 50, "max_depth": 4, "learning_rate": 0.05},
    {"n_shared": 100, "n_gated": 30, "n_task": 20, "max_depth": 3, **_SMALL},
    {"n_shared": 200, "n_gated": 50, "n_task": 20, "max_depth": 3, "learning_rate": 0.05, **_SMALL},
    {"n_shared": 100, "n_gated": 100, "n_task": 50, "max_depth": 6},
]
for _options in RMTGB:
    _options.update(subsample=0.7, task_as_category="n_shared" in _options)

_BAGGED: Options = {"subsample": 0.7, "subsample_freq": 1}
_RARE: Options = {"cat_smooth": 1, "min_data_per_group": 5}
LIGHTGBM: list[Options] = [
    {"n_estimators": 100, "num_leaves": 31},
    {"n_estimators": 100, "num_leaves": 7},
    {"n_estimators": 300, "num_leaves": 7, "learning_rate": 0.05, **_BAGGED},
    {"n_estimators": 300, "num_leaves": 15, "learning_rate": 0.05, **_BAGGED},
    {"n_estimators": 500, "num_leaves": 31, **_BAGGED},
    {"n_estimators": 100, "num_leaves": 7, **_RARE},
    {"n_estimators": 300, "num_leaves": 7, "learning_rate": 0.05, **_BAGGED, **_RARE},
    {"n_estimators": 300, "num_leaves": 15, **_BAGGED, **_RARE, "colsample_bytree": 0.5},
]
LIGHTGBM_TASK: list[Options] = [
    {"n_estimators": trees, "num_leaves": leaves, "min_child_samples": rows, "min_data_in_bin": 1}
    for trees in (30, 100)
    for leaves in (3, 8)
    for rows in (5, 20)
]
HIST: list[Options] = [
    {"max_iter": trees, "max_leaf_nodes": leaves, "l2_regularization": l2}
    for trees in (100, 300)
    for leaves in (7, 31)
    for l2 in (0.0, 10.0)
]
HIST_TASK: list[Options] = [
    {"max_iter": trees, "max_leaf_nodes": leaves, "min_samples_leaf": rows}
    for trees in (30, 100)
    for leaves in (3, 8)
    for rows in (5, 20)
]

CONTENDERS: Mapping[str, tuple[Callable[..., Predictor], list[Options]]] = {
    "R-MTGB": (fit_rmtgb, RMTGB),
    "LightGBM + task": (pooled(lightgbm_regressor, with_task=True), LIGHTGBM),
    "sklearn + task": (pooled(hist_regressor, with_task=True), HIST),
    "LightGBM pooled": (pooled(lightgbm_regressor, with_task=False), LIGHTGBM),
    "sklearn pooled": (pooled(hist_regressor, with_task=False), HIST),
    "LightGBM per task": (per_task(lightgbm_regressor), LIGHTGBM_TASK),
    "sklearn per task": (per_task(hist_regressor), HIST_TASK),
}
"""Name -> how to fit it, and eight candidates for the search."""
