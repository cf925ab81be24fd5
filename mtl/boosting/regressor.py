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
    """DOC"""

    loss: str = "squared_error"
    huber_delta: float = 1.35
    scale_target: bool = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any, task: ArrayLike | None = None) -> Floats:  # noqa: N803
        """Predicted targets, of the shape of y in `fit`: [n] or [n, K]."""
        return self._outputs(self._raw(X, task))

    def staged_predict(
        self,
        X: Any,  # noqa: N803
        task: ArrayLike | None = None,
    ) -> Iterator[Floats]:
        """Predictions after each iteration of the shared, the gated and the task block.

        All of them use the final gates.
        """
        return map(self._outputs, self._stages(X, task))

    def score(
        self,
        X: Any,  # noqa: N803
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
