"""Unconflicting projection of gradients."""

import numpy as np
from torch import Tensor

from mtl.linalg import NonnegativeQP, equilibrate
from mtl.parts import Weighting


class UPGradWeighting(Weighting):
    """The mean of the gradients, each projected onto the cone of directions that harm no task.

    `w = sum_i v_i / m`, `v_i = argmin_v |v J|^2` over `v >= e_i` (Proposition 1): `v_i J` is the
    point nearest to `g_i` of the dual cone `{d: <g_j, d> >= 0 for all j}` (Eq. 3).

    The m quadratic programs are solved by active sets on rows of length one: TorchJD's adds 1e-4 of
    the mean squared norm to the diagonal, which turns the direction by up to 0.2 where norms are
    spread over 1e4. The mean is the paper's; LibMTL and TorchJD do the same.

    A gradient of zero keeps its own weight, `1 / m`. Opposite gradients cancel.

    References:
        Quinton, Rey. Jacobian Descent for Multi-Objective Optimization. 2024.
        https://arxiv.org/abs/2406.16232
    """

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: at least `1 / m` each."""
        scaled = equilibrate(gramian)
        count = len(gramian)
        weights = np.zeros(len(scaled.rows))
        program, support = NonnegativeQP(scaled.cosines), None
        for i, norm in enumerate(scaled.norms):
            projection = program.solve(scaled.cosines[i], support)
            support = projection > 0  # often a good guess for the next
            projection[i] += 1.0
            weights += norm * projection
        return scaled.expand(weights / scaled.norms / count, 1 / count)
