"""Unit rows that may depend on each other: components that are more than rounding."""

from __future__ import annotations

import numpy as np

from mtl.linalg.equilibrate import Matrix, Vector

# Cosines of float32 rows have errors of up to 1e-7.
_RANK = 1e-6


def principal_components(cosines: Matrix) -> tuple[Vector, Matrix]:
    """Eigenvalues above 1e-6 of the largest, ascending, and their eigenvectors in columns.

    Args:
        cosines: `K`, positive semi-definite, `[r, r]`, with a diagonal of ones.

    Returns:
        `[k]` and `[r, k]`, where `k` is the number of rows that count as independent.
    """
    values, vectors = np.linalg.eigh(cosines)
    kept = values > _RANK * values[-1]
    return values[kept], vectors[:, kept]


def least_norm_solution(cosines: Matrix, right: Vector) -> Vector:
    """`K^+ b`: of the `x` for which `K x` is nearest to `b`, the shortest.

    Zero where `b` has less than 1e-6 of its length in the range of `K`, as for opposite rows and
    equal entries: what is there is rounding.

    Args:
        cosines: `K`, as in `principal_components`.
        right: `b`, `[r]`.
    """
    values, vectors = principal_components(cosines)
    components = right @ vectors
    if np.linalg.norm(components) <= _RANK * np.linalg.norm(right):
        return np.zeros_like(right)
    return vectors @ (components / values)
