"""Partitions of an ordered set into intervals of least cost, exactly.

Intervals are `[l, r]`, inclusive, in the code; bounds are half-open, as everywhere outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mtl.errors import ConfigError

Objective = Literal["timestep", "snr", "gradient", "cost"]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Costs = Callable[[Integers, Integers], Vector]

_BLOCK = 256  # rows of the cost matrix that are searched at once


def interval_clusters(
    cost_or_values: int | ArrayLike | Tensor,
    k: int,
    objective: Objective = "timestep",
    *,
    min_size: int = 1,
    max_size: int | None = None,
) -> list[int]:
    """Cuts `0..T-1` into k intervals with the least sum of costs, by dynamic programming.

    | objective | first argument | cost of the interval [l, r], with c = (l + r + 1) // 2 |
    |---|---|---|
    | `timestep` | T, or values that grow | `sum_t abs(x_t - x_c)`, `x_t = t` |
    | `snr` | log SNR of each t, monotone | `sum_t abs(x_t - x_c)` |
    | `gradient` | affinities of t and t', `[T, T]` | `-sum_t A[c, t]` |
    | `cost` | any costs, `[T, T]` | `W[l, r]` |

    The result is optimal (for `timestep` and `snr` up to rounding). Absolute deviations from the
    middle satisfy the quadrangle inequality, so that those take O(k T log T) by divide and
    conquer; affinities do not, and take O(k T^2). Among equal costs, `timestep` prefers equal
    sizes.

    Args:
        cost_or_values: See the table.
        k: Number of intervals, 1 to T.
        objective: See the table.
        min_size: Least size of an interval.
        max_size: Greatest size; default: no limit.

    Returns:
        k + 1 bounds: cluster c is `bounds[c]..bounds[c + 1] - 1`; the first is 0, the last T.

    Raises:
        ConfigError: Values are not finite or not monotone, a matrix is not square, k is not in
            1..T, or the limits cannot be met.

    Example:
        >>> interval_clusters(1000, 5)
        [0, 200, 400, 600, 800, 1000]
        >>> interval_clusters([0.0, 0.1, 0.2, 5.0, 5.1], 2, "snr")
        [0, 3, 5]

    The official code decodes its table off by one, ends at 1000 whatever T is, leaves out some
    partitions, and takes seconds; it takes the raw SNR, of which one interval gets nearly all
    steps, so give the logarithm.

    References:
        Go, Kim, Lee, Lee, Park, Lee. Addressing Negative Transfer in Diffusion Models. NeurIPS
        2023. https://arxiv.org/abs/2306.00354
        Groenlund, Larsen, Mathiasen, Nielsen, Schneider, Song. Fast Exact k-Means, k-Medians and
        Bregman Divergence Clustering in 1D (on the quadrangle inequality).
        https://arxiv.org/abs/1701.07204
    """
    if objective not in get_args(Objective):
        raise ConfigError(
            f"`objective` should be one of {', '.join(get_args(Objective))}. Got {objective!r}."
        )
    if objective in ("timestep", "snr"):
        values = _values(cost_or_values, objective)
        limits = _Limits(len(values), k, min_size, max_size)
        return _divide_and_conquer(_deviations(values, equal=objective == "timestep"), limits)
    matrix = _matrix(cost_or_values, objective)
    limits = _Limits(len(matrix), k, min_size, max_size)
    return _full_programme(matrix if objective == "cost" else _dissimilarities(matrix), limits)


def clustering_cost(
    cost_or_values: int | ArrayLike | Tensor, bounds: list[int], objective: Objective = "timestep"
) -> float:
    """The sum of costs that `interval_clusters` minimizes, term by term.

    Args:
        cost_or_values: As in `interval_clusters`.
        bounds: k + 1 half-open bounds.
        objective: As in `interval_clusters`.
    """
    total = 0.0
    pairs = [(left, end - 1) for left, end in itertools.pairwise(bounds)]
    if objective in ("timestep", "snr"):
        values = _values(cost_or_values, objective)
        for left, right in pairs:
            middle = values[(left + right + 1) // 2]
            total += float(np.abs(values[left : right + 1] - middle).sum())
        return total
    matrix = _matrix(cost_or_values, objective)
    for left, right in pairs:
        row = matrix[(left + right + 1) // 2, left : right + 1]
        total += float(matrix[left, right] if objective == "cost" else -row.sum())
    return total


class _Limits:
    """Which sizes and prefixes are possible; infeasible demands are refused."""

    def __init__(self, length: int, k: int, least: int, most: int | None) -> None:
        most = length if most is None else most
        if not 1 <= k <= length:
            raise ConfigError(
                f"`k` should be between 1 and {length}, the number of things to cluster. Got {k}."
            )
        if least < 1 or most < least or k * least > length or k * most < length:
            raise ConfigError(
                f"`min_size` and `max_size` should allow {k} intervals of {length} in all: "
                f"{k} * min_size <= {length} <= {k} * max_size. Got min_size={least}, "
                f"max_size={most}."
            )
        self.length, self.k, self.least, self.most = length, k, least, min(most, length)

    def ends(self, layer: int) -> tuple[int, int]:
        """First and last end r of so many intervals (layer + 1) that can begin at 0."""
        first = (layer + 1) * self.least - 1
        return first, min((layer + 1) * self.most, self.length) - 1


def _divide_and_conquer(costs: Costs, limits: _Limits) -> list[int]:
    """The programme for costs that satisfy the quadrangle inequality: best starts grow with r.

    All nodes of one depth of the recursion are searched together. Inside the size limits the
    inequality still holds: where the two crossed intervals are allowed, the others are too.
    """
    first, last = limits.ends(0)
    ends = np.arange(first, last + 1)
    best = np.full(limits.length, np.inf)
    best[ends] = costs(np.zeros_like(ends), ends)
    starts = []
    for layer in range(1, limits.k):
        before = limits.ends(layer - 1)
        first, last = limits.ends(layer)
        total = np.full(limits.length, np.inf)
        start = np.zeros(limits.length, np.int64)
        low, high = np.array([first]), np.array([last])
        left, right = np.array([before[0] + 1]), np.array([before[1] + 1])
        while len(low):
            middle = (low + high) // 2
            begin = np.maximum(left, middle - limits.most + 1)
            end = np.minimum(right, middle - limits.least + 1)
            total[middle], start[middle] = _best_starts(costs, best, middle, begin, end)
            found = start[middle]
            below, above = low < middle, middle < high
            low = np.concatenate([low[below], middle[above] + 1])
            high = np.concatenate([middle[below] - 1, high[above]])
            left = np.concatenate([left[below], found[above]])
            right = np.concatenate([found[below], right[above]])
        best = total
        starts.append(start)
    return _decode(starts, limits)


def _best_starts(
    costs: Costs, best: Vector, middle: Integers, begin: Integers, end: Integers
) -> tuple[Vector, Integers]:
    """For each end the least cost over starts in begin..end, and the first start that has it."""
    counts = end - begin + 1
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    node = np.repeat(np.arange(len(middle)), counts)
    candidates = np.arange(counts.sum()) - offsets[node] + begin[node]
    values = best[candidates - 1] + costs(candidates, middle[node])
    least = np.minimum.reduceat(values, offsets)
    hits = np.flatnonzero(values == least[node])
    firsts = hits[np.unique(node[hits], return_index=True)[1]]
    return least, candidates[firsts]


def _full_programme(costs: Matrix, limits: _Limits) -> list[int]:
    """The programme for any costs, `costs[l, r]`."""
    by_end = np.ascontiguousarray(costs.T)
    size = np.arange(limits.length)[:, None] - np.arange(limits.length)[None, :] + 1
    by_end[(size < limits.least) | (size > limits.most)] = np.inf
    best = by_end[:, 0].copy()
    starts = []
    for _ in range(1, limits.k):
        total = np.full(limits.length, np.inf)
        start = np.zeros(limits.length, np.int64)
        for first in range(0, limits.length, _BLOCK):
            rows = slice(first, min(first + _BLOCK, limits.length))
            if rows.stop == 1:
                continue  # nothing can begin before the only element
            sums = by_end[rows, 1 : rows.stop] + best[: rows.stop - 1]
            place = sums.argmin(1)
            total[rows] = sums[np.arange(len(place)), place]
            start[rows] = place + 1
        best = total
        starts.append(start)
    return _decode(starts, limits)


def _decode(starts: list[Integers], limits: _Limits) -> list[int]:
    bounds = [limits.length]
    for start in reversed(starts):
        bounds.append(int(start[bounds[-1] - 1]))
    return [0, *reversed(bounds)]


def _deviations(values: Vector, *, equal: bool) -> Costs:
    """Sums of absolute deviations from the middle element, by prefix sums."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    # Costs of equally spaced values are multiples of the spacing: a tie is broken by far less.
    spacing = float(np.diff(values).min()) if len(values) > 1 else 0.0
    tie = 0.25 * spacing / len(values) ** 2 if equal else 0.0

    def costs(left: Integers, right: Integers) -> Vector:
        middle = (left + right) // 2
        below = values[middle] * (middle - left + 1) - (sums[middle + 1] - sums[left])
        above = sums[right + 1] - sums[middle + 1] - values[middle] * (right - middle)
        return below + above + tie * (right - left + 1.0) ** 2

    return costs


