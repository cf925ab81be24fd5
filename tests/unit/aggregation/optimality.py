"""What the papers state of a method's weights, to be checked of any gradients."""

import numpy as np
import pytest
import torch

from benchmarks.accuracy import references


def size(rows, weights):
    """What rounding is relative to: the length of the terms of the update."""
    return max(float(weights.abs() @ rows.norm(dim=1)), 1e-300)


def nonzero(rows):
    """Gradients that have a direction, made unit, and which they are."""
    norms = rows.norm(dim=1)
    return (rows / norms[:, None])[norms > 0], norms > 0


def shortest(rows, weights):
    """MGDA, Eq. 3: on the simplex, and towards no gradient the update becomes shorter."""
    assert float(weights.min()) >= 0
    assert float(weights.sum()) == pytest.approx(1.0)
    update = weights @ rows
    assert float(update @ update - (rows @ update).min()) <= 1e-9 * size(rows, weights) ** 2


def only_added(rows, weights):
    """GradVac: positive multiples of the other gradients are added to each."""
    assert float(weights.min()) >= 1 - 1e-12


def deconflicted(rows, weights):
    """PCGrad, Alg. 1: the same; of two tasks none loses."""
    only_added(rows, weights)
    if len(rows) == 2:
        assert float((rows @ (weights @ rows)).min()) >= -1e-9 * size(rows, weights) ** 2


def within_radius(rows, weights):
    """CAGrad, c = 0.5: on the sphere around the mean; inside it where nothing helps all tasks."""
    mean, update, rounding = rows.mean(0), weights @ rows, 1e-9 * size(rows, weights)
    distance, radius = float((update - mean).norm()), float(mean.norm()) / 2
    assert distance <= radius + rounding
    assert float(weights.min()) >= (1 - 1e-12) / len(rows)
    units, kept = nonzero(rows)
    if kept.all() and plays(units):
        assert distance >= radius - rounding


def plays(units):
    """Whether there is a game: no convex combination of the gradients is zero."""
    least = references.min_norm(units.numpy()) @ units.numpy()
    return np.linalg.norm(least) > references.STATIONARY


def bargained(rows, weights):
    """Nash-MTL: `(G w)_i w_i` is the same for all i, in TorchJD's scale.

    That is `G / |G|_F` in the place of `G`, and then at most a length of one.
    """
    assert float(weights.min()) > 0
    units, kept = nonzero(rows)
    if plays(units):
        gram = rows @ rows.T
        shares = (gram @ weights * weights)[kept]
        torch.testing.assert_close(shares, shares.mean().expand_as(shares), rtol=1e-7, atol=0)
        length = (float(gram.norm()) * int(kept.sum())) ** 0.5
        assert float((weights @ rows).norm()) == pytest.approx(min(1.0, length))


def fair(rows, weights):
    """FairGrad, Eq. 4, of alpha 2: `(G w)_i = w_i^(-1/2)`, where there is a game."""
    assert float(weights.min()) > 0
    units, kept = nonzero(rows)
    if plays(units):
        gains = (rows @ (weights @ rows))[kept]
        torch.testing.assert_close(gains, weights[kept] ** -0.5, rtol=1e-7, atol=0)


def equal_cosines(rows, weights):
    """`<g_i / |g_i|, d>` is the same for all i, or as nearly so as least squares make it."""
    units, _ = nonzero(rows)
    found = units @ (weights @ rows) / size(rows, weights)
    cosines = found * found.sum() / found.square().sum() if found.norm() > 1e-9 else 0 * found
    assert float((units.T @ (cosines - 1)).norm()) <= 1e-7


def impartial(rows, weights):
    """IMTL-G: equal projections, by weights of sum one."""
    assert float(weights.sum()) == pytest.approx(1.0)
    equal_cosines(rows, weights)


def free_of_conflict(rows, weights):
    """ConFIG, Eq. 2: equal cosines, and the length is the sum of the gradients' projections."""
    equal_cosines(rows, weights)
    update, rounding = weights @ rows, 1e-9 * size(rows, weights) ** 2
    assert float(update @ update) == pytest.approx(float((rows @ update).sum()), abs=rounding)


def aligned(rows, weights):
    """Aligned-MTL of the mean: all its principal components get the least singular value."""
    left, sizes, _ = torch.linalg.svd(rows, full_matrices=False)
    kept = sizes > 1e-6 * sizes[0]
    left, sizes = left[:, kept], sizes[kept]
    found, expected = weights @ left * sizes, sizes[-1] * left.mean(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(sizes[-1]))


def harmless(rows, weights):
    """UPGrad and DualProj: no task loses, and no weight falls."""
    assert float(weights.min()) >= (1 - 1e-12) / len(rows)
    assert float((rows @ (weights @ rows)).min()) >= -1e-9 * size(rows, weights) ** 2


def projected(rows, weights):
    """DualProj, Eq. 11: only tasks that gain nothing weigh more than in the mean."""
    harmless(rows, weights)
    gains = rows @ (weights @ rows)
    assert float((weights - 1 / len(rows)) @ gains) <= 1e-9 * size(rows, weights) ** 2


def projections(rows, weights):
    """UPGrad: the mean of the projections, each by non-negative least squares."""
    harmless(rows, weights)
    kept = nonzero(rows)[1]
    expected = torch.from_numpy(references.upgrad(rows[kept].numpy())) @ rows[kept]
    found = weights @ rows * len(rows) / int(kept.sum())
    assert float((found - expected).norm()) <= 1e-7 * size(rows, weights)


def nearest_to_others(rows, weights):
    """Multi-Krum of two without outliers, of distances: those kept have the lowest scores."""
    distances = (rows[:, None] - rows).norm(dim=2)
    scores = distances.sort(1).values[:, 1 : max(len(rows) - 1, 2)].sum(1)
    kept = weights > 0
    assert weights[kept].tolist() == [0.5, 0.5]
    assert float(scores[kept].sum()) == pytest.approx(float(scores.sort().values[:2].sum()))
