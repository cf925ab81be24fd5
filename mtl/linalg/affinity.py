"""Cosines between Gram matrices that are too large to be formed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtl.linalg.product import Product

_CHUNK = 2**22  # elements of Gram matrices that exist at a time


def gram_cosines(anchors: Tensor, matrices: Tensor | Product) -> Tensor:
    """Cosine between `A^T A` and `X X^T` for each pair of matrices, with `|A^T A| = 1`.

    Where C <= N, `X X^T` is formed: it is smaller than X. Otherwise `<A^T A, X X^T> = |A X|^2`, and
    `|X X^T|` is the norm of `X^T X`, which is formed for a few matrices at a time, and again in the
    backward pass. Of products, only matrices of their inner size are formed. Differentiable once.

    Args:
        anchors: A, `[B, m, C]`, each with an `A^T A` of Frobenius norm 1 (or 0).
        matrices: X, `[B, C, N]`.

    Returns:
        `[B]`, 0 where a matrix is zero.
    """
    if isinstance(matrices, Product):
        return _product_cosines(anchors, matrices)
    if matrices.shape[1] > matrices.shape[2]:
        return _GramCosines.apply(anchors, matrices)
    grams = _Gram.apply(matrices)
    grams = grams / gram_norm(grams)[:, None, None]
    return ((anchors @ grams) * anchors).sum((1, 2))


def gram_products(anchors: Tensor) -> Tensor:
    """`<A^T A, K^T K>` for each pair of matrices; differentiable once.

    It is `|A K^T|^2` as well, with m x m products for every pair; from the C x C matrices, formed
    for a few columns at a time, where that takes fewer multiplications.

    Args:
        anchors: `[B, m, C]`.

    Returns:
        `[B, B]`.
    """
    count, rows, channels = anchors.shape
    if channels * (count + rows) < count * rows**2:
        return _GramProducts.apply(anchors)
    products = _Gram.apply(anchors.flatten(0, 1)[None])[0].square()
    return products.unflatten(1, (count, rows)).sum(2).unflatten(0, (count, rows)).sum(1)


def nonzero(size: Tensor) -> Tensor:
    """Sizes to divide by: 1 in place of 0."""
    return torch.where(size > 0, size, 1.0)


def gram_norm(grams: Tensor) -> Tensor:
    """Frobenius norms of `[B, n, n]`, 1 for zero matrices; squares of small numbers vanish."""
    largest = nonzero(grams.detach().abs().amax((1, 2)))
    return largest * nonzero((grams / largest[:, None, None]).square().sum((1, 2))).sqrt()


def _product_cosines(anchors: Tensor, product: Product) -> Tensor:
    # With X = L R and D = R R^T: <A^T A, X X^T> = <(A L)^T A L, D> and |X X^T|^2 = tr((D L^T L)^2).
    left = product.left / nonzero(product.left.detach().abs().amax())
    anchors = anchors @ left
    grams = _Gram.apply(product.right)
    grams = grams / nonzero(grams.detach().abs().amax((1, 2)))[:, None, None]
    turned = grams @ (left.mT @ left)
    norms = nonzero((turned * turned.mT).sum((1, 2))).sqrt()
    return ((anchors @ grams) * anchors).sum((1, 2)) / norms


class _Gram(torch.autograd.Function):
    """`X X^T`, whose derivative takes one product instead of two."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        ctx.save_for_backward(matrices)
        return matrices @ matrices.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (matrices,) = ctx.saved_tensors
        result = torch.empty_like(matrices)  # of the same memory format
        return torch.bmm(gradients[0] + gradients[0].mT, matrices, out=result)


class _GramProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor) -> Tensor:
        ctx.save_for_backward(anchors)
        result = anchors.new_zeros(len(anchors), len(anchors))
        for _, columns in _gram_columns(anchors):
            result.addmm_(columns, columns.T)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # With H_b = sum_k (G + G^T)_bk A_k^T A_k: 2 A_b H_b.
        (anchors,) = ctx.saved_tensors
        factors = 2 * (gradients[0] + gradients[0].T)
        result = torch.empty_like(anchors)
        for part, columns in _gram_columns(anchors):
            result[:, :, part] = anchors @ (factors @ columns).unflatten(1, (anchors.shape[2], -1))
        return result


def _gram_columns(anchors: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some columns of all `A^T A` at a time, `[B, C * columns]`."""
    samples, _, channels = anchors.shape
    count = max(1, _CHUNK // (samples * channels))
    for start in range(0, channels, count):
        part = slice(start, start + count)
        yield part, (anchors.mT @ anchors[:, :, part]).flatten(1)


class _GramCosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, matrices: Tensor) -> Tensor:
        norms = torch.cat([gram_norm(gram) for _, gram in _grams(matrices)])
        products = (anchors @ matrices) / norms.sqrt()[:, None, None]
        cosines = products.square().sum((1, 2))
        ctx.save_for_backward(anchors, matrices, products, norms, cosines)
        return cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # With n = |X X^T|, Y = A X / n^(1/2), c = |Y|^2:
        # dc = 2 <A^T Y / n^(1/2) - c X X^T X / n^2, dX> + 2 <Y X^T / n^(1/2), dA>.
        anchors, matrices, products, norms, cosines = ctx.saved_tensors
        factors = 2 * gradients[0] / norms.sqrt()
        scaled = products * factors[:, None, None]
        by_matrices = torch.empty_like(matrices)  # of the same memory format
        torch.bmm(anchors.mT, scaled, out=by_matrices)
        on_gram = -(factors * cosines / norms.sqrt())[:, None, None]
        for part, gram in _grams(matrices):
            gram = on_gram[part] * (gram / norms[part, None, None])
            by_matrices[part].baddbmm_(matrices[part], gram)
        return scaled @ matrices.mT, by_matrices


def _grams(matrices: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`X^T X`, for some of the matrices at a time."""
    count = max(1, _CHUNK // matrices.shape[2] ** 2)
    for start in range(0, len(matrices), count):
        part = slice(start, start + count)
        yield part, matrices[part].mT @ matrices[part]
