"""The outlier gate: one number a task, and what is read from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAMPING = 0.01
_LARGEST_STEP = 1.0


@dataclass(frozen=True)
class GateStep:
    """One step of the gate parameters theta [T], with s = sigmoid(theta).

    The model is H = ... + s F_out + (1 - s) F_non, so that dL_t/dtheta_t = -s (1 - s) sum_i r_i
    (F_out - F_non)(x_i) over the rows i of task t, with the residual r = -dl/dH.

    * `"gradient"`: theta -= rate dL/dtheta, the paper's; grows with the rows of a task and with
      the unit of the target.
    * `"newton"`: theta -= clip(rate dL/dtheta / (h + 0.01 c), -1, 1) with the Gauss-Newton
      curvature h = sum_i l'' (s (1 - s) (F_out - F_non))^2 and c = sum_i l''; depends on neither.

    Args:
        kind: `"gradient"` or `"newton"`.
        rate: Step size, positive.
    """

    kind: str
    rate: float

    def __call__(
        self, theta: Floats, residual: Floats, curvature: Floats, difference: Floats, first: Ints
    ) -> Floats:
        """The next theta.

        Args:
            theta: [T].
            residual: [K, n], rows sorted by task, times the weights of the rows.
            curvature: [K or 1, n], times the weights of the rows.
            difference: F_out - F_non [K, n].
            first: First row of each task [T].
        """
        gate = expit(theta)
        slope = gate * (1 - gate)
        gradient = -slope * task_sums((residual * difference).sum(0), first)
        if self.kind == "gradient":
            return theta - self.rate * gradient
        bend = slope**2 * task_sums((curvature * difference**2).sum(0), first)
        bend += _DAMPING * task_sums(curvature.sum(0), first)
        move = np.divide(self.rate * gradient, bend, out=np.zeros_like(theta), where=bend > 0)
        return theta - np.clip(move, -_LARGEST_STEP, _LARGEST_STEP)


def task_sums(values: Floats, first: Ints) -> Floats:
    """Sums [T] over the rows [n] of each task, which begin at `first`."""
    return np.add.reduceat(values, first)


def outlier_score(gate: Floats) -> Floats:
    """|s - median(s)| of gates [T]: the same when the two gated functions change places."""
    return np.abs(gate - np.median(gate))


def minority(gate: Floats) -> Floats:
    """Weight [T] of the function that the minority of tasks follows, from the gates of all.

    The gate's orientation is arbitrary; here the median task is below one half.
    """
    return gate if np.median(gate) <= 0.5 else 1 - gate
