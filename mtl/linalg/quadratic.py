"""Quadratic programs over the non-negative orthant: projections onto cones of gradients."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv
from scipy.optimize import nnls

from mtl.linalg.equilibrate import Matrix, Vector

Mask = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_RIDGE = 16 * _EPS
_EXCHANGES = 4


class NonnegativeQP:
    """`argmin_z z^T Q z / 2 + q^T z` over `z >= 0`, for one Q and any number of q.

    First whole blocks of indices change sides between `z_i = 0` and `free` until the conditions of
    optimality hold, which takes a few solutions of linear systems as a rule. Where it does not
    settle, as with dependent rows, this and all further programs go to the method of Lawson and
    Hanson, `min |A z + A^-T q|` with `A^T A = Q`. A ridge of rounding size makes the solution
    unique and keeps singular `Q` harmless.

    Args:
        quadratic: `Q`, positive semi-definite, `[m, m]`, with a diagonal of about one.

    References:
        Portugal, Júdice, Vicente. A comparison of block pivoting and interior-point algorithms for
        linear least squares problems with nonnegative variables. Math. Comp. 63, 1994.
        Lawson, Hanson. Solving Least Squares Problems, chapter 23. 1974.
    """

    def __init__(self, quadratic: Matrix) -> None:
        self._quadratic = quadratic.copy()
        self._quadratic.flat[:: len(quadratic) + 1] += _RIDGE * len(quadratic)
        self._settles = True

    def solve(self, linear: Vector, free: Mask | None = None) -> Vector:
        """The solution `z`, `[m]`.

        Args:
            linear: `q`, `[m]`; the objective should be bounded.
            free: Guess of the support, `[m]`.

        Raises:
            ArithmeticError: No solution was found within some twenty iterations a row.
        """
        free = linear < 0 if free is None else free
        largest = float(np.abs(linear).max())
        for _ in range(_EXCHANGES * self._settles):
            z = _solve(self._quadratic, linear, free)
            slopes = self._quadratic @ z + linear
            wrong = np.where(free, z < 0, slopes < -_rounding(largest, z))
            if not wrong.any():
                return z
            free = free ^ wrong
        self._settles = False
        return self._least_squares(linear)

    def _least_squares(self, linear: Vector) -> Vector:
        root, inverse = self._roots
        try:
            return nnls(root, -(inverse @ linear), maxiter=20 * len(linear) + 20)[0]
        except RuntimeError as error:
            raise ArithmeticError(
                "A quadratic program should settle for the cosines of finite gradients. Got "
                f"{self._quadratic.tolist()} with the linear part "
                f"{linear.tolist()}. Lower the learning rate where gradients grow, or choose "
                "another method."
            ) from error

    @cached_property
    def _roots(self) -> tuple[Matrix, Matrix]:
        """`A` with `A^T A = Q`, and `A^-T`."""
        values, vectors = np.linalg.eigh(self._quadratic)
        root = np.sqrt(np.maximum(values, _RIDGE))[:, None]
        return root * vectors.T, vectors.T / root


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
