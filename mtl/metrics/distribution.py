"""How far samples are from data, in the space of some features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.errors import DataError

Features = NDArray[np.float64]


def frechet_distance(first: Features, second: Features) -> float:
    """Distance of the Gaussians with the means and covariances of two sets of features.

    `|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^(1/2) C_2 C_1^(1/2))^(1/2))`: the square of the
    2-Wasserstein distance; FID where the features are those of an Inception network.

    Args:
        first: `[n, d]`, n at least 2.
        second: `[m, d]`.

    Raises:
        DataError: Features are not finite, too few, or of different sizes.

    References:
        Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter. GANs Trained by a Two Time-Scale Update
        Rule Converge to a Local Nash Equilibrium. NeurIPS 2017. https://arxiv.org/abs/1706.08500
    """
    first, second = _check(first), _check(second)
    if first.shape[1] != second.shape[1]:
        raise DataError(
            f"Both sets should have the same features. Got {first.shape[1]} and {second.shape[1]}."
        )
    root = _root(np.cov(first, rowvar=False).reshape(first.shape[1], -1))
    other = np.cov(second, rowvar=False).reshape(first.shape[1], -1)
    cross = np.linalg.eigvalsh(root @ other @ root).clip(min=0)
    offset = first.mean(0) - second.mean(0)
    trace = float(np.square(root).sum() + other.trace() - 2 * np.sqrt(cross).sum())
    return float(offset @ offset) + max(trace, 0.0)


def precision_recall(real: Features, fake: Features, k: int = 3) -> tuple[float, float]:
    """Precision: share of samples near some datum; recall: share of data near some sample.

    A point is near a set if it lies within the distance from some member to its k-th nearest
    neighbour in the set.

    Args:
        real: Features of data, `[n, d]`, n over k.
        fake: Features of samples, `[m, d]`, m over k.
        k: Number of neighbours.

    Raises:
        DataError: Features are not finite or too few.

    References:
        Kynkaanniemi, Karras, Laine, Lehtinen, Aila. Improved Precision and Recall Metric for
        Assessing Generative Models. NeurIPS 2019 (Eqs. 1, 2). https://arxiv.org/abs/1904.06991
    """
    real, fake = _check(real, k + 1), _check(fake, k + 1)
    return _covered(fake, real, k), _covered(real, fake, k)


def _covered(points: Features, members: Features, k: int) -> float:
    from sklearn.metrics import pairwise_distances

    inside = pairwise_distances(members)
    inside.partition(k, axis=1)  # position 0 is the point itself
    radii = inside[:, k]
    return float((pairwise_distances(points, members) <= radii).any(1).mean())


def _root(matrix: Features) -> Features:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def _check(features: Features, least: int = 2) -> Features:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < least or not np.isfinite(features).all():
        raise DataError(
            f"Features should be finite, [n, d] with at least {least} rows. Got shape "
            f"{list(features.shape)}, {int((~np.isfinite(features)).sum())} not finite."
        )
    return features
