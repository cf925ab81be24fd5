"""What methods are defined to give, from the Jacobian itself, by SciPy and decompositions.

No solver of `mtl.linalg` is used here: rows are brought to length one and then to
`min(m, n)` coordinates by a QR decomposition, which squares no condition number. Each function
takes the gradients, `[m, n]` in float64, and gives weights `[m]`, or `None` where the definition
has no solution or more than one direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, nnls

Array = NDArray[np.float64]
Reference = Callable[[Array], Array | None]

# Unit gradients with a singular value below this share of the largest count as dependent; and a
# convex combination of them below this length as zero, where a method has to tell.
RANK = 1e-3
STATIONARY = 1e-4


def unit(rows: Array) -> tuple[Array, Array]:
    """Rows of length one in the fewest coordinates, `[m, min(m, n)]`, and their norms, `[m]`."""
    norms = np.linalg.norm(rows, axis=1)
    _, triangle = np.linalg.qr((rows / norms[:, None]).T)
    return triangle.T, norms


def min_norm(rows: Array) -> Array:
    """`argmin_w |w J|` on the simplex: least squares `[J^T; 1] w = [0; 1]` over `w >= 0`."""
    units, norms = unit(rows)
    ones = norms.min() / norms
    x, _ = nnls(np.vstack([units.T, ones]), np.eye(len(units[0]) + 1)[-1], maxiter=10_000)
    weights = x * ones
    return weights / weights.sum()


def sdmgrad(rows: Array, strength: float) -> Array:
    """The shortest combination of the rows, each moved by a multiple of their mean."""
    weights = min_norm(rows + strength * rows.mean(0))
    return (weights + strength / len(rows)) / (1 + strength)


def dualproj(rows: Array) -> Array:
    """The mean, projected onto the dual cone."""
    return projected(rows, np.full(len(rows), 1 / len(rows)))


def upgrad(rows: Array) -> Array:
    """The mean of the rows, each projected onto the dual cone."""
    return np.mean([projected(rows, one) for one in np.eye(len(rows))], axis=0)


def projected(rows: Array, weights: Array) -> Array:
    """The combination with these non-negative weights, projected onto the dual cone."""
    units, norms = unit(rows)
    size = (weights * norms).max()
    z, _ = nnls(units.T, -(weights * norms / size) @ units, maxiter=10_000)
    return weights + size * z / norms


def cagrad(rows: Array, c: float) -> Array | None:
    """The point nearest to the mean with gains of `v`, and the `v` at the distance `c |g_0|`.

    The nearest point is a problem of least distance (Lawson and Hanson, chapter 23).
    """
    units, norms = unit(rows)
    norms, units = norms / norms.max(), units
    start = norms / len(norms)
    mean = start @ units
    radius = c * np.linalg.norm(mean)

    def moved(v: float) -> Array | None:
        need = v / norms - units @ mean
        matrix = np.vstack([units.T, need])
        target = np.eye(len(matrix))[-1]
        u, _ = nnls(matrix, target, maxiter=10_000)
        rest = target - matrix @ u
        return None if rest[-1] < 1e-13 else u / rest[-1]

    def excess(v: float) -> float:
        u = moved(v)
        return np.inf if u is None else float(np.linalg.norm(u @ units) - radius)

    low = float((norms * (units @ mean)).min())
    high = 0.0
    if low >= 0 or excess(0.0) < 0:
        shortest = min_norm(units * norms[:, None]) * norms
        if np.linalg.norm(shortest @ units) <= STATIONARY * shortest.sum():
            return None
        low = max(low, 0.0)
        high = (1 + c) * float(np.linalg.norm(mean) * np.linalg.norm(shortest @ units))
        while not np.isfinite(excess(high)):
            high = (low + high) / 2
    v = brentq(excess, low, high, xtol=1e-300, rtol=1e-15) if excess(high) > 0 else high
    u = moved(v)
    assert u is not None
    return (start + u) / norms


def fairgrad(rows: Array, alpha: float) -> Array | None:
    """The root of `(G w)_i = w_i^(-1/alpha)`, in logarithms of the weights."""
    units, norms = unit(rows)
    if np.linalg.norm(min_norm(units) @ units) < STATIONARY:
        return None
    # With x_i = w_i |g_i|: U U^T x = c x^(-1/alpha), where a convex function of x is least.
    scale = np.exp(np.log(norms).mean())
    factors = (norms / scale) ** (1 / alpha - 1)
    cosines, power = units @ units.T, 1 - 1 / alpha

    def value(logs: Array) -> float:
        x = np.exp(logs)
        utility = logs if alpha == 1 else x**power / power
        return float(np.sum((x @ units) ** 2) / 2 - factors @ utility)

    def slope(logs: Array) -> Array:
        x = np.exp(logs)
        return x * (units @ (x @ units)) - factors * x**power

    def curvature(logs: Array) -> Array:
        x = np.exp(logs)
        gains = x * (units @ (x @ units)) - factors * power * x**power
        return cosines * np.outer(x, x) + np.diag(gains)

    start = np.log(factors) * alpha / (1 + alpha)
    near = minimize(value, start, jac=slope, hess=curvature, method="trust-exact").x
    for _ in range(8):
        near = near - np.linalg.solve(curvature(near), slope(near))
    x = np.exp(near)
    if abs(slope(near) / (factors * x**power)).max() > 1e-9:
        raise ArithmeticError("The reference did not converge.")
    return x * scale ** ((1 - alpha) / (1 + alpha)) / norms


def imtl_g(rows: Array) -> Array:
    """Equal projections on the unit rows, of least norm; weights of sum one.

    Where no direction has them even in part (opposite rows), the bisector: `1 / |g_i|`.
    """
    x, norms = _equal_cosines(rows)
    if not x.any():
        x = np.ones(len(rows))
    return x / norms / (x / norms).sum()


def imtl_g_by_norms(rows: Array) -> Array:
    """TorchJD's extension to dependent gradients: `G^+ (|g_1|, ..., |g_m|)`.

    It is nearest to equal projections in `sum_i (<d, g_i> - |g_i|)^2`, where long gradients count
    for more, and `imtl_g` in `sum_i (<d, g_i / |g_i|> - 1)^2`; both zero for independent ones.
    """
    left, sizes = _singular(rows)
    norms = np.linalg.norm(rows, axis=1)
    weights = left @ (norms @ left / sizes**2)
    return weights / weights.sum()


def config(rows: Array) -> Array:
    """Equal cosines with the rows, as long as the sum of the projections."""
    x, norms = _equal_cosines(rows)
    units, _ = unit(rows)
    direction = x @ units
    square = direction @ direction
    return x / norms * (norms @ units @ direction / square if square else 0.0)


def _equal_cosines(rows: Array) -> tuple[Array, Array]:
    """Coordinates by unit rows of `U^+ 1`, by singular values, and the norms."""
    units, norms = unit(rows)
    left, sizes, _ = np.linalg.svd(units, full_matrices=False)
    kept = sizes > RANK * sizes[0]
    components = left[:, kept].sum(0)
    if np.linalg.norm(components) <= RANK**2 * np.sqrt(len(rows)):
        return np.zeros(len(rows)), norms
    return left[:, kept] @ (components / sizes[kept] ** 2), norms


def aligned_mtl(rows: Array, scale: str = "min") -> Array:
    """Singular values made equal."""
    left, sizes = _singular(rows)
    size = {
        "min": sizes[-1],
        "median": sizes[len(sizes) // 2],
        "rmse": np.sqrt(np.mean(sizes**2)),
    }[scale]
    return left @ (left.sum(0) * size / sizes)


def _singular(rows: Array) -> tuple[Array, Array]:
    """Left singular vectors and values; how many count is the rank of the unit rows."""
    sizes = np.linalg.svd(unit(rows)[0], compute_uv=False)
    rank = np.count_nonzero(sizes > RANK * sizes[0])
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    return left[:, :rank], singular[:rank]


def pcgrad(rows: Array, orders: Sequence[Sequence[int]]) -> Array:
    """Alg. 1 of the paper as it stands: the tasks in the order that each task visits them."""
    weights = np.zeros(len(rows))
    for i, order in enumerate(orders):
        own, turned = np.eye(len(rows))[i], rows[i].copy()
        for j in order:
            product = turned @ rows[j]
            if j != i and product < 0:
                factor = product / (rows[j] @ rows[j])
                turned -= factor * rows[j]
                own[j] -= factor
        weights += own
    return weights
