"""Robust multi-task gradient boosting for classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from mtl.boosting.base import RMTGB
from mtl.boosting.losses import BinaryLogLoss, Loss, MulticlassLogLoss

Floats = NDArray[np.float64]


@dataclass(kw_only=True, repr=False, eq=False)
class RMTGBClassifier(ClassifierMixin, RMTGB):
    """Gradient boosting of many tasks that finds outlier tasks, for classes.

    Minimizes the log loss with one logit for two classes, else one output a class; the trees of
    all outputs share their splits. A task need not have all classes. Blocks, arguments and
    attributes are those of `RMTGBRegressor`, without its `loss`, `huber_delta` and `scale_target`.

    The official code has two outputs for two classes. It is `RMTGBClassifier.paper` with twice its
    learning rate and `gate_learning_rate` at its learning rate.

    Attributes:
        classes_: Sorted class labels.
    """

    def predict(self, X: Any, task: ArrayLike | None = None) -> NDArray:
        """The most probable class of each row [n]."""
        return self._classes(self._raw(X, task))

    def predict_proba(self, X: Any, task: ArrayLike | None = None) -> Floats:
        """Probabilities [n, classes] in the order of `classes_`."""
        return _probabilities(self._raw(X, task))

    def decision_function(self, X: Any, task: ArrayLike | None = None) -> Floats:
        """Raw predictions: the logit of the second class [n], or one a class [n, classes]."""
        raw = self._raw(X, task)
        return raw[0] if len(raw) == 1 else raw.T

    def staged_predict(
        self,
        X: Any,
        task: ArrayLike | None = None,
    ) -> Iterator[NDArray]:
        """Classes after each iteration of the shared, the gated and the task block.

        All of them use the final gates.
        """
        return map(self._classes, self._stages(X, task))

    def staged_predict_proba(
        self,
        X: Any,
        task: ArrayLike | None = None,
    ) -> Iterator[Floats]:
        """Probabilities after each iteration, as `staged_predict`."""
        return map(_probabilities, self._stages(X, task))

    def score(
        self,
        X: Any,
        y: ArrayLike,
        task: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Share of rows whose class is right."""
        return float(accuracy_score(y, self.predict(X, task), sample_weight=sample_weight))

    def _targets(self, y: Any) -> NDArray:
        if y is None:
            raise ValueError("fit requires y to be passed, but the target y is None.")
        check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        return column_or_1d(y, warn=True)

    def _prepare(self, targets: NDArray, weight: Floats) -> tuple[Floats, Loss, Floats]:
        self.classes_, number = np.unique(targets, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[0]!r}; a classifier needs at least 2. "
                "(A task may well have one class: give the rows of all tasks together.)"
            )
        y = number[None].astype(float)
        loss: Loss = BinaryLogLoss() if count == 2 else MulticlassLogLoss(count)
        outputs = 1 if count == 2 else count
        start = loss.start(y, weight) if self.init == "prior" else np.zeros(outputs)
        return y, loss, start

    def _classes(self, raw: Floats) -> NDArray:
        number = (raw[0] > 0).astype(int) if len(raw) == 1 else raw.argmax(axis=0)
        return self.classes_[number]


def _probabilities(raw: Floats) -> Floats:
    if len(raw) == 1:
        return np.column_stack([expit(-raw[0]), expit(raw[0])])
    return softmax(raw, axis=0).T
