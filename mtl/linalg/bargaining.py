"""Weights that are inversely related to what each task gains: Nash bargaining, alpha-fairness."""

from __future__ import annotations

import numpy as np
import torch

from mtl.linalg.equilibrate import Matrix, Vector
from mtl.linalg.min_norm import min_norm_weights

_FLOOR = 1e-8
_ITERATIONS = 200
_PATIENCE = 30
_EPS = float(np.finfo(np.float64).eps)


def fair_weights(cosines: Matrix, factors: Vector, alpha: float = 1.0) -> Vector:
    """The positive solution of `(K x)_i = c_i x_i^(-1/alpha)`, by damped Newton.

    It is where the strictly convex `x^T K x / 2 - sum_i c_i h(x_i)`, `h'(x) = x^(-1/alpha)`, is
    least. Newton steps are taken in relative changes `dx_i / x_i`, with a line search; they
    converge quadratically.

    There is no solution if a convex combination of the rows is zero. Where the shortest one has
    length `rho < 1e-4` (rows have length one), `1e-8 - rho^2` is added to the diagonal of `K`: so
    weights stay below `1e4` times a modest number, and change continuously.

    Args:
        cosines: `K`, positive semi-definite, `[r, r]`, with a diagonal of ones.
        factors: `c`, positive, `[r]`.
        alpha: > 0; 1 gives the Nash bargaining solution.

    Returns:
        `x`, `[r]`.

    Raises:
        ArithmeticError: Newton's method did not converge, as for matrices that are not positive
            semi-definite.
    """
    cosines = cosines + _ridge(cosines) * np.eye(len(cosines))
    power = 1 - 1 / alpha
    x = factors ** (alpha / (1 + alpha))  # the solution for orthogonal rows
    trust = 0.1 * min(1.0, alpha)
    for iteration in range(_ITERATIONS):
        gains = factors * x**power
        slopes = x * (cosines @ x) - gains
        unit = 1 / np.sqrt(x * x * cosines.diagonal() + gains / alpha)
        hessian = cosines * np.outer(unit * x, unit * x)
        hessian[np.diag_indices(len(x))] = 1.0
        change = unit * np.linalg.solve(hessian, -unit * slopes)
        largest = float(np.abs(change).max())
        size = float(gains.sum() + x @ np.abs(cosines) @ x)
        if largest > trust:
            growth = _line_search(cosines, factors, power, x, change, float(slopes @ change))
        else:
            growth = _curved(change)
        x = x * growth
        if largest < 1e-7:  # the step just made squares the error
            return x
        if iteration > _PATIENCE and -float(slopes @ change) <= _EPS * size:  # rounding is left
            return x
    if -float(slopes @ change) <= 1e-10 * size:  # norms or powers spread over many orders
        return x
    raise ArithmeticError(
        f"Fair weights should converge for cosines that are finite and positive semi-definite. Got "
        f"{cosines.tolist()} with factors {factors.tolist()} and alpha={alpha}. Choose a smaller "
        "`alpha`, or lower the learning rate where gradients grow."
    )


def _ridge(cosines: Matrix) -> float:
    """What to add to the diagonal so that no convex combination is shorter than the floor."""
    if np.linalg.eigvalsh(cosines)[0] >= len(cosines) * _FLOOR:  # then no combination is
        return 0.0
    shortest = min_norm_weights(torch.from_numpy(cosines)).numpy()
    return max(0.0, _FLOOR - float(shortest @ cosines @ shortest))


def _curved(change: Vector) -> Vector:
    """Positive factors, `1 + change` to first order."""
    return np.where(change > 0, 1 + change, 1 / (1 - np.minimum(change, 0)))


def _line_search(
    cosines: Matrix, factors: Vector, power: float, x: Vector, change: Vector, slope: float
) -> Vector:
    """Factors of `x` that lower the objective.

    Along a curve that lets weights shrink by any factor at once; and where that is not a good way,
    along the straight line.
    """

    def objective(growth: Vector) -> float:
        there = x * growth
        utility = np.log(there) if power == 0 else there**power / power
        return float(0.5 * there @ cosines @ there - factors @ utility)

    step, start = 1.0, objective(np.ones_like(x))
    while step > 0.05:
        curved = _curved(step * change)
        if objective(curved) <= start + 1e-4 * step * slope:
            return curved
        step *= 0.5
    step = min(1.0, 0.95 / max(float(-change.min()), 1e-300))
    straight = 1 + step * change
    while step > 1e-12 and objective(straight) > start + 1e-4 * step * slope:
        step *= 0.5
        straight = 1 + step * change
    return straight if objective(straight) < objective(curved) else curved
