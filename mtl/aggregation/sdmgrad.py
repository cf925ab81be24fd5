"""Direction-oriented multi-objective gradient descent."""

from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import min_norm_weights
from mtl.parts import Weighting


class SDMGradWeighting(Weighting):
    """Between the shortest convex combination of the gradients and their mean.

    `d = (g_w + strength g_0) / (1 + strength)` with the mean `g_0`, and `w` the minimizer of
    `|g_w + strength g_0|` over the simplex: the direction that does most for the worst task, with
    a reward for following the mean.

    Args:
        strength: `lambda` of the paper, >= 0. 0 is MGDA; large values give the mean. Its tables
            use 0.1 to 10; LibMTL and TorchJD default to 0.3.

    The paper makes a few projected stochastic gradient steps on `w` from the last step's, with
    gradients of three independent batches, so that the estimate is unbiased. LibMTL and TorchJD
    follow its code: 20 steps with momentum 0.5 and rate 5 (LibMTL) or 10 (TorchJD) on the products
    of the gradients of two batches, divided by their squared mean norm; the third batch makes the
    direction. Here the gradients of the one batch are taken as they are and the problem is solved
    exactly: it is the shortest vector in the hull of `g_i + strength g_0`. There is no state, and a
    step costs one batch. Their weights cannot be repeated: a step here has one batch.

    References:
        Xiao, Ban, Ji. Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
        Algorithms. NeurIPS 2023. https://arxiv.org/abs/2305.18409
    """

    def __init__(self, *, strength: float = 0.3) -> None:
        super().__init__()
        if strength < 0:
            raise ConfigError(f"`strength` should be 0 or more. Got {strength}.")
        self.strength = strength

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` on the simplex from the Gramian `[m, m]`."""
        mean = gramian.mean(0)  # <g_i, g_0>
        shifted = gramian + self.strength * (mean + mean[:, None]) + self.strength**2 * mean.mean()
        weights = min_norm_weights(shifted)
        return (weights + self.strength / len(gramian)) / (1 + self.strength)
