"""Norms of gradients of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl.linalg.gramian import finest

_LEAST = 1e-14  # norm of float32 vectors; of shorter ones some squares underflow


def lengths(vectors: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
    """Euclidean norms, of several tensors together each.

    In float32, and again in float64 where float32 cannot hold the squares; that is known after
    one look at all norms on the host.

    Args:
        vectors: The parts of each of `k` vectors; of none, the norm is zero.
        like: Gives the device.

    Returns:
        `[k]`, in float64 (float32 on devices without it).
    """
    if not vectors:
        return torch.zeros(0, dtype=finest(like), device=like.device)
    norms = torch.stack([_length(parts, like, torch.float32) for parts in vectors])
    for i, norm in enumerate(norms.tolist()):
        if not _LEAST <= norm < math.inf:
            norms[i] = _length(vectors[i], like, norms.dtype)
    return norms


def _length(parts: Sequence[Tensor], like: Tensor, least: torch.dtype) -> Tensor:
    """One norm; squares are taken in a type at least as wide."""
    if not parts:
        return torch.zeros((), dtype=finest(like), device=like.device)
    norms = [
        torch.linalg.vector_norm(part, dtype=torch.promote_types(part.dtype, least))
        for part in parts
    ]
    return torch.linalg.vector_norm(torch.stack([norm.to(finest(like)) for norm in norms]))
