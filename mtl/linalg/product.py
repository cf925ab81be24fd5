"""Products of matrices that are cheaper as factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """`left @ right[b]` at every position, for every b; it is not formed.

    Args:
        left: `[C, K]`.
        right: `[B, K, ...]`.
    """

    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.right)

    @property
    def shape(self) -> tuple[int, ...]:
        """`[B, C, ...]`."""
        return (len(self.right), len(self.left), *self.right.shape[2:])

    @property
    def dtype(self) -> torch.dtype:
        """That of both factors."""
        return self.right.dtype

    def to(self, dtype: torch.dtype) -> Product:
        """Both factors in another precision."""
        return Product(self.left.to(dtype), self.right.to(dtype))

    def flatten(self, start_dim: int) -> Product:
        """Positions as one dimension."""
        return Product(self.left, self.right.flatten(start_dim))

    def sum(self, dim: int) -> Tensor:
        """Sums over the rows (1) or over the positions (2) of `[B, C, N]`."""
        if dim == 1:
            return self.left.sum(0) @ self.right
        return self.right.sum(dim) @ self.left.mT

    def detach(self) -> Product:
        """Without graph."""
        return Product(self.left.detach(), self.right.detach())

    def new_zeros(self, shape: tuple[int, ...]) -> Tensor:
        """Zeros of the same precision and device."""
        return self.right.new_zeros(shape)


def dense(matrices: Tensor | Product) -> Tensor:
    """The product itself, or the tensor as it is."""
    if isinstance(matrices, Tensor):
        return matrices
    return torch.einsum("ck,bk...->bc...", matrices.left, matrices.right)
