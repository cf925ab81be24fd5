"""TorchJD's updates from gradients, so that they can be compared."""

from unittest.mock import patch

import torch
import torchjd.aggregation as library
from torchjd.linalg import QuadprogProjector

CPU = torch.device("cpu")


class UnsolvedError(ValueError):
    """TorchJD's weights do not solve the equation they are for."""


def gramian(rows):
    return rows @ rows.T


def theirs(make):
    """The update of a weighting, from the gradients."""
    return lambda rows: make()(gramian(rows)) @ rows


def projecting(weighting):
    """TorchJD's, without the ridge on the diagonal that its solver has by default."""
    return theirs(lambda: weighting(projector=QuadprogProjector(norm_eps=0.0, reg_eps=0.0)))


def in_our_order(method, other, steps):
    """The update of TorchJD's `other` after steps in which tasks are visited as ours does."""

    def permutations(scores):
        for task, row in enumerate(scores):
            if len(steps) == 1:
                yield row.argsort()  # tasks, for PCGrad
            else:
                yield torch.cat([row[:task], row[task + 1 :]]).argsort()  # places among the others

    for rows in steps:
        scores = torch.rand(len(rows), len(rows), generator=method.generator(CPU))
        with patch("torch.randperm", side_effect=permutations(scores)):
            weights = other(gramian(rows))
    return weights @ rows


def two_steps(rows):
    """The first leaves GradVac targets."""
    return [rows.roll(1, 1) * torch.linspace(1, 2, rows.shape[1]), rows]


def nash_mtl(rows):
    """TorchJD's, where the equation `(G w)_i w_i = const` holds to its own tolerance of 1e-3."""
    weights = library.NashMTL(n_tasks=len(rows)).weighting(rows)
    shares = gramian(rows) @ weights * weights
    if not shares.max() <= (1 + 1e-3) * shares.min():
        raise UnsolvedError
    return weights @ rows
