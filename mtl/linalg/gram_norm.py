"""Norms of Gram matrices that are too large to be kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 2**22  # elements of Gram matrices that exist at a time


def root_gram_norm(matrices: Tensor) -> Tensor:
    """`|X X^T|^(1/2)` (Frobenius norm) of each matrix, of degree one in X.

    The smaller of `X X^T` and `X^T X` is formed, for a few matrices at a time and again in the
    backward pass, so that none is kept. Differentiable once.

    Args:
        matrices: `[B, C, N]`.

    Returns:
        `[B]`.
    """
    return _RootGramNorm.apply(matrices)


def nonzero(size: Tensor) -> Tensor:
    """Sizes to divide by: 1 in place of 0."""
    return torch.where(size > 0, size, 1.0)


class _RootGramNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        roots = torch.cat([_root(gram) for _, gram in _grams(matrices)])
        ctx.save_for_backward(matrices, roots)
        return roots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # d|X X^T|^(1/2) = <Y Y^T Y, dX> with Y = X / |X X^T|^(1/2).
        matrices, roots = ctx.saved_tensors
        scale = nonzero(roots)[:, None, None]
        result = torch.empty_like(matrices)
        for part, gram in _grams(matrices):
            x, r = matrices[part], scale[part]
            gram = gram / r**2
            y = gram @ x if len(gram[0]) == x.shape[1] else x @ gram
            torch.mul(y, gradients[0][part, None, None] / r, out=result[part])
        return result


def _grams(matrices: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The smaller of `X X^T` and `X^T X`, for some of the matrices at a time."""
    tall = matrices.shape[1] > matrices.shape[2]
    count = max(1, _CHUNK // min(matrices.shape[1:]) ** 2)
    for start in range(0, len(matrices), count):
        part = slice(start, start + count)
        x = matrices[part]
        yield part, x.mT @ x if tall else x @ x.mT


def _root(grams: Tensor) -> Tensor:
    """Root of the Frobenius norm; squares of small numbers vanish, so relative to the largest."""
    largest = grams.abs().amax((1, 2))
    return (largest * (grams / nonzero(largest)[:, None, None]).square().sum((1, 2)).sqrt()).sqrt()
