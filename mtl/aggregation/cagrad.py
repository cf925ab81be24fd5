"""Conflict-averse gradient descent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import NonnegativeQP, equilibrate, min_norm_weights
from mtl.linalg.equilibrate import Equilibrated, Vector
from mtl.parts import Weighting

_STATIONARY = 1e-7


class CAGradWeighting(Weighting):
    """The direction near the mean gradient that does most for the worst task (Alg. 1).

    `max_d min_i <g_i, d>` over `|d - g_0| <= c |g_0|`, with the mean `g_0`. Its dual is a convex
    problem over the simplex, `min_w <g_w, g_0> + c |g_0| |g_w|` with `g_w = w J`; the direction is
    `d = g_0 + c |g_0| / |g_w| g_w`.

    Args:
        c: Radius, >= 0; the paper's convergence proof takes `c < 1`. 0 is the mean gradient. The
            paper's tables use 0.2 to 0.5.
        like: `paper` and `torchjd`: `d` as above. `libmtl`: `d / (1 + c^2)`, as in the official
            code. `nash_mtl`: m times that, to be as long as a sum of m gradients.
        rescale: The option of that name in the three codes: `d` (0), `d / (1 + c^2)` (1) or
            `d / (1 + c)` (2). Default: 1 where `like` has the denominator, otherwise 0.

    The problem is solved exactly. With the multiplier `v = min_i <g_i, d>`, the part
    `s = c |g_0| w / |g_w|` minimizes `|s J + g_0|^2 / 2 - v sum(s)` over `s >= 0`, and `|s J|`
    rises with `v`: a quadratic program on rows of length one inside a search for the root of
    `|s J| = c |g_0|`. The official code's SLSQP stops up to 3e-2 off, TorchJD's conic solver at
    1e-4, and that returns zero where norms are spread over 1e4.

    Where no direction improves all tasks (`|g_w| = 0` for some `w`: a Pareto stationary point, or a
    gradient of zero), many `d` are optimal; it is the nearest to `g_0` that harms no task.

    References:
        Liu, Liu, Jin, Stone, Liu. Conflict-Averse Gradient Descent for Multi-task Learning.
        NeurIPS 2021. https://arxiv.org/abs/2110.14048
    """

    def __init__(
        self,
        *,
        c: float = 0.5,
        like: Literal["paper", "libmtl", "nash_mtl", "torchjd"] = "paper",
        rescale: int | None = None,
    ) -> None:
        super().__init__()
        if c < 0:
            raise ConfigError(f"`c` should be 0 or more. Got {c}.")
        if like not in ("paper", "libmtl", "nash_mtl", "torchjd"):
            raise ConfigError(f"`like` should be paper, libmtl, nash_mtl or torchjd. Got {like!r}.")
        if rescale not in (None, 0, 1, 2):
            raise ConfigError(f"`rescale` should be 0, 1, 2 or null. Got {rescale!r}.")
        self.c = c
        self.like = like
        default = 1 if like in ("libmtl", "nash_mtl") else 0
        self.rescale = default if rescale is None else rescale

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: at least the mean's, before rescaling."""
        scaled = equilibrate(gramian)
        mean = 1 / len(gramian)
        factor = 1 / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]
        factor *= len(gramian) if self.like == "nash_mtl" else 1
        if not scaled.rows.size or self.c == 0:
            return scaled.expand(np.full(len(scaled.rows), mean * factor), mean * factor)
        norms = scaled.norms / scaled.norms.max()
        weights = mean + _toward_worst(scaled, norms, mean, self.c) / norms
        return scaled.expand(weights * factor, mean * factor)


def _toward_worst(scaled: Equilibrated, norms: Vector, mean: float, c: float) -> Vector:
    """`s_i |g_i|`, as in the class's docstring, on the scale where the longest row has length 1."""
    gram = scaled.cosines
    products = gram @ (norms * mean)  # <g_i / |g_i|, g_0>
    length = scaled.length(norms * mean)
    radius = c * length
    low, high = float((norms * products).min()), 0.0  # at `low`, s = 0
    program = NonnegativeQP(gram)
    s = program.solve(products)
    if scaled.length(s) < radius:  # the worst task can gain
        if len(scaled.rows) < len(scaled.like):
            return s
        hull = gram * np.outer(norms, norms)
        shortest = min_norm_weights(torch.from_numpy(hull)).numpy()
        distance = scaled.length(shortest * norms)
        if distance <= _STATIONARY * float(shortest @ norms):
            return s
        low, high = max(low, 0.0), (1 + c) * length * distance * (1 + 1e-9)
    v = high
    for iteration in range(200):
        s = program.solve(products - v / norms, s > 0)
        low, high = (low, v) if scaled.length(s) > radius else (v, high)
        support = s > 0
        root = _root(gram, products, norms, support, radius)
        before, v = v, root if iteration < 20 and low <= root <= high else (low + high) / 2
        if abs(v - before) <= 1e-15 * max(abs(low), abs(high)):
            break
    return s


def _root(
    gram: Vector, products: Vector, norms: Vector, support: np.ndarray, radius: float
) -> float:
    """The `v` at which `|s J|` is the radius, if the support stays as it is; NaN for none."""
    index = np.flatnonzero(support)
    if not index.size:
        return float("nan")
    rates, start = 1 / norms[index], products[index]
    system = gram[np.ix_(index, index)]
    a, b = np.linalg.lstsq(system, np.stack([rates, start], 1), rcond=1e-14)[0].T
    # |(v a - b) J|^2 = v^2 a.rates - 2 v a.start + b.start = radius^2
    square, cross, rest = a @ rates, a @ start, b @ start - radius**2
    discriminant = cross**2 - square * rest
    if discriminant < 0 or square <= 0:
        return float("nan")
    return float((cross + np.sqrt(discriminant)) / square)
