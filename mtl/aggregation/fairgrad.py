"""Fair resource allocation between tasks."""

import numpy as np
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import equilibrate, fair_weights
from mtl.parts import Weighting


class FairGradWeighting(Weighting):
    """The alpha-fair direction: weights inverse to a power of each task's gain (Eq. 4).

    `(G w)_i = w_i^(-1/alpha)`, `w > 0`: the direction that maximizes
    `sum_i <g_i, d>^(1 - alpha) / (1 - alpha)` over a ball.

    Args:
        alpha: > 0. Towards 0: the sum of the gains; 1: proportional fairness, that is Nash-MTL;
            towards infinity: the least gain. Values from 0.1 to 20 are practical.

    The official code, LibMTL and TorchJD minimize the residual with `scipy.optimize.least_squares`;
    here Newton's method finds the root on rows of length one. Like theirs, weights are not
    normalized: the direction's length is `|w J|^2 = sum_i w_i^(1 - 1/alpha)`. Heads are weighted
    too, as in the official code.

    There is no root at a Pareto stationary point: from `rho = 1e-4` down, `rho` the shortest convex
    combination of the unit gradients, a ridge bounds the weights (`fair_weights`). A gradient of
    zero takes no part; it has the mean weight of the others, for its head.

    References:
        Ban, Ji. Fair Resource Allocation in Multi-Task Learning. ICML 2024.
        https://arxiv.org/abs/2402.15638
    """

    head_grad = "weighted"

    def __init__(self, *, alpha: float = 1.0) -> None:
        super().__init__()
        if alpha <= 0:
            raise ConfigError(f"`alpha` should be positive. Got {alpha}.")
        self.alpha = alpha

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: positive."""
        scaled = equilibrate(gramian)
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, 1.0)
        # With w_i = x_i / |g_i|: (K x)_i = c_i x_i^(-1/alpha), c_i = |g_i|^(1/alpha - 1).
        scale = float(np.exp(np.log(scaled.norms).mean()))
        factors = (scaled.norms / scale) ** (1 / self.alpha - 1)
        weights = fair_weights(scaled.cosines, factors, self.alpha) / (scaled.norms / scale)
        weights = weights * scale ** (-2 * self.alpha / (1 + self.alpha))
        return scaled.expand(weights, float(weights.mean()))
