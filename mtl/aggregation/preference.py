"""A preference among the tasks, for any weighting."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.aggregation.config import check_preference
from mtl.aggregation.ema import check_weighting
from mtl.parts import Weighting


class Preference(Weighting):
    """Shows a weighting the gradients of `p_i L_i` instead of those of `L_i`.

    With the Gramian `G` it gives `p * weighting(p p^T * G)` (products by element): the weights of
    the scaled gradients, as weights of the plain ones. It is what the weighting would do if the
    losses were multiplied by `p`, but heads that follow their own objective are not scaled.

    Args:
        weighting: Any weighting; a TorchJD one is adapted.
        preference: Positive, one number a task; the larger, the more the task counts. Default:
            ones, which change nothing.

    In YAML::

        combine:
          _target_: mtl.aggregation.Preference
          preference: [2.0, 1.0, 1.0]
          weighting: {_target_: mtl.aggregation.PCGradWeighting}

    or `balancer/combine=preference balancer.combine.preference=[2,1,1]`.

    A sum of projected gradients (PCGrad) leans to the preferred task; a shortest vector (MGDA)
    leans away from longer gradients, hence away from it; what looks at cosines only does not
    change. Methods with a preference of their own (`ConFIGWeighting`) are better served by that.
    The `pref_vector` of TorchJD's aggregators means a different thing in each of them.
    """

    preference: Tensor

    def __init__(
        self, weighting: Weighting | nn.Module, preference: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.weighting = check_weighting(weighting)
        self.head_grad = self.weighting.head_grad  # type: ignore[misc]
        values = torch.tensor([1.0] if preference is None else check_preference(preference))
        self.register_buffer("preference", values, persistent=False)

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`."""
        if len(self.preference) == 1:
            return self.weighting(gramian)  # a common factor changes nothing
        preference = self.preference[self.present].to(gramian)
        return preference * self.weighting(gramian * torch.outer(preference, preference))
