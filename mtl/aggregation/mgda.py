"""Multiple-gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import cosines, min_norm_weights
from mtl.parts import Weighting
from mtl.scalarization.checks import check_above

if TYPE_CHECKING:
    from mtl.engine import Combined, Objectives

Normalize = Literal["none", "l2", "loss", "loss+"]


class MGDAWeighting(Weighting):
    """The shortest vector in the convex hull of the gradients (Eq. 3 of Sener and Koltun).

    `min_w |sum_i w_i g_i / c_i|` over `w >= 0`, `sum w = 1`, solved exactly. The update descends on
    every task, or the point is Pareto stationary.

    Args:
        normalize: What gradients are divided by before the hull is taken, as in the paper's code:
            `c_i = 1` (`none`), `|g_i|` (`l2`), `L_i` (`loss`) or `L_i |g_i|` (`loss+`).
        like: `paper`: the weights found go to the gradients as they are, `sum_i w_i g_i`, as in the
            paper's code. `libmtl`: to the divided ones, `sum_i w_i g_i / c_i`, as LibMTL does with
            gradients by the parameters. Without normalization both are the same.

    The paper's code normalizes, the paper does not. Its Frank-Wolfe iterations (Algorithm 2) stop
    early; peers that use them are up to 90 % off for 40 tasks. A gradient of zero makes the point
    stationary: it gets all the weight. A loss of zero divides nothing. Heads follow their own
    objective, as in Algorithm 2; the paper's code weighs them too: `balancer.head_grad=weighted`.

    Raises:
        ConfigError: A loss is negative, or not known, where it divides.

    References:
        Désidéri. Multiple-gradient descent algorithm (MGDA). Comptes Rendus 2012.
        Sener, Koltun. Multi-Task Learning as Multi-Objective Optimization. NeurIPS 2018.
        https://arxiv.org/abs/1810.04650
    """

    def __init__(
        self, *, normalize: Normalize = "none", like: Literal["paper", "libmtl"] = "paper"
    ) -> None:
        super().__init__()
        if normalize not in get_args(Normalize):
            raise ConfigError(
                f"`normalize` should be none, l2, loss or loss+. Got {normalize!r}. What other "
                "code calls `norm` is l2."
            )
        if like not in ("paper", "libmtl"):
            raise ConfigError(
                f"`like` should be paper or libmtl. Got {like!r}. TorchJD's is that of the paper."
            )
        self.normalize = normalize
        self.like = like

    def combine(self, objectives: Objectives) -> Combined:
        """Weighs the gradients."""
        return objectives.weigh(self(objectives.gramian, objectives.values.detach()))

    def forward(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Weights on the gradients: on the simplex, unless like LibMTL.

        Args:
            gramian: `[m, m]`.
            losses: `[m]`, needed for `loss` and `loss+`.
        """
        by_norm, by_loss = self.normalize in ("l2", "loss+"), self.normalize in ("loss", "loss+")
        gram = cosines(gramian) if by_norm else gramian
        divisors = gramian.diagonal().clamp_min(0).sqrt() if by_norm else torch.ones_like(gram[0])
        if by_loss:
            sizes = self._sizes(losses, gram)
            relative = sizes.min() / sizes
            gram, divisors = gram * torch.outer(relative, relative), divisors * sizes
        weights = min_norm_weights(gram)
        if self.like == "paper":
            return weights
        return weights / divisors.where(divisors > 0, 1.0)

    def _sizes(self, losses: Tensor | None, gramian: Tensor) -> Tensor:
        if losses is None:
            raise ConfigError(
                f"MGDA with normalize={self.normalize} needs the losses. Got the Gramian alone, as "
                "wrappers of a weighting give it. Use normalize=none or l2 there, or no wrapper."
            )
        check_above(f"MGDA with normalize={self.normalize}", losses, 0.0)
        return losses.where(losses > 0, 1.0).to(gramian)
