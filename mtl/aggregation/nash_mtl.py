"""Multi-task learning as a bargaining game."""

from typing import Literal

import numpy as np
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import Equilibrated, equilibrate, fair_weights
from mtl.parts import Weighting


class NashMTLWeighting(Weighting):
    """The Nash bargaining solution: the direction with the greatest product of gains (Claim 3.1).

    `max_d sum_i log <g_i, d>` over `|d| <= 1` is solved by `d = w J / |w J|`, where the weights
    `w > 0` satisfy `(G w)_i = 1 / w_i`, so that `|w J|^2 = m`. It does not depend on the scale of a
    task: `w_i |g_i|` is a function of the cosines.

    Args:
        max_norm: Longer directions are shortened to it, > 0 or null for no limit; 1 in the official
            code and in TorchJD.
        like: `paper`: the equation above. `libmtl` and `torchjd`: with `G / |G|_F` in the place of
            `G` as in these and in the official code, so that the direction has the length
            `min(max_norm, sqrt(m |G|_F))`. Heads are weighted like the rest, but for `torchjd`,
            where they follow their own objective.

    Those solve the same equation by a sequence of linearized convex programs (20 times ECOS, to
    1e-3), 50 to 80 % off where norms are spread over 1e4, and keep the old weights where the solver
    fails. Here Newton's method solves it to rounding accuracy, a few hundred times faster.
    Where the direction is longer than `max_norm`, LibMTL and the official code shorten the shared
    gradient alone, after the backward pass; here and in TorchJD it is the weights, so that the
    heads' gradients shrink as well. Reusing weights between steps is the modifier `every`.

    The game has no solution at a Pareto stationary point: from `rho = 1e-4` down, `rho` the
    shortest convex combination of the unit gradients, a ridge bounds the weights (`fair_weights`).
    A gradient of zero takes no part; it has the mean weight of the others, for its head.

    References:
        Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya. Multi-Task Learning as a
        Bargaining Game. ICML 2022. https://arxiv.org/abs/2202.01017
    """

    head_grad = "weighted"

    def __init__(
        self,
        *,
        max_norm: float | None = 1.0,
        like: Literal["paper", "libmtl", "torchjd"] = "paper",
    ) -> None:
        super().__init__()
        if max_norm is not None and max_norm <= 0:
            raise ConfigError(f"`max_norm` should be positive or null. Got {max_norm}.")
        if like not in ("paper", "libmtl", "torchjd"):
            raise ConfigError(f"`like` should be paper, libmtl or torchjd. Got {like!r}.")
        self.max_norm = max_norm
        self.like = like
        if like == "torchjd":
            self.head_grad = "own"  # type: ignore[misc]

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`: positive."""
        scaled = equilibrate(gramian)
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, 1.0)
        solution = fair_weights(scaled.cosines, np.ones(len(scaled.rows)))
        length = scaled.length(solution)
        if self.like != "paper":
            factor = _root_of_norm(scaled)
            solution, length = solution * factor, length * factor
        if self.max_norm is not None and length > self.max_norm:
            solution = solution * (self.max_norm / length)
        weights = solution / scaled.norms
        return scaled.expand(weights, float(weights.mean()))


def _root_of_norm(scaled: Equilibrated) -> float:
    """`sqrt(|G|_F)`, without squares that overflow."""
    largest = float(scaled.norms.max())
    relative = scaled.norms / largest
    return largest * float(np.linalg.norm(scaled.cosines * np.outer(relative, relative))) ** 0.5
