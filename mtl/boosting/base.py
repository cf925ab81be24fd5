"""Robust multi-task gradient boosting with scikit-learn's interface."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from mtl.boosting.binning import Binner
from mtl.boosting.blocks import Settings
from mtl.boosting.fitting import Problem, fit
from mtl.boosting.gates import GateStep, minority, outlier_score
from mtl.boosting.inputs import (
    FeatureEncoder,
    TaskIndex,
    as_table,
    is_frame,
    refuse_sparse,
    split_task_column,
    task_labels,
)
from mtl.boosting.losses import Loss
from mtl.boosting.parameters import PAPER, check_parameters
from mtl.boosting.trees import Growth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_BATCH = 1 << 16


@dataclass(kw_only=True, repr=False, eq=False)
class RMTGB(BaseEstimator):
    """What the regressor and the classifier have in common; their docstrings say the parameters."""

    n_shared: int = 0
    n_gated: int = 100
    n_task: int = 50
    learning_rate: float = 0.1
    max_depth: int = 5
    max_depth_task: int = 2
    min_samples_leaf: int = 10
    min_samples_leaf_task: int = 5
    l2: float = 1.0
    l2_task: float = 10.0
    subsample: float = 1.0
    max_features: float = 1.0
    max_bins: int = 255
    max_bins_task: int = 32
    leaf: str = "newton"
    init: str = "prior"
    gate_step: str = "newton"
    gate_learning_rate: float | None = None
    gate_spread: float = 0.1
    outlier_gate: float = 0.5
    outlier_effect: float = 0.1
    task_as_category: bool = False
    early_stopping: bool = False
    validation_fraction: float = 0.15
    n_iter_no_change: int = 20
    refit: bool = True
    categorical_features: str | Sequence[str | int | bool] | None = "auto"
    task_column: str | int | None = None
    unknown_task: str = "shared"
    random_state: int | np.random.RandomState | None = None

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """An estimator with the paper's settings: stumps, residual means as leaves, zero start.

        Args:
            **changes: Parameters that differ from them, such as the number of iterations.
        """
        known = cls().get_params()
        paper = {name: value for name, value in PAPER.items() if name in known}
        return cls(**{**paper, **changes})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        task: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fits the three blocks.

        Args:
            X: Features [n, d]: an array of numbers or a DataFrame; NaN counts as missing.
            y: Targets [n], for the regressor also [n, K].
            task: Label of each row's task [n]: numbers or strings, in any order, with any gaps.
                Without it and without `task_column`, all rows are one task. Rows without a label
                form a task of their own, with a warning.
            sample_weight: Weights [n], not negative; rows of weight 0 are left out.

        Returns:
            The estimator.

        Raises:
            ValueError: A parameter is out of range, lengths differ, a target is missing,
                `task_column` does not exist, or both it and `task` are given.
            TypeError: X is sparse.
        """
        check_parameters(self)
        x, labels = self._table(X, task, reset=True)
        targets = self._targets(y)
        weight = _weights(sample_weight, len(targets))
        check_consistent_length(x, targets, weight)
        keep = weight > 0
        if not keep.all():
            x = x.iloc[keep] if is_frame(x) else x[keep]
            targets, weight, labels = targets[keep], weight[keep], labels[keep]
        self._index = TaskIndex(labels)
        self._encoder = FeatureEncoder(self.categorical_features).fit(x)
        features = self._encoder.transform(x)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._binner = Binner(self.max_bins, self._encoder.categorical).fit(features, seed)
        codes = self._binner.transform(features)
        del features
        raw_targets, loss, start = self._prepare(targets, weight)
        number = self._index(labels)
        self._index.renumber(_signature(np.vstack([raw_targets, codes.values]), number, weight))
        number = self._index(labels)
        order = np.argsort(number, kind="stable")
        codes.values = codes.values.take(order, axis=1)
        problem = Problem(codes, raw_targets[:, order], number[order], weight[order], loss, start)
        self._ensemble = fit(problem, self._settings(seed))
        self._describe()
        return self

    def _settings(self, seed: int) -> Settings:
        newton = self.gate_step == "newton"
        default = 0.5 if newton else self.learning_rate
        rate = default if self.gate_learning_rate is None else self.gate_learning_rate
        return Settings(
            rounds=(self.n_shared, self.n_gated, self.n_task),
            growth=Growth(self.max_depth, self.min_samples_leaf, self.l2, self.learning_rate),
            growth_task=Growth(
                self.max_depth_task, self.min_samples_leaf_task, self.l2_task, self.learning_rate
            ),
            newton=self.leaf == "newton",
            gate_step=GateStep(self.gate_step, rate),
            gate_spread=self.gate_spread,
            subsample=self.subsample,
            max_features=self.max_features,
            bins_task=self.max_bins_task,
            task_as_category=self.task_as_category,
            patience=self.n_iter_no_change if self.early_stopping else None,
            held_out=self.validation_fraction,
            refit=self.refit,
            seed=seed,
        )

    def _table(self, x: Any, task: Any, *, reset: bool) -> tuple[Any, NDArray]:
        """Features without the task column, and the task labels [n]."""
        name = type(self).__name__
        refuse_sparse(x, name)
        x = as_table(x, name)
        validate_data(self, x, reset=reset, skip_check_array=True)
        if task is not None and self.task_column is not None:
            raise ValueError(
                f"both task= and task_column={self.task_column!r} name the tasks; give one."
            )
        features, column = split_task_column(x, self.task_column)
        given = task if column is None else column
        if reset:
            self._has_tasks = given is not None
        elif given is None and self._has_tasks:
            raise ValueError(
                f"this {name} was fitted with task=; pass the task of each row here too."
            )
        elif given is not None and not self._has_tasks:
            raise ValueError(f"this {name} was fitted without task=; fit it with task labels.")
        if given is None:
            return features, np.zeros(len(features), dtype=np.int64)
        return features, task_labels(given, len(features))

    @abstractmethod
    def _targets(self, y: Any) -> NDArray:
        """Checked targets [n, ...]."""

    @abstractmethod
    def _prepare(self, targets: NDArray, weight: Floats) -> tuple[Floats, Loss, Floats]:
        """Targets [K, n] as the blocks see them, the loss, and the constant to start from."""

    def _describe(self) -> None:
        """Writes the fitted attributes, in the order of `tasks_`."""
        ensemble, number = self._ensemble, self._index.number
        self.tasks_ = self._index.labels
        self.theta_ = ensemble.theta[number]
        self.gate_ = expit(self.theta_)
        self.gate_history_ = expit(np.array(ensemble.theta_history)[:, number])
        self.outlier_score_ = outlier_score(self.gate_)
        self.gate_effect_ = ensemble.gate_effect[number]
        outside = self.outlier_score_ > self.outlier_gate
        outside &= self.gate_effect_ > self.outlier_effect
        few = 2 * outside.sum() < len(outside)
        self.outlier_tasks_ = self.tasks_[outside] if few else self.tasks_[:0]
        self.task_weights_ = 1 - minority(self.gate_)
        self.gate_minority_ = float(np.mean(minority(self.gate_) > 0.5))
        self.n_shared_, self.n_gated_ = len(ensemble.shared), len(ensemble.gated)
        self.n_task_ = ensemble.task_rounds[number]
        self.n_iter_ = self.n_shared_ + self.n_gated_ + len(ensemble.own)

    def _stages(self, x: Any, task: Any) -> Iterator[Floats]:
        """Raw predictions [K, n] after each iteration, all in the same array."""
        check_is_fitted(self)
        features, labels = self._table(x, task, reset=False)
        codes = self._binner.transform(self._encoder.transform(features))
        return self._ensemble.stages(codes, self._numbers(labels))

    def _numbers(self, labels: NDArray) -> NDArray[np.int64]:
        """Task numbers [n]; -1 for tasks that were not there in `fit`."""
        number = self._index(labels)
        unknown = sorted(set(labels[number < 0].tolist()), key=str)
        if unknown:
            names = ", ".join(map(repr, unknown[:5]))
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            if self.unknown_task == "error":
                raise ValueError(
                    f"task(s) {names}{more} were not there in fit; unknown_task='shared' predicts "
                    "them from what the tasks share."
                )
            warnings.warn(
                f"task(s) {names}{more} were not there in fit: predicted from what tasks share.",
                UserWarning,
                stacklevel=4,
            )
        return number

    def _raw(self, x: Any, task: Any) -> Floats:
        """Raw predictions [K, n]."""
        check_is_fitted(self)
        features, labels = self._table(x, task, reset=False)
        number = self._numbers(labels)
        parts = []
        for begin in range(0, len(number), _BATCH):
            rows = slice(begin, begin + _BATCH)
            part = features.iloc[rows] if is_frame(features) else features[rows]
            codes = self._binner.transform(self._encoder.transform(part))
            parts.append(self._ensemble.predict(codes, number[rows]))
        return np.concatenate(parts, axis=1)

    def plot_gates(self, ax: Axes | None = None) -> Axes:
        """Draws the gate of every task over the iterations of the gated block.

        Args:
            ax: Where to draw; a new figure without it.

        Returns:
            The axes. Outlier tasks are drawn in colour with their labels, the others in grey.
        """
        check_is_fitted(self)
        from mtl.boosting.plot import plot_gates

        return plot_gates(self.gate_history_, self.tasks_, self.outlier_tasks_, ax)


def _weights(sample_weight: ArrayLike | None, n: int) -> Floats:
    if sample_weight is None:
        return np.ones(n)
    weight = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.ndim != 1 or len(weight) != n:
        raise ValueError(f"sample_weight has shape {weight.shape}, expected ({n},): one a row.")
    if (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight must not be negative, and not zero everywhere.")
    return np.asarray(weight, dtype=np.float64)


def _signature(values: Floats, task: NDArray[np.int64], weight: Floats) -> Floats:
    """Means [T, k] of the values [k, n] in each task: an order that no renaming changes."""
    total = np.bincount(task, weight)
    means = [np.bincount(task, weight * row) / total for row in values]
    return np.asarray(np.round(np.array(means), 9).T, dtype=np.float64)
