"""Uncertainty weighting."""

import torch
from torch import Tensor, nn

from mtl.errors import ConfigError
from mtl.parts import Scalarizer


class UncertaintyWeighting(Scalarizer):
    r"""Weights learned as the noise of each task, `sum_i (exp(-s_i) L_i + s_i) / 2`.

    `s_i = log sigma_i^2` is a parameter; the optimizer learns it in its own group (Eq. 7 of the
    paper, in `s`).

    Args:
        num_tasks: Number of tasks.
        initial: Start of every `s_i`. The paper leaves it open: 0 gives weights of 1/2;
            LibMTL starts at -0.5.
        learning_rate: Of `s_i` by itself, > 0. Default: that of the model. ANT takes 0.025, 250
            times the model's: losses that span orders need `s_i = log L_i` far from 0.

    The form is the regression one (with `s = log sigma^2`, as the paper advises),
    also for classification, where the paper's approximation has `exp(-s) L + s/2`; LibMTL does the
    same.

    References:
        Kendall, Gal, Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics. CVPR 2018. https://arxiv.org/abs/1705.07115
    """

    def __init__(
        self, num_tasks: int, *, initial: float = 0.0, learning_rate: float | None = None
    ) -> None:
        super().__init__()
        if learning_rate is not None and learning_rate <= 0:
            raise ConfigError(f"`learning_rate` should be positive or null. Got {learning_rate}.")
        self.learning_rate = learning_rate
        self.log_variance = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def forward(self, losses: Tensor) -> Tensor:
        """Weighs the losses, `[k]`, by the learned variances."""
        log_variance = self.log_variance[self.present]
        return 0.5 * (torch.exp(-log_variance) * losses + log_variance).sum()
