"""Conflict-free training: equal progress on every task's unit gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Weighting

# Eigenvalues of the cosines below this share of the largest are rounding of float32 rows.
_RANK_TOLERANCE = 1e-12


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
    float64. As a function of the Gramian it runs at the representation as well. Where no direction
    helps all (opposite gradients) the update is zero.

    References:
        Liu, Chu, Thuerey. ConFIG: Towards Conflict-free Training of Physics Informed Neural
        Networks. ICLR 2025. https://arxiv.org/abs/2408.11104
    """

    def __init__(self, *, preference: Sequence[float] | None = None) -> None:
        super().__init__()
        self.preference = None if preference is None else check_preference(preference)

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]`, of any sign, from the Gramian `[m, m]`."""
        # On the CPU in float64: an eigenvalue problem of m numbers.
        gram = gramian.detach().cpu().double().numpy()
        norms = np.sqrt(gram.diagonal().clip(min=0))
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        cosines = inverse[:, None] * gram * inverse
        target = np.ones(len(gram))
        if self.preference is not None:
            target = np.array(self.preference)[np.arange(len(self.preference))[self._index()]]
        values, vectors = np.linalg.eigh(cosines)
        kept = values > _RANK_TOLERANCE * max(values[-1], 0.0)
        components = vectors[:, kept].T @ target
        components[abs(components) < _RANK_TOLERANCE * np.linalg.norm(target)] = 0.0
        weights = vectors[:, kept] @ (components / values[kept])
        square = (components**2 / values[kept]).sum()  # |u|^2 before normalization
        if square > 0:
            length = norms @ (cosines @ weights) / square
            weights = length * weights
        return torch.from_numpy(weights * inverse).to(gramian)

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
