"""The point of least norm in the convex hull of some vectors, from their Gramian."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl.linalg.quadratic import NonnegativeQP

Matrix = NDArray[np.float64]

_TOLERANCE = 1e-14
_REGULAR = 1e-6


def min_norm_weights(gramian: Tensor) -> Tensor:
    """`argmin_w w^T G w` over the simplex, by Wolfe's active-set method.

    It keeps a set of vectors, moves to the least norm in their affine hull, drops those whose
    weight would become negative, and adds the vector that lies farthest towards the origin, until
    there is none: a finite number of steps, in float64 on the CPU (a few microseconds each, where
    kernels on an accelerator would cost more in launches). Where the vectors are clearly linearly
    independent, the origin is not in the hull, and the weights are in proportion to the solution of
    `min_w w^T G w / 2 - sum w` over `w >= 0`, which blocks of exchanges find sooner.

    Args:
        gramian: Positive semi-definite, `[m, m]`, finite.

    Returns:
        Weights `[m]`, non-negative, sum one, in the Gramian's dtype and device.

    References:
        Wolfe. Finding the nearest point in a polytope. Mathematical Programming 11, 1976.
    """
    gram = gramian.detach().cpu().double().numpy()
    scale = gram.diagonal().max()
    if scale <= 0:
        return torch.full_like(gramian[0], 1 / len(gram))
    gram = gram / scale
    norms = np.sqrt(gram.diagonal().clip(min=0.0))
    if norms.min() > 0:
        unit = gram / np.outer(norms, norms)
        if np.linalg.eigvalsh(unit)[0] > _REGULAR:
            weights = NonnegativeQP(unit).solve(-norms.min() / norms) / norms
            return torch.from_numpy(weights / weights.sum()).to(gramian)
    weights = np.zeros(len(gram))
    active = [int(gram.diagonal().argmin())]
    weights[active] = 1.0
    for _ in range(8 * len(gram) + 8):
        slopes = gram @ weights
        candidate = int(slopes.argmin())
        bound = weights @ slopes - _TOLERANCE * gram[candidate, candidate]
        if candidate in active or slopes[candidate] >= bound:
            break
        weights, active = _minor_cycle(gram, weights, [*active, candidate])
    return torch.from_numpy(weights / weights.sum()).to(gramian)


def _minor_cycle(gram: Matrix, weights: Matrix, active: list[int]) -> tuple[Matrix, list[int]]:
    """Moves to the affine minimizer over `active`, dropping vectors on the way."""
    target = _affine_minimizer(gram[np.ix_(active, active)])
    while (target <= 0).any():
        current = weights[active]
        blocking = target <= 0
        ratios = current[blocking] / (current[blocking] - target[blocking])
        moved = current + ratios.min() * (target - current)
        moved[np.where(blocking, moved, np.inf).argmin()] = 0.0
        weights = np.zeros_like(weights)
        weights[active] = moved.clip(min=0)  # rounding only: the step stops at the boundary
        active = [index for index in active if weights[index] > 0]
        target = _affine_minimizer(gram[np.ix_(active, active)])
    weights = np.zeros_like(weights)
    weights[active] = target
    return weights, active


def _affine_minimizer(gram: Matrix) -> Matrix:
    """`argmin_w w^T G w` with `sum w = 1`, any sign, on the unit-norm scale of each vector."""
    size = len(gram)
    if size == 1:
        return np.ones(1)
    norms = np.sqrt(gram.diagonal().clip(min=np.finfo(gram.dtype).tiny))
    inverse = norms.min() / norms
    system = np.zeros((size + 1, size + 1))
    system[:size, :size] = gram / np.outer(norms, norms)
    system[:size, size] = system[size, :size] = inverse
    right = np.zeros(size + 1)
    right[size] = 1.0
    solution = np.linalg.lstsq(system, right, rcond=None)[0][:size] * inverse
    return solution / solution.sum()
