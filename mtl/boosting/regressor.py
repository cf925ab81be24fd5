"""Robust multi-task gradient boosting for numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array

from mtl.boosting.base import RMTGB
from mtl.boosting.losses import AbsoluteError, Huber, Loss, SquaredError

Floats = NDArray[np.float64]


@dataclass(kw_only=True, repr=False, eq=False)
class RMTGBRegressor(RegressorMixin, RMTGB):
    """Gradient boosting of many tasks that finds outlier tasks and keeps them from the others.

    F_t(x) = start + F_shared(x) + (1 - s_t) F_non(x) + s_t F_out(x) + F_t,own(x), with the gate
    s_t = sigmoid(theta_t) of task t. Three blocks, one after the other: `n_shared` iterations of
    F_shared on all rows; `n_gated` iterations, each of a tree of F_out on residuals times s_t, a
    tree of F_non on residuals times 1 - s_t, and a step of every theta_t; `n_task` iterations of a
    tree for each task on its own rows. Tasks that need another function than most end with a gate
    of their own. The model is the same when F_out and F_non change places and theta its sign, so
    that the side of a gate means nothing: read `outlier_score_`.

    From Emami, Martinez-Munoz and Hernandez-Lobato, "Robust-Multi-Task Gradient Boosting", Expert
    Systems with Applications 2025, https://arxiv.org/abs/2507.11411. `RMTGBRegressor.paper()` is
    the official code's algorithm (stumps, zero start, mean residuals as leaves, theta by the sum
    of its gradient), without its faults: tasks are looked up by their label in `predict`, whatever
    else is in the batch, and every draw comes from `random_state`. The defaults differ: deeper
    trees, Newton leaves, a start at the mean, and a gate step that depends neither on the unit of
    the target nor on the number of rows. Trees of depth two and more are symmetric: all nodes of
    a level share one split.

    Special cases: pooled boosting (`n_gated=0, n_task=0`), boosting of each task alone
    (`n_shared=0, n_gated=0`), multi-task gradient boosting, MTGB (`n_gated=0`).

    Args:
        n_shared: Iterations of the shared block. With outliers it is better to have none.
        n_gated: Iterations of the gated block.
        n_task: Iterations of the task block.
        learning_rate: Factor of every tree.
        max_depth: Levels of the shared and gated trees, 1 to 12.
        max_depth_task: Levels of the task trees, 1 to 12.
        min_samples_leaf: Weight (rows) that a leaf of a shared or gated tree needs; one with less
            takes the value of its parent.
        min_samples_leaf_task: The same for task trees.
        l2: Added to the curvature (with `leaf="paper"` to the rows) of shared and gated leaves.
        l2_task: The same for task trees.
        subsample: Share of the rows that an iteration sees.
        max_features: Share of the features that an iteration sees.
        max_bins: Bins of a numeric feature; with fewer distinct values, no split is lost.
        max_bins_task: Bins in the task block, where neighbours are merged.
        leaf: What sums of residuals are divided by: with "newton" the curvature, in the gated block
            from iteration 50 on times the gate; with "paper" the rows.
        init: Start at the best constant ("prior") or at 0 ("zero").
        gate_step: "newton" or, as the paper, "gradient"; see `mtl.boosting.gates.GateStep`.
        gate_learning_rate: Its rate; None for 0.5 ("newton") or `learning_rate` ("gradient").
        gate_spread: Standard deviation of the initial theta.
        outlier_gate: Distance from the median gate beyond which a task may be an outlier.
        outlier_effect: Least `gate_effect_` of an outlier.
        task_as_category: Whether the shared block may split on the task.
        early_stopping: Whether each block ends after `n_iter_no_change` iterations that do not
            improve the loss on held-out rows, the task block for each task by itself.
        validation_fraction: Share of every task's rows held out for that.
        n_iter_no_change: Patience.
        refit: Whether the iterations found are then fitted again on all rows.
        categorical_features: Names, positions or a mask of categorical features, not counting
            the task column; "auto" takes the DataFrame columns that are not numeric.
        task_column: Name or position of the column of X that holds the task labels.
        unknown_task: What `predict` does with tasks that were not there in `fit`: "shared" warns
            and predicts with the median gate and no task trees, "error" raises.
        random_state: Seed of gates, subsamples and held-out rows. The draws of an iteration depend
            on the seed, the block and its number alone, so that more iterations only add to fewer.
        loss: "squared_error", "absolute_error" or "huber".
        huber_delta: Where Huber's loss turns linear, in robust standard deviations of the target.
        scale_target: Whether targets are divided by their standard deviation (1.4826 times the
            median absolute deviation for the robust losses), which makes outputs comparable.

    Attributes:
        tasks_: Sorted task labels [T]; arrays below are in this order.
        theta_, gate_: Gate parameters and gates at the end [T].
        gate_history_: Gates before and after each iteration of the gated block [n + 1, T].
        outlier_score_: Distance of each gate from the median gate [T], 0 to 1.
        gate_effect_: How much the mean loss of each task would rise with the median gate, in units
            of the loss of the constant start [T].
        outlier_tasks_: Labels of the outlier tasks: those beyond `outlier_gate` and
            `outlier_effect`, none if they would be half of the tasks or more.
        task_weights_: Weight of each task in the function that most tasks follow [T].
        gate_minority_: Share of tasks on the other side. Near one half the gate has found two
            groups, not outliers.
        n_shared_, n_gated_, n_iter_: Iterations of the blocks and in all.
        n_task_: Iterations of the task block for each task [T].
    """

    loss: str = "squared_error"
    huber_delta: float = 1.35
    scale_target: bool = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any, task: ArrayLike | None = None) -> Floats:
        """Predicted targets, of the shape of y in `fit`: [n] or [n, K]."""
        return self._outputs(self._raw(X, task))

    def staged_predict(
        self,
        X: Any,
        task: ArrayLike | None = None,
    ) -> Iterator[Floats]:
        """Predictions after each iteration of the shared, the gated and the task block.

        All of them use the final gates.
        """
        return map(self._outputs, self._stages(X, task))

    def score(
        self,
        X: Any,
        y: ArrayLike,
        task: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Coefficient of determination R^2 over all rows, 1 at best."""
        return float(r2_score(y, self.predict(X, task), sample_weight=sample_weight))

    def _targets(self, y: Any) -> NDArray:
        if y is None:
            raise ValueError("fit requires y to be passed, but the target y is None.")
        targets = check_array(
            y, ensure_2d=False, dtype=np.float64, input_name="y", ensure_min_samples=1
        )
        if targets.ndim > 2:
            raise ValueError(f"y has the shape {targets.shape}, expected [n] or [n, outputs].")
        return targets

    def _prepare(self, targets: NDArray, weight: Floats) -> tuple[Floats, Loss, Floats]:
        self._single = targets.ndim == 1
        y = np.ascontiguousarray(np.atleast_2d(targets.T))
        loss = self._loss()
        start = loss.start(y, weight) if self.init == "prior" else np.zeros(len(y))
        self._scale = self._spread(y, weight) if self.scale_target else np.ones(len(y))
        self._shift = start
        return (y - start[:, None]) / self._scale[:, None], loss, np.zeros(len(y))

    def _loss(self) -> Loss:
        if self.loss == "huber":
            return Huber(self.huber_delta)
        return SquaredError() if self.loss == "squared_error" else AbsoluteError()

    def _spread(self, y: Floats, weight: Floats) -> Floats:
        """Unit [K] of each output: a standard deviation, robust where the loss is; never 0."""
        if self.loss == "squared_error":
            mean = SquaredError().start(y, weight)[:, None]
            spread = np.sqrt(SquaredError().start((y - mean) ** 2, weight))
        else:
            median = AbsoluteError().start(y, weight)[:, None]
            spread = 1.4826 * AbsoluteError().start(np.abs(y - median), weight)
            mean_error = SquaredError().start(np.abs(y - median), weight)
            spread = np.where(spread > 0, spread, mean_error)
        return np.where(spread > 0, spread, 1.0)

    def _outputs(self, raw: Floats) -> Floats:
        values = raw.T * self._scale + self._shift
        return values[:, 0] if self._single else values
