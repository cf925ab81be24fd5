"""Conflict-free training: equal progress on every task's unit gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import equilibrate, least_norm_solution
from mtl.parts import Weighting


class ConFIGWeighting(Weighting):
    """The direction with equal cosines to all gradients, as long as the sum of projections (Eq. 2).

    With unit rows `U`, `u = normalize(U^+ 1)` and the update `(sum_i <g_i, u>) u`. Since
    `U^+ = U^T K^+` with the cosines `K = U U^T`, the Gramian suffices: the weights on unit rows
    are `K^+ 1`, up to length.

    Args:
        preference: Positive, one number a task: the cosines are in these proportions (the paper's
            `w`). Default: ones.

    The official code and TorchJD take the pseudo-inverse of the `[m, n]` matrix in float32, with a
    rank tolerance that grows with n: for a million parameters it drops directions of a tenth of the
    largest, and the cosines are no longer equal. Here it is that of the `[m, m]` cosines in
    float64; their eigenvalues below 1e-6 of the largest count as zero, since the rounding of
    float32 gradients leaves up to 1e-7. As a function of the Gramian it runs at the representation
    as well. Where no direction helps all (opposite gradients) the update is zero.

    References:
        Liu, Chu, Thuerey. ConFIG: Towards Conflict-free Training of Physics Informed Neural
        Networks. ICLR 2025. https://arxiv.org/abs/2408.11104
    """

    def __init__(self, *, preference: Sequence[float] | None = None) -> None:
        super().__init__()
        self.preference = None if preference is None else check_preference(preference)

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]`, of any sign, from the Gramian `[m, m]`."""
        scaled = equilibrate(gramian)
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, 0.0)
        target = np.ones(len(gramian))
        if self.preference is not None:
            target = np.array(self.preference)[np.arange(len(self.preference))[self._index()]]
        solution = least_norm_solution(scaled.cosines, target[scaled.rows])
        square = scaled.length(solution) ** 2  # |u|^2 before normalization
        if square > 0:
            solution = solution * (scaled.norms @ scaled.cosines @ solution / square)
        return scaled.expand(solution / scaled.norms, 0.0)

    def _index(self) -> slice | list[int]:
        return self.present.tolist() if isinstance(self.present, Tensor) else self.present


def check_preference(preference: Sequence[float]) -> list[float]:
    """The preference as floats.

    Raises:
        ConfigError: It is not of positive numbers.
    """
    chosen = [float(value) for value in preference]
    if not chosen or not all(0 < value < float("inf") for value in chosen):
        raise ConfigError(f"`preference` should be positive numbers, one a task. Got {preference}.")
    return chosen
