"""A Gramian on the unit-norm scale of its rows: what every solver here starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Equilibrated:
    """`G = D K D`, `D` the norms of the rows: solvers see `K`, whatever the spread of the norms.

    Attributes:
        cosines: `K`, `[r, r]`, ones on the diagonal, of the rows that are not zero. Negative
            eigenvalues, which are rounding, are lifted to zero.
        norms: `[r]`, positive.
        rows: Positions of the `r` rows that are not zero.
        like: The Gramian, `[m, m]`.
    """

    cosines: Matrix
    norms: Vector
    rows: NDArray[np.intp]
    like: Tensor

    def length(self, values: Vector) -> float:
        """Norm of the combination of unit rows with these coordinates, `[r]`."""
        return math.sqrt(max(float(values @ self.cosines @ values), 0.0))

    def expand(self, values: Vector, zero_rows: float) -> Tensor:
        """Values of the non-zero rows to `[m]`, in the Gramian's dtype and device."""
        result = np.full(len(self.like), zero_rows)
        result[self.rows] = values
        return torch.from_numpy(result).to(self.like)


def equilibrate(gramian: Tensor) -> Equilibrated:
    """Divides rows and columns by the norms, in float64.

    On the CPU in numpy: the problems have m numbers, and kernels on an accelerator would cost more
    in launches than the whole solution.

    Args:
        gramian: Positive semi-definite up to rounding, `[m, m]`, finite.
    """
    gram = gramian.detach().cpu().double().numpy()
    norms = np.sqrt(gram.diagonal().clip(min=0.0))
    rows = np.flatnonzero(norms > np.sqrt(np.finfo(np.float64).tiny))
    norms = norms[rows]
    cosines = (gram[np.ix_(rows, rows)] / norms / norms[:, None]).clip(-1.0, 1.0)
    if len(rows) > 1:
        lowest = float(np.linalg.eigvalsh(cosines)[0])
        if lowest < 0:
            cosines = cosines - lowest * np.eye(len(rows))
    return Equilibrated(cosines, norms, rows, gramian)
