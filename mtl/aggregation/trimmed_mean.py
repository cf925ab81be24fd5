"""Trimmed mean of the gradients."""

import torch
from torch import Tensor

from mtl.aggregation.columns import by_columns
from mtl.errors import ConfigError
from mtl.parts import Aggregator


class TrimmedMean(Aggregator):
    """At each coordinate the mean without the largest and smallest entries (Definition 2).

    Args:
        trim: How many entries are left out on each side, 0 or more; 0 is the mean. With fewer than
            `2 trim + 1` gradients (absent tasks) as many as leave one or two: the median. The paper
            gives the fraction `trim / m`; TorchJD the number, and raises where there are too few.

    Made for aggregation over workers some of which are adversarial, here over tasks: the update
    ignores a task whose gradient is an outlier. A mean, not a sum, as in the paper and TorchJD.

    References:
        Yin, Chen, Ramchandran, Bartlett. Byzantine-Robust Distributed Learning: Towards Optimal
        Statistical Rates. ICML 2018. https://arxiv.org/abs/1803.01498
    """

    columnwise = True

    def __init__(self, *, trim: int = 1) -> None:
        super().__init__()
        if trim < 0:
            raise ConfigError(f"`trim` should be 0 or more. Got {trim}.")
        self.trim = trim

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`."""
        count = len(jacobian)
        trim = min(self.trim, (count - 1) // 2)
        if trim == 0:
            return jacobian.mean(0)

        def middle(rows: Tensor) -> Tensor:
            ordered = torch.sort(rows.T.contiguous(), 1).values
            return ordered[:, trim : count - trim].mean(1)

        return by_columns(middle, jacobian)
