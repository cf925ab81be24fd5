"""Equal weighting."""

from torch import Tensor

from mtl.parts import Scalarizer


class EqualWeighting(Scalarizer):
    """The sum of the losses, `sum_i L_i`: the baseline of every comparison.

    The sum, not the mean, as in LibMTL and the papers' tables; with an adaptive optimizer the
    difference is nil. TorchJD has both.

    References:
        Kurin, De Palma, Kostrikov, Whiteson, Kumar. In Defense of the Unitary Scalarization for
        Deep Multi-Task Learning. NeurIPS 2022. https://arxiv.org/abs/2201.04122
    """

    def forward(self, losses: Tensor) -> Tensor:
        """Adds the losses, `[k]`."""
        return losses.sum()
