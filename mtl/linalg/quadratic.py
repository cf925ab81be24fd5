"""Quadratic programs over the non-negative orthant: projections onto cones of gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from mtl.linalg.equilibrate import Matrix, Vector

Mask = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_RIDGE = 16 * _EPS
_EXCHANGES = 4


def nonnegative_qp(quadratic: Matrix, linear: Vector, free: Mask | None = None) -> Vector:
    """`argmin_z z^T Q z / 2 + q^T z` over `z >= 0`.

    First whole blocks of indices change sides between `z_i = 0` and `free` until the conditions of
    optimality hold, which takes a few solutions of linear systems as a rule. Where it does not
    settle, the method of Lawson and Hanson goes on from there, one index at a time: each step
    lowers the objective, so that no support comes twice. A ridge of rounding size makes the
    solution unique and keeps singular `Q` harmless.

    Args:
        quadratic: `Q`, positive semi-definite, `[m, m]`, with a diagonal of about one.
        linear: `q`, `[m]`; the objective should be bounded.
        free: Guess of the support, `[m]`.

    Returns:
        `z`, `[m]`.

    Raises:
        ArithmeticError: No solution to rounding accuracy was found, as for matrices that are not
            positive semi-definite.

    References:
        Portugal, Júdice, Vicente. A comparison of block pivoting and interior-point algorithms for
        linear least squares problems with nonnegative variables. Math. Comp. 63, 1994.
        Lawson, Hanson. Solving Least Squares Problems, chapter 23. 1974.
    """
    free = linear < 0 if free is None else free
    quadratic = quadratic.copy()
    quadratic.flat[:: len(linear) + 1] += _RIDGE * len(linear)
    largest = float(np.abs(linear).max())
    for _ in range(_EXCHANGES):
        z = _solve(quadratic, linear, free)
        slopes = quadratic @ z + linear
        wrong = np.where(free, z < 0, slopes < -_rounding(largest, z))
        if not wrong.any():
            return z
        free = free ^ wrong
    return _lawson_hanson(quadratic, linear, free)


def _lawson_hanson(quadratic: Matrix, linear: Vector, free: Mask) -> Vector:
    z = _solve(quadratic, linear, free)
    while z[z.argmin()] < 0:
        free = free & (z > 0)
        z = _solve(quadratic, linear, free)
    largest = float(np.abs(linear).max())
    taken = free.copy()  # and those where rounding makes the slope negative, but not the step
    for _ in range(20 * len(linear) + 20):
        slopes = quadratic @ z
        slopes += linear
        slopes[taken] = np.inf
        candidate = slopes.argmin()
        if slopes[candidate] >= 0 or slopes[candidate] >= -_rounding(largest, z):
            return z
        taken[candidate] = True
        trial = free.copy()
        trial[candidate] = True
        target = _solve(quadratic, linear, trial)
        if target[candidate] > 0:
            z, free = _walk(quadratic, linear, z, target, trial)
            taken = free.copy()
    raise ArithmeticError(
        "A quadratic program should settle for a matrix that is finite and positive semi-definite. "
        f"Got {quadratic.tolist()} with the linear part {linear.tolist()}. Lower the learning rate "
        "where gradients grow, or choose another method."
    )


def _walk(
    quadratic: Matrix, linear: Vector, z: Vector, target: Vector, free: Mask
) -> tuple[Vector, Mask]:
    """Goes to the minimizer over `free`, dropping what becomes zero on the way."""
    while target[target.argmin()] < 0:
        blocking = (target < 0).nonzero()[0]
        ratios = z[blocking] / (z[blocking] - target[blocking])
        first = ratios.argmin()
        z = z + ratios[first] * (target - z)
        z[blocking[first]] = 0.0
        z = np.maximum(z, 0.0)
        free = free & (z > 0)
        target = _solve(quadratic, linear, free)
    return target, free


def _solve(quadratic: Matrix, linear: Vector, free: Mask) -> Vector:
    """The minimizer with support `free`, any sign."""
    z = np.zeros(len(linear))
    index = free.nonzero()[0]
    if index.size:
        # LAPACK as it is: numpy's checks cost twice as much as the solution of ten equations.
        part, right = quadratic.take(index, 0).take(index, 1), linear[index]
        _, solution, failed = dposv(part, right)
        z[index] = -(np.linalg.solve(part, right) if failed else solution)
    return z


def _rounding(largest: float, z: Vector) -> float:
    """Of the slopes, where the largest entry of `q` is this."""
    return 8 * _EPS * len(z) * float(largest + np.abs(z).sum())
