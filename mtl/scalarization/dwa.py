"""Dynamic weight average."""

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Scalarizer


class DynamicWeightAverage(Scalarizer):
    """Larger weights for tasks whose loss falls slowly.

    `w_i(t) = m softmax_i(r_i / temperature)`, `r_i = L_i(t-1) / L_i(t-2)`, where `L_i(t)` is the
    mean loss of epoch t. The first two epochs have weights of one. A task without labels in one of
    the last two epochs has `r_i = 1`.

    Args:
        num_tasks: Number of tasks.
        temperature: Softness of the weights, > 0; the paper's is 2.

    Unlike LibMTL's, the epoch's mean counts every step alike, and the history is saved with the
    model: a resumed run has the same weights.

    References:
        Liu, Johns, Davison. End-to-End Multi-Task Learning with Attention. CVPR 2019.
        https://arxiv.org/abs/1803.10704
    """

    epoch: Tensor
    sums: Tensor
    counts: Tensor
    history: Tensor

    def __init__(self, num_tasks: int, *, temperature: float = 2.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"`temperature` should be positive. Got {temperature}.")
        self.temperature = temperature
        self.register_buffer("epoch", torch.tensor(-1))
        self.register_buffer("sums", torch.zeros(num_tasks))
        self.register_buffer("counts", torch.zeros(num_tasks))
        self.register_buffer("history", torch.full((2, num_tasks), torch.nan))

    def on_epoch_start(self, epoch: int) -> None:
        """Turns the sums of the epoch that ended into its means."""
        if epoch > int(self.epoch):
            if int(self.epoch) >= 0:
                self.history.copy_(torch.stack([self.history[1], self.sums / self.counts]))
            self.sums.zero_()
            self.counts.zero_()
            self.epoch.fill_(epoch)

    def forward(self, losses: Tensor) -> Tensor:
        """Weighs the losses, `[k]`, by how slowly they fell."""
        self.sums[self.present] += losses.detach().to(self.sums)
        self.counts[self.present] += 1
        ratio = self.history[1] / self.history[0]
        ratio = torch.where(ratio.isfinite(), ratio, 1.0)[self.present]
        weights = len(losses) * torch.softmax(ratio / self.temperature, 0)
        return (weights.to(losses) * losses).sum()
