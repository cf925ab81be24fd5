"""Equal weighting."""

from torch import Tensor

from mtl.parts import Scalarizer


class EqualWeighting(Scalarizer):
    """The sum of the losses, `sum_i L_i`: the baseline of every comparison.

    The sum, not the mean, as in LibMTL and the papers' tables; with an adaptive optimizer the
    difference is nil.
    """

    def forward(self, losses: Tensor) -> Tensor:
        """Adds the losses, `[k]`."""
        return losses.sum()
