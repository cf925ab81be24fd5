"""Impartial multi-task learning, the gradient part."""

import numpy as np
from torch import Tensor

from mtl.linalg import equilibrate, least_norm_solution
from mtl.parts import Weighting


class IMTLGWeighting(Weighting):
    """The combination with equal projections on all gradients.

    `<w J, g_i / |g_i|>` is the same for all i and `sum_i w_i = 1`; weights may be negative. With
    the cosines `K` and `x_i = w_i |g_i|` this is `K x = const`, solved here in the least-squares
    sense: gradients that are linearly dependent may leave no exact solution. Eigenvalues of `K`
    below 1e-6 of the largest count as zero: the rounding of float32 gradients leaves up to 1e-7.

    The paper's closed form is the same where `K` is regular. LibMTL inverts a matrix of differences
    and raises where gradients are dependent; TorchJD takes the pseudo-inverse of the Gramian, which
    cuts off short gradients (56 to 72 % off where norms are spread over 1e4). The paper's
    whole method, and LibMTL's `IMTL`, also learns scales of the losses: the transform
    `mtl.transforms.IMTLScale`, in the preset `imtl`.

    A gradient of zero gets no weight. Where the weights have no sum (opposite gradients), they are
    `w_i = 1 / |g_i|`, normalized.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang. Towards Impartial Multi-task Learning.
        ICLR 2021. https://openreview.net/forum?id=IMPnRXEWpvr
    """

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: sum one."""
        scaled = equilibrate(gramian)
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, 1 / len(gramian))
        inverse_norms = scaled.norms.min() / scaled.norms
        solution = least_norm_solution(scaled.cosines, np.ones(len(scaled.rows)))
        weights = solution * inverse_norms
        if abs(weights.sum()) <= 1e-10 * max(np.abs(weights).sum(), inverse_norms.sum()):
            weights = inverse_norms
        return scaled.expand(weights / weights.sum(), 0.0)