def _dissimilarities(affinity: Matrix) -> Matrix:
    """`W[l, r] = -sum_{t=l..r} A[c, t]` with the upper middle c, by prefix sums of each row."""
    length = len(affinity)
    sums = np.concatenate([np.zeros((length, 1)), np.cumsum(affinity, 1)], 1)
    right = np.arange(length)
    costs = np.full((length, length), np.inf)
    for left in range(length):
        ends = right[left:]
        middle = (left + ends + 1) // 2
        costs[left, left:] = sums[middle, left] - sums[middle, ends + 1]
    return costs


def _values(given: int | ArrayLike | Tensor, objective: str) -> Vector:
    if isinstance(given, int):
        given = np.arange(given)
    values = _array(given)
    steps = np.diff(values) if values.ndim == 1 else values
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ConfigError(
            f"The values of objective={objective!r} should be a sequence of finite numbers. Got "
            f"shape {list(values.shape)}{_nonfinite(values)}."
        )
    if not ((steps >= 0).all() or (steps <= 0).all()):
        wrong = int(np.flatnonzero(np.sign(steps) == -np.sign(values[-1] - values[0]))[0])
        raise ConfigError(
            f"The values of objective={objective!r} should be monotone. Got {values[wrong]:.6g}, "
            f"then {values[wrong + 1]:.6g} at position {wrong + 1}, between {values[0]:.6g} and "
            f"{values[-1]:.6g}. Sort them, or give costs with objective='cost'."
        )
    return values if (steps >= 0).all() else -values


def _matrix(given: int | ArrayLike | Tensor, objective: str) -> Matrix:
    matrix = _array(given)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and len(matrix) > 0
    used = np.triu(matrix) if square and objective == "cost" else matrix
    if not square or np.isnan(used).any() or (objective == "gradient" and np.isinf(used).any()):
        what = "costs" if objective == "cost" else "affinities"
        raise ConfigError(
            f"The {what} of objective={objective!r} should be a square matrix of finite numbers. "
            f"Got shape {list(matrix.shape)}{_nonfinite(used)}."
        )
    return matrix


def _array(given: int | ArrayLike | Tensor) -> NDArray[np.float64]:
    given = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    return np.array(given, np.float64)


def _nonfinite(values: NDArray[np.float64]) -> str:
    bad = int((~np.isfinite(values)).sum())
    return f" with {bad} NaN or infinite" if bad else ""
