"""Independent component alignment."""

from typing import Literal

import numpy as np
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import equilibrate, principal_components
from mtl.linalg.equilibrate import Matrix, Vector
from mtl.parts import Weighting

_CLEAR = 1e-5


class AlignedMTLWeighting(Weighting):
    """Gradients with their principal components made equally long (Alg. 1).

    `w = sqrt(s) V diag(lambda)^(-1/2) V^T p`, where `lambda`, `V` are the eigenvalues and
    eigenvectors of the Gramian: the nearest matrix to the Jacobian with condition number one,
    scaled by `s`, combined with `p`.

    Args:
        scale: `s`: the least eigenvalue (`min`, the paper's: converges to a Pareto stationary
            point), their `median`, or their mean (`rmse`), of those that are not zero.
        like: `paper` and `libmtl`: `p = 1`, the sum of the authors' code and of LibMTL. `torchjd`:
            `p = 1 / m`.

    Which eigenvalues are zero is rounding in all implementations. Here their number is the rank of
    the matrix of cosines (eigenvalues above 1e-6 of the largest; the rounding of float32 gradients
    leaves up to 1e-7), so that short gradients count as long ones do; in the others' float32 they
    drop out where norms are spread over 1e4, and the direction is 55 to 71 % off.

    The method is not equivariant to the scale of a task, on purpose. Gradients of zero change
    nothing, and get the weight 0; if all are, the weights are `p`.

    References:
        Senushkin, Patakin, Kuznetsov, Konushin. Independent Component Alignment for Multi-Task
        Learning. CVPR 2023. https://arxiv.org/abs/2305.19000
    """

    def __init__(
        self,
        *,
        scale: Literal["min", "median", "rmse"] = "min",
        like: Literal["paper", "libmtl", "torchjd"] = "paper",
    ) -> None:
        super().__init__()
        if scale not in ("min", "median", "rmse"):
            raise ConfigError(f"`scale` should be min, median or rmse. Got {scale!r}.")
        if like not in ("paper", "libmtl", "torchjd"):
            raise ConfigError(f"`like` should be paper, libmtl or torchjd. Got {like!r}.")
        self.scale = scale
        self.like = like

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`."""
        scaled = equilibrate(gramian)
        preference = 1 / len(gramian) if self.like == "torchjd" else 1.0
        if not scaled.rows.size:
            return scaled.expand(scaled.norms, preference)
        left, sizes = _components(scaled.cosines, scaled.norms / scaled.norms.max())
        size = {
            "min": sizes[-1],
            "median": sizes[len(sizes) // 2],  # the lower one of an even number
            "rmse": np.sqrt(np.mean(sizes**2)),
        }[self.scale]
        weights = left * (size / sizes) @ (left.sum(0) * preference)
        return scaled.expand(weights, 0.0)


def _components(cosines: Matrix, norms: Vector) -> tuple[Matrix, Vector]:
    """Left singular vectors, in columns, and singular values, descending, of the Jacobian."""
    values, vectors = np.linalg.eigh(cosines * norms * norms[:, None])
    # All independent, by the cosines as well, whose least eigenvalue is not less.
    if values[0] > _CLEAR * len(norms):
        return vectors[:, ::-1], np.sqrt(values[::-1])
    values, vectors = principal_components(cosines)
    # G = R R^T: singular values of R keep digits that eigenvalues of G lose.
    left, sizes, _ = np.linalg.svd(norms[:, None] * vectors * np.sqrt(values), False)
    regular = sizes > len(norms) * np.finfo(np.float64).eps * sizes[0]
    return left[:, regular], sizes[regular]
