"""Multiple-gradient descent."""

from torch import Tensor

from mtl.linalg import min_norm_weights
from mtl.parts import Weighting


class MGDAWeighting(Weighting):
    """The shortest vector in the convex hull of the gradients (Eq. 3).

    `min_w |w J|^2` over `w >= 0`, `sum w = 1`, solved exactly. The update descends on every task,
    or the point is Pareto stationary.

    The paper's own Frank-Wolfe iterations stop early; peers that use them are up to 90 % off for
    40 tasks. Normalised forms of the paper's code are a transform of the losses.

    References:
        Désidéri. Multiple-gradient descent algorithm (MGDA). Comptes Rendus 2012.
        Sener, Koltun. Multi-Task Learning as Multi-Objective Optimization. NeurIPS 2018.
        https://arxiv.org/abs/1810.04650
    """

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` on the simplex from the Gramian `[m, m]`."""
        return min_norm_weights(gramian)
