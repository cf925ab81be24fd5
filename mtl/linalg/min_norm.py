"""The point of least norm in the convex hull of some vectors, from their Gramian."""

from __future__ import annotations

import torch
from torch import Tensor

_TOLERANCE = 1e-14


def min_norm_weights(gramian: Tensor) -> Tensor:
    """`argmin_w w^T G w` over the simplex, by Wolfe's active-set method.

    It keeps a set of vectors, moves to the least norm in their affine hull, drops those whose
    weight would become negative, and adds the vector that lies farthest towards the origin, until
    there is none: a finite number of steps, in float64 on the CPU (a few microseconds each, where
    kernels on an accelerator would cost more in launches).

    Args:
        gramian: Positive semi-definite, `[m, m]`, finite.

    Returns:
        Weights `[m]`, non-negative, sum one, in the Gramian's dtype and device.

    References:
        Wolfe. Finding the nearest point in a polytope. Mathematical Programming 11, 1976.
    """
    gram = gramian.detach().to("cpu", torch.float64)
    scale = gram.diagonal().max()
    if scale <= 0:
        return torch.full_like(gramian[0], 1 / len(gramian))
    gram = gram / scale
    weights = torch.zeros(len(gram), dtype=gram.dtype)
    first = int(gram.diagonal().argmin())
    weights[first] = 1.0
    active = [first]
    for _ in range(8 * len(gram) + 8):
        slopes = gram @ weights
        candidate = int(slopes.argmin())
        norm = weights @ slopes
        if candidate in active or slopes[candidate] >= norm - _TOLERANCE * gram[candidate, candidate]:
            break
        active.append(candidate)
        weights, active = _minor_cycle(gram, weights, active)
    return (weights / weights.sum()).to(gramian)


def _minor_cycle(gram: Tensor, weights: Tensor, active: list[int]) -> tuple[Tensor, list[int]]:
    """Moves to the affine minimizer over `active`, dropping vectors on the way."""
    while True:
        target = _affine_minimizer(gram[active][:, active])
        current = weights[active]
        if bool((target > 0).all()):
            break
        blocking = target <= 0
        ratios = current[blocking] / (current[blocking] - target[blocking])
        moved = current + float(ratios.min()) * (target - current)
        worst = int(torch.where(blocking, moved, torch.inf).argmin())
        moved[worst] = 0.0
        weights = torch.zeros_like(weights)
        weights[active] = moved.clamp_min(0)  # rounding only: the step stops at the boundary
        active = [index for index in active if weights[index] > 0]
        if len(active) == 1:
            target = torch.ones(1, dtype=gram.dtype)
            break
    weights = torch.zeros_like(weights)
    weights[active] = target
    return weights, active


def _affine_minimizer(gram: Tensor) -> Tensor:
    """`argmin_w w^T G w` with `sum w = 1`, any sign, on the unit-norm scale of each vector."""
    size = len(gram)
    norms = gram.diagonal().clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    system = torch.zeros(size + 1, size + 1, dtype=gram.dtype)
    system[:size, :size] = gram / torch.outer(norms, norms)
    inverse = norms.min() / norms
    system[:size, size] = system[size, :size] = inverse
    right = torch.zeros(size + 1, dtype=gram.dtype)
    right[size] = 1.0
    solution = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:size, 0]
    return solution * inverse / (solution * inverse).sum()
