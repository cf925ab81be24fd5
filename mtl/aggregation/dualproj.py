"""Projection of the mean gradient onto the dual cone."""

from torch import Tensor

from mtl.linalg import NonnegativeQP, equilibrate
from mtl.parts import Weighting


class DualProjWeighting(Weighting):
    """The direction nearest to the mean gradient that harms no task (Eq. 11).

    `w = argmin_v |v J|^2` over `v >= 1/m`: the projection of `sum_i g_i / m` onto the dual cone
    `{d: <g_j, d> >= 0 for all j}`.

    The paper projects the gradient of a new task against those of memories; TorchJD made it a
    method for several tasks, which this is. TorchJD's solver adds 1e-4 of the mean squared norm to
    the diagonal; here the program is solved to rounding accuracy on rows of length one.

    A gradient of zero keeps the weight `1 / m`. Opposite gradients cancel.

    References:
        Lopez-Paz, Ranzato. Gradient Episodic Memory for Continual Learning. NeurIPS 2017.
        https://arxiv.org/abs/1706.08840
    """

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: at least `1 / m` each."""
        scaled = equilibrate(gramian)
        count = len(gramian)
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, 1 / count)
        mean = scaled.norms / scaled.norms.max() / count
        weights = mean + NonnegativeQP(scaled.cosines).solve(scaled.cosines @ mean)
        return scaled.expand(weights / mean / count, 1 / count)
