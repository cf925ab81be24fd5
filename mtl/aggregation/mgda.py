"""Multiple-gradient descent."""

from typing import Literal

from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import cosines, min_norm_weights
from mtl.parts import Weighting


class MGDAWeighting(Weighting):
    """The shortest vector in the convex hull of the gradients.

    `min_w |w J|^2` over `w >= 0`, `sum w = 1`, solved exactly. The update descends on every task,
    or the point is Pareto stationary.

    Args:
        normalize: `none`, or `norm`: the hull is that of the unit gradients (`l2` in the paper's
            code). Its forms `loss` and `loss+` divide by the loss (and the norm): they are these
            two after the transform `log`.
        like: With `norm`, `paper`: the weights found go to the gradients as they are, as in the
            paper's code. `libmtl`: to the unit gradients.

    The paper's own Frank-Wolfe iterations stop early; peers that use them are up to 90 % off for
    40 tasks. A gradient of zero makes the point stationary: it gets all the weight.

    References:
        Désidéri. Multiple-gradient descent algorithm (MGDA). Comptes Rendus 2012.
        Sener, Koltun. Multi-Task Learning as Multi-Objective Optimization. NeurIPS 2018.
        https://arxiv.org/abs/1810.04650
    """

    def __init__(
        self,
        *,
        normalize: Literal["none", "norm"] = "none",
        like: Literal["paper", "libmtl"] = "paper",
    ) -> None:
        super().__init__()
        if normalize not in ("none", "norm"):
            raise ConfigError(f"`normalize` should be none or norm. Got {normalize!r}.")
        if like not in ("paper", "libmtl"):
            raise ConfigError(f"`like` should be paper or libmtl. Got {like!r}.")
        self.normalize = normalize
        self.like = like

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: on the simplex, unless like LibMTL."""
        if self.normalize == "none":
            return min_norm_weights(gramian)
        weights = min_norm_weights(cosines(gramian))
        if self.like == "paper":
            return weights
        norms = gramian.diagonal().clamp_min(0).sqrt()
        return weights / norms.where(norms > 0, 1.0)
